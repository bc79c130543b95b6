"""Which remedy against redundancy removes the barrier between seeds, and at what price, at matched parameters.

Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008, names
    the remedies; frozen constants follow Lim et al., arXiv 2405.20231.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import isthmus.discover as discovery
from isthmus.connect.pairs import PairBarriers
from isthmus.core.errors import SettingError, listed
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks, over_pairs, student_quantile
from isthmus.studies.comparison import compare
from isthmus.studies.redundancy.candidates import REMEDIES, Candidate, Trained, matched, trained
from isthmus.train import Recipe
from isthmus.zoo.data import Data
from isthmus.zoo.remedies import sorted_units

USUAL = tuple(name for name in REMEDIES if name not in ("hermite", "modular-grown"))  # one of each kind
RECIPE = Recipe(
    network="mlp", optimiser="sgd", rate=0.1, momentum=0.9, schedule="cosine", batch_size=64, warmup=20, epochs=15
)  # steady, as aligning by weights needs it
STABLE = 0.02  # the error barrier below which Frankle et al. (arXiv 1912.05671) call a pair stable


@dataclasses.dataclass(frozen=True)
class Heights(Record):
    """Barriers over all pairs of one set of networks, above the line between the ends.

    Attributes:
        loss: of the test cross-entropy, in nats.
        error: of the test error.
    """

    loss: Interval
    error: Interval


@dataclasses.dataclass(frozen=True)
class Trial(Record):
    """One remedy at one size and level of label noise.

    Attributes:
        remedy: its name; ``plain`` is the network without any.
        size: width of the plain network whose parameters are matched.
        label_noise: share of wrong training labels.
        width: of this network.
        parameters: what training may change.
        groups: groups of exchangeable units that discovery found.
        log10_copies: log10 of the number of equivalent networks.
        networks: how many were trained without diverging.
        diverged: how many were not.
        accuracy: on the test set.
        cost: the plain network's accuracy less this one's (Welch's interval); None for the plain one.
        deviation: of the accuracy from seed to seed.
        disagreement: share of test examples that two networks put into different classes.
        steps: to the target, over the networks that reached it; None if none did.
        reached: how many did.
        slowdown: mean steps over those of the plain network.
        naive: barriers as the networks are.
        aligned: after aligning; None where there is nothing to exchange.
        remaining: the naive loss barrier over the plain network's, with Welch's interval of the logarithms; None for
            the plain one.
        remaining_aligned: the same of the barrier after aligning; for the plain network what aligning alone leaves.
        verdict: ``removes`` (the whole interval of the naive error barrier lies below the threshold), ``lowers`` (the
            whole interval of ``remaining`` lies below 1), ``does not`` or, without an interval, ``unknown``.
        verdict_aligned: the same after aligning.
    """

    remedy: str
    size: int
    label_noise: float
    width: int
    parameters: int
    groups: int
    log10_copies: float
    networks: int
    diverged: int
    accuracy: Interval
    cost: Interval | None
    deviation: float
    disagreement: Interval
    steps: Interval | None
    reached: int
    slowdown: float | None
    naive: Heights
    aligned: Heights | None
    remaining: Interval | None = None
    remaining_aligned: Interval | None = None
    verdict: str = "unknown"
    verdict_aligned: str | None = None


@dataclasses.dataclass(frozen=True)
class Scaling(Record):
    """How one remedy's loss barrier goes with size: barrier ∝ parameters^exponent, by least squares of logarithms.

    ``exponent`` is None with fewer than two sizes or where a barrier is zero.
    """

    remedy: str
    label_noise: float
    exponent: float | None
    aligned_exponent: float | None


@dataclasses.dataclass(frozen=True)
class Remedies(Record):
    """All trials.

    Attributes:
        trials: by label noise, size and remedy.
        scaling: by label noise and remedy.
        target: test accuracy that ``steps`` counts to.
        threshold: error barrier that counts as removed.
        method: of aligning.
        points: on each path.
        recipe: of the training; network, label noise and seeds vary.
        provenance: versions, machine, data.
    """

    trials: tuple[Trial, ...]
    scaling: tuple[Scaling, ...]
    target: float
    threshold: float
    method: str
    points: int
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]


def try_remedies(
    data: Data,
    recipe: Recipe,
    *,
    remedies: Sequence[str] = USUAL,
    sizes: Sequence[int] = (16, 64),
    label_noise: Sequence[float] = (0.0, 0.2),
    networks: int = 4,
    method: str = "weights",
    points: int = 7,
    target: float = 0.9,
    threshold: float = STABLE,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Remedies:
    """Train every remedy and the plain network at matched parameters, and measure what each removes and costs.

    The plain network is an MLP with two hidden layers. Every other network is made as wide as brings its trainable
    entries closest to the plain one's. Masks and constants are the same for all networks of a remedy; networks differ
    in initialisation, order and augmentation.

    Args:
        data: to train and test on.
        recipe: how to train; its network is set here.
        remedies: some of :data:`isthmus.studies.redundancy.candidates.REMEDIES`; ``plain`` is always there.
        sizes: widths of the plain network.
        label_noise: shares of wrong training labels.
        networks: of each kind; at least 2, and 4 for intervals.
        method: ``weights`` or ``activations``.
        points: on each path.
        target: test accuracy.
        threshold: error barrier that counts as removed.
        seed: of masks, constants and aligning.
        device: where to train.
        progress: told after every step.

    Raises:
        SettingError: an unknown remedy, fewer than two networks, or fewer than two that did not diverge.

    Cost: remedies × sizes × noise levels × networks trainings, and as many times (networks − 1)/2 × points evaluations.
    """
    _check(remedies, networks, target)
    chosen = ["plain", *(name for name in remedies if name != "plain")]
    found: list[Trial] = []
    jobs = [(noise, size) for noise in label_noise for size in sizes]
    for place, (noise, size) in enumerate(jobs):
        bench = _Bench(data, recipe, size, noise, networks, method, points, target, seed, device)
        cells = []
        for index, name in enumerate(chosen):

            def told(done: float, total: float, label: str = "", *, base: int = place * len(chosen) + index,
                     said: str = f"{name}, {size}, noise {noise:g}") -> None:  # fmt: skip
                progress(base + done / max(total, 1), len(jobs) * len(chosen), f"{said} {label}".strip())

            cells.append(bench.trial(REMEDIES[name], told))
        found += [_judged(cell, cells[0], threshold) for cell in cells]
    made_by = {**provenance(), "data": data.fingerprint}
    scaling = tuple(_scaling(found, name, noise) for noise in label_noise for name in chosen)
    return Remedies(tuple(found), scaling, target, threshold, method, points, recipe.to_dict(), made_by)


class _Bench:
    """One size and noise level: trains each kind of network once and measures it."""

    def __init__(  # noqa: PLR0917
        self,
        data: Data,
        recipe: Recipe,
        size: int,
        noise: float,
        networks: int,
        method: str,
        points: int,
        target: float,
        seed: int,
        device: str,
    ) -> None:
        self.data, self.size, self.noise = data, size, noise
        self.recipe = dataclasses.replace(recipe, label_noise=noise)
        self.networks, self.method, self.points, self.target = networks, method, points, target
        self.seed, self.device = seed, device
        self.made: dict[str, Trained] = {}

    def trial(self, candidate: Candidate, progress: Progress) -> Trial:
        """Train (unless another remedy needed the same networks) and measure."""
        source = candidate.trained_as or candidate.name
        if source not in self.made:
            fit = matched(REMEDIES[source], self.data, size=self.size, seed=self.seed)
            self.made[source] = trained(
                fit, self.recipe, self.data, networks=self.networks, device=self.device,
                progress=lambda done, total, label="": progress(0.7 * done / max(total, 1), 1, label),
            )  # fmt: skip
        return self._measured(candidate, self.made[source], progress)

    def _measured(self, candidate: Candidate, made: Trained, progress: Progress) -> Trial:
        module = made.module.to(self.device)
        network = Network.of(module)
        symmetry = discovery.discover(module, self.data.train_inputs[:2])
        solutions = [{name: t.to(self.device) for name, t in weights.items()} for weights in made.solutions]
        if candidate.canonical:
            solutions = [sorted_units(symmetry, weights) for weights in solutions]
        objective = Objective(network, self.data.test_inputs, self.data.test_targets)
        exchange = bool(symmetry.permutable) and not candidate.canonical
        found = compare(
            solutions, objective, symmetry=symmetry, inputs=self.data.train_inputs, points=self.points, seed=self.seed,
            methods=("naive", self.method) if exchange else ("naive",),  # type: ignore[arg-type]
            progress=lambda done, total, label="": progress(0.7 + 0.3 * done / max(total, 1), 1, label),
        ).barriers  # fmt: skip
        accuracy = [1 - objective(weights).error for weights in solutions]
        classes = torch.stack([_classes(network, weights, self.data.test_inputs) for weights in solutions])
        differing = (classes[:, None] != classes).double().mean(2)
        steps = [step for history in made.histories if (step := _first(history, self.target)) is not None]
        return Trial(
            remedy=candidate.name,
            size=self.size,
            label_noise=self.noise,
            width=made.width,
            parameters=made.parameters,
            groups=len(symmetry.permutable),
            log10_copies=symmetry.log10_size,
            networks=len(solutions),
            diverged=made.diverged,
            accuracy=over_networks(accuracy),
            cost=None,
            deviation=float(torch.tensor(accuracy, dtype=torch.float64).std()),
            disagreement=over_pairs(differing),
            steps=over_networks(steps) if steps else None,
            reached=len(steps),
            slowdown=None,
            naive=_heights(found["naive"]),
            aligned=_heights(found[self.method]) if exchange else None,
        )


def difference(first: Interval, second: Interval, *, level: float = 0.95) -> Interval:
    """The difference of two means of independent networks, with Welch's interval, from their Student intervals."""
    errors, parts = [], []
    for interval in (first, second):
        if not math.isfinite(interval.high):
            value = first.estimate - second.estimate
            return Interval(value, math.nan, math.nan, level, interval.networks, "none: too few networks")
        quantile = student_quantile(0.5 + interval.level / 2, interval.networks - 1)
        errors.append(((interval.high - interval.estimate) / quantile) ** 2)
        parts.append(errors[-1] ** 2 / (interval.networks - 1))
    value, total = first.estimate - second.estimate, sum(errors)
    networks = min(first.networks, second.networks)
    degrees = total**2 / sum(parts) if sum(parts) > 0 else networks - 1
    reach = student_quantile(0.5 + level / 2, degrees) * math.sqrt(total)
    return Interval(value, value - reach, value + reach, level, networks, "Welch's t over networks")


def ratio(first: Interval, second: Interval) -> Interval:
    """The ratio of two positive means of independent sets of networks; no interval where one of theirs reaches zero."""
    if min(first.estimate, second.estimate) <= 0 or not min(first.low, second.low) > 0:
        value = first.estimate / second.estimate if second.estimate > 0 else math.nan
        return Interval(value, math.nan, math.nan, first.level, first.networks, "none: an interval reaches zero")
    found = difference(_logarithm(first), _logarithm(second), level=first.level)
    low, high = math.exp(found.low), math.exp(found.high)
    return Interval(math.exp(found.estimate), low, high, first.level, found.networks, "Welch's t over networks of logs")


def verdict(heights: Heights, remaining: Interval, *, threshold: float) -> str:
    """What a barrier, and its ratio to the plain network's, say: ``removes``, ``lowers``, ``does not``, ``unknown``."""
    if not math.isfinite(heights.error.high):
        return "unknown"
    if heights.error.high <= threshold:
        return "removes"
    return "lowers" if remaining.high < 1 else "does not"


def _logarithm(interval: Interval) -> Interval:
    """A symmetric interval of the logarithm, as wide as the logarithms of the ends are apart."""
    middle, reach = math.log(interval.estimate), math.log(interval.high / interval.low) / 2
    return dataclasses.replace(interval, estimate=middle, low=middle - reach, high=middle + reach)


def _judged(cell: Trial, plain: Trial, threshold: float) -> Trial:
    """Verdicts and prices, once the plain network is known."""
    before = ratio(cell.naive.loss, plain.naive.loss)
    changes: dict[str, Any] = {}
    if cell.aligned is not None:
        after = ratio(cell.aligned.loss, plain.naive.loss)
        changes["remaining_aligned"] = after
        changes["verdict_aligned"] = verdict(cell.aligned, after, threshold=threshold)
    if cell.remedy == "plain":
        changes["verdict"] = "does not"
    else:
        changes["remaining"], changes["verdict"] = before, verdict(cell.naive, before, threshold=threshold)
        same = REMEDIES[cell.remedy].trained_as == "plain"
        nothing = Interval(0.0, 0.0, 0.0, 0.95, cell.networks, "none needed: the same networks")
        changes["cost"] = nothing if same else difference(plain.accuracy, cell.accuracy)
        if cell.steps is not None and plain.steps is not None:
            changes["slowdown"] = cell.steps.estimate / plain.steps.estimate
    return dataclasses.replace(cell, **changes)


def _scaling(trials: Sequence[Trial], remedy: str, noise: float) -> Scaling:
    cells = [trial for trial in trials if trial.remedy == remedy and trial.label_noise == noise]
    sizes = [trial.parameters for trial in cells]
    after = [trial.aligned.loss.estimate if trial.aligned else 0.0 for trial in cells]
    return Scaling(remedy, noise, _slope(sizes, [trial.naive.loss.estimate for trial in cells]), _slope(sizes, after))


def _slope(sizes: Sequence[int], heights: Sequence[float]) -> float | None:
    if len(set(sizes)) < 2 or min(heights) <= 0:
        return None
    x, y = (torch.tensor([math.log(value) for value in values], dtype=torch.float64) for values in (sizes, heights))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def _heights(found: PairBarriers) -> Heights:
    return Heights(found.intervals["loss_barrier"], found.intervals["error_barrier"])


@torch.no_grad()
def _classes(network: Network, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    return torch.cat([network(weights, part).argmax(1).cpu() for part in inputs.split(500)])


def _first(history: Sequence[tuple[int, float]], target: float) -> int | None:
    """Steps at the end of the first epoch with the target's accuracy."""
    return next((steps for steps, accuracy in history if accuracy >= target), None)


def _check(remedies: Sequence[str], networks: int, target: float) -> None:
    if unknown := [name for name in remedies if name not in REMEDIES]:
        raise SettingError(f"remedies must be some of {listed(REMEDIES, 20)}, got {unknown[0]}")
    if networks < 2:
        raise SettingError(f"networks must be at least 2 to have a pair, got {networks}")
    if not 0 < target <= 1:
        raise SettingError(f"target must be an accuracy above 0 and at most 1, got {target}")
