"""The main job in one function: train, find the symmetry, align, measure, merge, and say what it means."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import isthmus.discover as discovery
from isthmus.connect import PairBarriers, barriers
from isthmus.connect.normalisation import reestimate
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import Record, plain
from isthmus.core.status import Status
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights, lerp
from isthmus.merge.evaluate import ensemble
from isthmus.studies.comparison import compare
from isthmus.studies.demo.settings import Settings
from isthmus.studies.matchers import matcher
from isthmus.train import Replica, train
from isthmus.zoo.data import Data, load
from isthmus.zoo.models import build

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class WidthResult(Record):
    """Everything measured at one width; ``barriers`` is by method: naive, weights, activations."""

    width: float | None
    parameters: int
    log10_size: float
    groups: int
    training_loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    diverged: int
    barriers: Mapping[str, PairBarriers]


@dataclasses.dataclass(frozen=True, eq=False)
class Demo(Record):
    """The demonstration's results.

    Attributes:
        settings: what was asked for.
        recipe: of the widest network; the others differ in width and seeds.
        widths: one result for each width.
        family: barriers between networks of one initialisation, at ``family_width``.
        family_width: the middle one of the widths; ``None`` for a model of one size.
        merged: loss and accuracy of the ends, the averages and the ensemble, at the last width.
        data: name, fingerprint, classes, and how many examples of each split.
        seconds: by phase.
        provenance: versions, machine, command, and under ``trained`` the recipes of the two that were merged.
    """

    settings: Settings
    recipe: Mapping[str, Any]
    widths: tuple[WidthResult, ...]
    family: PairBarriers
    family_width: float | None
    merged: Mapping[str, Mapping[str, float]]
    data: Mapping[str, Any]
    seconds: Mapping[str, float]
    provenance: Mapping[str, Any]


class _Clock:
    """Runs one phase after another, adds up their seconds and tells how far the whole has come."""

    def __init__(self, progress: Progress, *, phases: int) -> None:
        self.seconds: dict[str, float] = {}
        self._progress, self._phases, self._done = progress, phases, 0

    def __call__(self, phase: str, work: Callable[[Progress], T]) -> T:
        told = within(self._progress, self._done, self._phases, label=phase)
        began = time.perf_counter()
        told(0, 1)
        result = work(told)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began
        self._done += 1
        return result


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """The networks of one width and what is needed to measure them."""

    width: float | None
    replicas: Sequence[Replica]
    network: Network
    symmetry: Symmetry
    objective: Objective

    @property
    def kept(self) -> list[Replica]:
        """The networks that did not diverge."""
        return [replica for replica in self.replicas if replica.status is not Status.DIVERGED]

    @property
    def solutions(self) -> list[Weights]:
        """Their weights."""
        return [replica.weights for replica in self.kept]


def demonstrate(
    settings: Settings, *, folder: str | None = None, seed: int = 0, device: str = "cpu", progress: Progress = silent
) -> tuple[Demo, dict[str, Weights]]:
    """Run the main job.

    Args:
        settings: see :class:`Settings`.
        folder: where the data's files are, for the large sets.
        seed: of the alignment's random order; the trainings have seeds of their own.
        device: where to train and evaluate.
        progress: told after every step of the work.

    Returns:
        The results, and the weights worth keeping: ``first``, ``second``, ``second_aligned`` and ``merged``.
    """
    clock = _Clock(progress, phases=3 * len(settings.widths) + 3)
    data = clock("data", lambda told: _data(settings, folder)).to(device)
    groups = [_train(settings, width, data, device, clock) for width in settings.widths]
    middle = groups[len(groups) // 2]
    family = clock("family", lambda told: _family(settings, middle, data, device, told))
    results = []
    for group in groups:
        found = clock("barriers", lambda told, g=group: _compared(settings, g, data, seed, told))
        results.append(_result(group, data, found))
    merged, kept = clock("merge", lambda told: _merge(groups[-1], data, seed))
    recipe = settings.recipe(settings.widths[-1], data.shape, data.classes)
    trained = [replica.recipe.to_dict() for replica in groups[-1].kept[:2]]
    demo = Demo(
        settings=settings,
        recipe=plain(recipe),
        widths=tuple(results),
        family=family,
        family_width=middle.width,
        merged=merged,
        data={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "classes": data.classes,
            "train": len(data.train_targets),
            "test": len(data.test_targets),
        },
        seconds=clock.seconds,
        provenance={**provenance(), "recipe": recipe.to_dict(), "data": data.fingerprint, "trained": trained},
    )
    return demo, kept


def _data(settings: Settings, folder: str | None) -> Data:
    return load(settings.data, folder).limited(sys.maxsize if settings.examples is None else settings.examples)


def _train(settings: Settings, width: float | None, data: Data, device: str, clock: _Clock) -> Trained:
    """Train the networks of one width and find their symmetry."""
    recipe = settings.recipe(width, data.shape, data.classes)
    recipes = recipe.replicates(settings.solutions)
    replicas = clock("training", lambda told: train(recipes, data=data, module=build, device=device, progress=told))
    module = build(recipe)
    symmetry = clock("symmetry", lambda told: discovery.discover(module, data.train_inputs[:2].cpu()))
    network = Network.of(module.to(device))
    objective = Objective(network, data.test_inputs, data.test_targets)
    trained = Trained(width, replicas, network, symmetry, objective)
    if len(trained.solutions) < 2:
        raise SettingError(
            f"at least two networks must train without diverging, got {len(trained.solutions)} of {len(replicas)} "
            f"at width {width}; lower the rate"
        )
    return trained


def _family(settings: Settings, middle: Trained, data: Data, device: str, progress: Progress) -> PairBarriers:
    """Networks that share their initialisation and differ in the order of the data."""
    recipes = settings.recipe(middle.width, data.shape, data.classes).replicates(settings.family, vary=("order",))
    replicas = train(recipes, data=data, module=build, device=device, progress=progress)
    group = dataclasses.replace(middle, replicas=replicas)
    return barriers(group.solutions, group.objective, points=settings.points, inputs=data.train_inputs)


def _compared(
    settings: Settings, group: Trained, data: Data, seed: int, progress: Progress
) -> Mapping[str, PairBarriers]:
    """Barriers of all pairs of a width, as trained and after alignment."""
    return compare(
        group.solutions,
        group.objective,
        symmetry=group.symmetry,
        inputs=data.train_inputs,
        seed=seed,
        points=settings.points,
        progress=progress,
    ).barriers


def _result(group: Trained, data: Data, found: Mapping[str, PairBarriers]) -> WidthResult:
    solutions = group.solutions
    parameters = sum(group.network.weights[name].numel() for name in group.network.parameter_names)
    training = dataclasses.replace(group.objective, inputs=data.train_inputs, targets=data.train_targets)
    return WidthResult(
        width=group.width,
        parameters=parameters,
        log10_size=group.symmetry.log10_size,
        groups=len(group.symmetry.groups),
        training_loss=tuple(training(weights).loss for weights in solutions),
        accuracy=tuple(1 - group.objective(weights).error for weights in solutions),
        diverged=len(group.replicas) - len(solutions),
        barriers=found,
    )


def _merge(group: Trained, data: Data, seed: int) -> tuple[dict[str, dict[str, float]], dict[str, Weights]]:
    """Average the first two networks, with and without alignment, beside the ends and their ensemble."""
    first, second = group.solutions[:2]
    matching = matcher("weights")
    match = matching(group.symmetry, second, first, generator=child(seed, "alignment", "weights", 0, 1))
    aligned = match.permutation.apply(second)
    middle = {"naive": lerp(first, second, 0.5), "aligned": lerp(first, aligned, 0.5)}
    if group.network.has_batch_statistics:
        middle = {name: reestimate(group.network, weights, data.train_inputs) for name, weights in middle.items()}
    scores = {"first": group.objective(first), "second": group.objective(second)}
    scores |= {name: group.objective(weights) for name, weights in middle.items()}
    scores["ensemble"] = ensemble(group.objective, (first, second))
    measured = {name: {"loss": score.loss, "accuracy": 1 - score.error} for name, score in scores.items()}
    return measured, {"first": first, "second": second, "second_aligned": aligned, "merged": middle["aligned"]}
