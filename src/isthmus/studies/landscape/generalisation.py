"""Flatness and generalisation over learning rate × batch size, all networks stopped at the same training loss."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.score import Score
from isthmus.core.weights import Weights, to
from isthmus.studies.landscape.flatness import FlatnessVerdict, flatness
from isthmus.studies.landscape.glass import symmetry_with_scale
from isthmus.studies.landscape.solution import Flatness, flatness_of
from isthmus.train import Recipe, train
from isthmus.train.batches import Batches, Examples

GAPS = ("loss", "error")


@dataclasses.dataclass(frozen=True)
class Grid(Record):
    """What is varied, and at which training loss the networks are compared.

    Attributes:
        rates: learning rates.
        batch_sizes: examples in a step.
        networks: seeds of every setting.
        target: the training loss at which every network is looked at, in nats.
        tolerance: how far from it, as a share of it, a network may be and still count as matched.
    """

    rates: tuple[float, ...] = (0.02, 0.04, 0.08)
    batch_sizes: tuple[int, ...] = (32, 64, 128)
    networks: int = 4
    target: float = 0.4
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if len(self.rates) * len(self.batch_sizes) < 2 or self.networks < 2:
            raise SettingError(
                f"a study of flatness needs at least 2 settings and 2 networks of each, got {len(self.rates)} rates, "
                f"{len(self.batch_sizes)} batch sizes and {self.networks} networks"
            )
        if not self.target > 0 or not self.tolerance > 0:
            raise SettingError(f"target and tolerance must be positive, got {self.target} and {self.tolerance}")


@dataclasses.dataclass(frozen=True)
class Subject(Record):
    """One network at the end of the epoch that came nearest to the target.

    Attributes:
        name: its rate, batch size and seed.
        rate: its learning rate.
        batch_size: its batch size.
        step: steps of training.
        training: score on its own training set, with its own labels.
        test: score on the test set.
        gap: test minus training, of the loss or the error.
        matched: whether its training loss lies within the tolerance.
    """

    name: str
    rate: float
    batch_size: int
    step: int
    training: Score
    test: Score
    gap: float
    matched: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Generalisation(Record):
    """Whether flatter networks generalise better, at one training loss.

    Attributes:
        grid: what was varied.
        recipe: what all networks share.
        gap: ``loss`` or ``error``.
        subjects: the networks that were measured, matched or not.
        sharpness: for each measure one number for each subject; larger is sharper.
        verdict: rank correlations over the matched subjects, controlling for what is left of the training loss.
        diverged: networks that left the finite range; counted, not measured.
        scale_removed: whether free scales of units were removed first.
        provenance: versions, machine, command.
    """

    grid: Grid
    recipe: Mapping[str, Any]
    gap: str
    subjects: tuple[Subject, ...]
    sharpness: Mapping[str, tuple[float, ...]]
    verdict: FlatnessVerdict
    diverged: int
    scale_removed: bool
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def generalisation(
    recipe: Recipe,
    *,
    data: Examples,
    module: Callable[[Recipe], nn.Module],
    grid: Grid | None = None,
    gap: str = "loss",
    products: int = 40,
    device: str = "cpu",
    engine: str = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> Generalisation:
    """Train over a grid, stop every network at one training loss, and relate sharpness to the generalisation gap.

    Every network is kept at the end of each epoch; the epoch whose training loss is nearest to the target counts, in
    logarithms. So networks of a small rate are looked at late and those of a large one early, and none is sharper only
    because it was trained further.

    Args:
        recipe: what all networks share; its rate, batch size and seeds of initialisation and order are replaced.
        data: training and test examples.
        module: a function from a recipe to its freshly initialised module.
        grid: what is varied; :class:`Grid`'s defaults suit small networks on digits with a tenth of wrong labels.
        gap: of the ``loss`` or of the ``error``.
        products: for the trace of each Hessian.
        device: where to train and measure.
        engine: how the networks of one setting are trained together, see :func:`isthmus.train.train`.
        seed: of directions, probes and the permutations.
        progress: told along the way.

    Raises:
        SettingError: too few networks at the target, an unknown gap, or a recipe that says its own checkpoints.

    Cost: settings × networks trainings, whose weights are kept at every epoch; about 150 gradients for each network.
    """
    grid = grid or Grid()
    if gap not in GAPS:
        raise SettingError(f"gap must be loss or error, got {gap}")
    if recipe.checkpoints or recipe.spawn or recipe.pruning_levels:
        raise SettingError("the shared recipe must have no checkpoints, spawn or pruning of its own")
    bench = _Bench(recipe, data, module, grid, gap, torch.device(device), engine)
    settings = [(rate, size) for rate in grid.rates for size in grid.batch_sizes]
    subjects: list[Subject] = []
    solutions: list[Weights] = []
    for place, (rate, size) in enumerate(settings):
        told = within(progress, place, 2 * len(settings), label=f"rate {rate:g}, batch {size}")
        for subject, weights in bench.run(rate, size, place * grid.networks, told):
            subjects.append(subject)
            solutions.append(weights)
    _check_matched(subjects, grid)
    flat = flatness_of(
        solutions,
        bench.training,
        names=[subject.name for subject in subjects],
        symmetry=symmetry_with_scale(bench.made, data.train_inputs[:2].to(device)),
        pairs=1,
        products=products,
        seed=seed,
        progress=within(progress, 1, 2),
    )
    sharpness = _columns(flat)
    return Generalisation(
        grid=grid,
        recipe=recipe.to_dict(),
        gap=gap,
        subjects=tuple(subjects),
        sharpness=sharpness,
        verdict=_judged(sharpness, subjects, grid, seed),
        diverged=len(settings) * grid.networks - len(subjects),
        scale_removed=flat.scale_removed,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Bench:
    """What every setting is trained and looked at with."""

    recipe: Recipe
    data: Examples
    module: Callable[[Recipe], nn.Module]
    grid: Grid
    gap: str
    device: torch.device
    engine: str

    @functools.cached_property
    def made(self) -> nn.Module:
        return self.module(self.recipe).to(self.device)

    @functools.cached_property
    def training(self) -> Objective:
        """On the recipe's own examples and labels."""
        return Objective(Network.of(self.made), *Batches.of([self.recipe], self.data, device=self.device).own(0))

    @functools.cached_property
    def test(self) -> Objective:
        inputs, targets = (part.to(self.device) for part in (self.data.test_inputs, self.data.test_targets))
        return Objective(self.training.network, inputs, targets)

    def run(self, rate: float, batch_size: int, first: int, progress: Progress) -> list[tuple[Subject, Weights]]:
        """The networks of one setting that stayed finite, each at the epoch nearest to the target."""
        one = dataclasses.replace(self.recipe, rate=rate, batch_size=batch_size)
        examples = len(self.training.targets)
        each, total = one.steps_in_epoch(examples), one.total_steps(examples)
        one = dataclasses.replace(one, checkpoints=tuple(range(each, total, each)))
        # Seeds of its own for every setting: networks from one initialisation are not independent of each other.
        recipes = [
            dataclasses.replace(one, initialisation_seed=number, order_seed=number)
            for number in range(first, first + self.grid.networks)
        ]
        replicas = train(
            recipes, data=self.data, module=self.module, device=self.device, engine=self.engine, scores="never",
            progress=progress,
        )  # fmt: skip
        found = []
        for index, replica in enumerate(replicas):
            nearest = self._nearest({**replica.checkpoints, total: replica.weights})
            if nearest is not None:
                name = f"rate {rate:g}, batch {batch_size}, network {first + index}"
                found.append((self._subject(name, one, *nearest), nearest[1]))
        return found

    def _nearest(self, moments: Mapping[int, Weights]) -> tuple[int, Weights] | None:
        """The moment whose training loss is nearest to the target; ``None`` where none is finite."""
        best, found = math.inf, None
        for step, weights in moments.items():
            placed = to(weights, device=self.device)
            loss = self.training(placed).loss
            distance = abs(math.log(loss / self.grid.target)) if math.isfinite(loss) and loss > 0 else math.inf
            if distance < best:
                best, found = distance, (step, placed)
        return found

    def _subject(self, name: str, recipe: Recipe, step: int, weights: Weights) -> Subject:
        training, test = self.training(weights), self.test(weights)
        gap = test.loss - training.loss if self.gap == "loss" else test.error - training.error
        matched = abs(training.loss / self.grid.target - 1) <= self.grid.tolerance
        return Subject(name, recipe.rate, recipe.batch_size, step, training, test, gap, matched)


def _check_matched(subjects: Sequence[Subject], grid: Grid) -> None:
    """Found out before the measuring, not after it."""
    matched = sum(subject.matched for subject in subjects)
    if matched < 5:
        losses = [subject.training.loss for subject in subjects]
        reached = f"{min(losses):.3g} … {max(losses):.3g}" if losses else "none, all diverged"
        raise SettingError(
            f"at least 5 networks must come within {grid.tolerance:.0%} of the training loss {grid.target:g}, got "
            f"{matched} (nearest losses: {reached}); change the target or the epochs"
        )


def _judged(
    sharpness: Mapping[str, Sequence[float]], subjects: Sequence[Subject], grid: Grid, seed: int
) -> FlatnessVerdict:
    """Rank correlations over the networks near the target."""
    return flatness(
        sharpness,
        [subject.gap for subject in subjects],
        [subject.training.loss for subject in subjects],
        settings=[(subject.rate, subject.batch_size) for subject in subjects],
        matched=(grid.target * (1 - grid.tolerance), grid.target * (1 + grid.tolerance)),
        generator=child(seed, "generalisation"),
    )


def _columns(flat: Flatness) -> dict[str, tuple[float, ...]]:
    """One number for each network and measure."""
    return {
        "eigenvalue": tuple(float(each.values[0]) for each in flat.eigenvalues),
        "trace": tuple(each.interval.estimate for each in flat.trace),
        **{kind: tuple(each.rise for each in getattr(flat, kind)) for kind in ("random", "worst", "adaptive")},
    }
