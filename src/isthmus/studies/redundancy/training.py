"""Training the networks of one remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent, within
from isthmus.core.randomness import child, child_seed
from isthmus.core.weights import Weights
from isthmus.studies.redundancy.candidates import Fitted
from isthmus.train import Recipe, Replica, train
from isthmus.zoo.data import Data
from isthmus.zoo.modular import Modular, grown


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """Networks of one remedy.

    Attributes:
        module: their architecture.
        width: of it.
        parameters: what training may change.
        solutions: those that did not diverge.
        histories: for each of them, steps and test accuracy at the end of every epoch.
        diverged: how many did.
    """

    module: nn.Module
    width: int | None
    parameters: int
    solutions: Sequence[Weights]
    histories: Sequence[Sequence[tuple[int, float]]]
    diverged: int


def trained(
    fit: Fitted, recipe: Recipe, data: Data, *, networks: int, device: str = "cpu", progress: Progress = silent
) -> Trained:
    """Train networks of one remedy that differ in initialisation, order and augmentation.

    Raises:
        SettingError: fewer than two networks trained without diverging.
    """
    recipe = dataclasses.replace(recipe, network=fit.network, settings=dict(fit.settings))
    stages = _growing if fit.candidate.growing else _at_once
    runs = stages(fit, recipe.replicates(networks), data, device, progress)
    kept = [run for run in runs if not any(stage.diverged for stage in run)]
    if len(kept) < 2:
        raise SettingError(
            f"at least 2 networks must train without diverging, got {len(kept)} of {fit.candidate.name}; lower the rate"
        )
    return Trained(
        module=fit.make(0),
        width=fit.width,
        parameters=fit.parameters,
        solutions=[run[-1].weights for run in kept],
        histories=[_history(run) for run in kept],
        diverged=len(runs) - len(kept),
    )


def _at_once(
    fit: Fitted, recipes: Sequence[Recipe], data: Data, device: str, progress: Progress
) -> list[list[Replica]]:
    """One stage for each network."""
    replicas = train(
        recipes, data=data, module=lambda recipe: fit.make(recipe.initialisation_seed), device=device, scores="epochs",
        progress=progress,
    )  # fmt: skip
    return [[replica] for replica in replicas]


def _growing(
    fit: Fitted, recipes: Sequence[Recipe], data: Data, device: str, progress: Progress
) -> list[list[Replica]]:
    """The epochs are divided over as many stages as there are blocks; each stage begins with one more block."""
    modules: dict[int, nn.Module] = {r.initialisation_seed: fit.make(r.initialisation_seed, blocks=1) for r in recipes}
    blocks = len(fit.make(0).blocks)  # type: ignore[arg-type]
    runs: list[list[Replica]] = [[] for _ in recipes]
    for stage in range(blocks):
        epochs = recipes[0].epochs * (stage + 1) // blocks - recipes[0].epochs * stage // blocks
        part = [
            dataclasses.replace(one, epochs=max(1, epochs), order_seed=child_seed(one.order_seed, "stage", stage))
            for one in recipes
        ]
        replicas = train(
            part, data=data, module=lambda recipe: modules[recipe.initialisation_seed], device=device, scores="epochs",
            progress=within(progress, stage, blocks),
        )  # fmt: skip
        for run, replica in zip(runs, replicas, strict=True):
            run.append(replica)
            seed = replica.recipe.initialisation_seed
            module = modules[seed]
            module.load_state_dict(dict(replica.weights))
            if stage < blocks - 1 and isinstance(module, Modular):
                modules[seed] = grown(module, generator=child(seed, "growth", stage))
    return runs


def _history(run: Sequence[Replica]) -> list[tuple[int, float]]:
    """Steps, counted over all stages, and test accuracy after every epoch."""
    found, before = [], 0
    for stage in run:
        found += [
            (before + epoch.steps, 1 - epoch.test_error) for epoch in stage.history if epoch.test_error is not None
        ]
        before = found[-1][0] if found else 0
    return found
