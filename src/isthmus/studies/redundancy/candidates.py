"""The networks that the trial of remedies trains: each remedy's, as wide as matches the plain network's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.weights import Weights
from isthmus.train import Recipe, Replica, train
from isthmus.zoo.data import Data
from isthmus.zoo.modular import Modular, grown
from isthmus.zoo.networks import network
from isthmus.zoo.remedies import anchored, free_parameters, masked, ordered

_NARROWEST = 4  # units: as many as polynomial degrees and blocks of a mask


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One remedy.

    Attributes:
        name: what it is called.
        network: of the zoo.
        settings: of that network, besides inputs, classes, width and depth.
        change: what is done to it, with the seed of masks and constants; None for nothing.
        trained_as: the remedy whose trained networks this one takes over.
        canonical: whether its units are sorted after training.
        growing: whether it starts with one block and gains one at a time.
    """

    name: str
    network: str = "mlp"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    change: Callable[..., nn.Module] | None = None
    trained_as: str | None = None
    canonical: bool = False
    growing: bool = False


REMEDIES: Mapping[str, Candidate] = {
    candidate.name: candidate
    for candidate in (
        Candidate("plain"),
        Candidate("sorted", trained_as="plain", canonical=True),
        Candidate("ordered", change=ordered),
        Candidate("mask", change=partial(masked, density=0.5)),
        Candidate("mask-blocks", change=partial(masked, density=0.5, structure="blocks")),
        Candidate("frozen", change=partial(anchored, share=0.5, scale=2.0)),
        Candidate("frozen-strong", change=partial(anchored, share=0.75, scale=2.0)),
        Candidate("chebyshev", network="ortho", settings={"family": "chebyshev", "form": "units"}),
        Candidate("hermite", network="ortho", settings={"family": "hermite", "form": "units"}),
        Candidate("legendre-degrees", network="ortho", settings={"family": "legendre", "form": "degrees"}),
        Candidate("modular", network="modular"),
        Candidate("modular-grown", network="modular", growing=True),
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A remedy at the width that matches.

    Attributes:
        candidate: the remedy.
        width: of its network.
        parameters: what training may change.
        make: seed of the initialisation → module; further settings of the network by name.
    """

    candidate: Candidate
    width: int
    parameters: int
    make: Callable[..., nn.Module]


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
    width: int
    parameters: int
    solutions: Sequence[Weights]
    histories: Sequence[Sequence[tuple[int, float]]]
    diverged: int


def matched(candidate: Candidate, data: Data, *, size: int, seed: int = 0) -> Fitted:
    """The width at which a remedy's free parameters come closest to those of a plain network.

    Args:
        candidate: the remedy.
        data: gives inputs and classes.
        size: width of the plain network, with two hidden layers.
        seed: of masks and constants.

    Raises:
        SettingError: the size is below 4 units.
    """
    if size < _NARROWEST:
        raise SettingError(f"sizes must be at least {_NARROWEST} units, got {size}")
    shared = {"inputs": data.shape, "classes": data.classes, "depth": 2}
    target = free_parameters(network("mlp", width=size, **shared))
    if candidate.network == "mlp" and candidate.change is None:
        low = high = size
    else:
        low, high = _NARROWEST, 8 * size

    def make(width: int, initial: int = 0, **further: Any) -> nn.Module:
        made = network(candidate.network, seed=initial, width=width, **shared, **candidate.settings, **further)
        changes = {} if candidate.change is ordered else {"seed": seed}
        return made if candidate.change is None else candidate.change(made, **changes)

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if free_parameters(make(middle)) <= target else (low, middle)
    width = min((low, high), key=lambda one: abs(free_parameters(make(one)) - target))
    return Fitted(candidate, width, free_parameters(make(width)), partial(make, width))


def trained(
    fit: Fitted, recipe: Recipe, data: Data, *, networks: int, device: str = "cpu", progress: Progress = silent
) -> Trained:
    """Train networks of one remedy that differ in initialisation, order and augmentation.

    Raises:
        SettingError: fewer than two networks trained without diverging.
    """
    named = {"inputs": list(data.shape), "classes": data.classes, "width": fit.width, "depth": 2}
    recipe = dataclasses.replace(recipe, network=fit.candidate.network, settings={**named, **fit.candidate.settings})
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
        part = [dataclasses.replace(recipe, epochs=max(1, epochs), order_seed=recipe.order_seed + 1000 * stage)
                for recipe in recipes]  # fmt: skip

        def told(done: float, total: float, label: str = "", *, stage: int = stage) -> None:
            progress(stage + done / max(total, 1), blocks, label)

        replicas = train(
            part, data=data, module=lambda recipe: modules[recipe.initialisation_seed], device=device, scores="epochs",
            progress=told,
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
