"""The stationary law of SGD at a constant rate, put to the test on quadratics and on a trained network.

Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008: with
    label noise the noise of the gradient follows the curvature, λ cancels, and SGD sees no difference between sharp and
    flat directions; with noise of other kinds it does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import SettingError, listed
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.weights import Weights, to
from isthmus.noise import (
    Bowl,
    Sampled,
    Settled,
    Shaken,
    Stationary,
    drawn_labels,
    predicted_variance,
    settled,
    stationary,
)
from isthmus.studies.redundancy.start import Place, taught

KINDS = ("sampling", "labels", "isotropic", "moving")
CURVATURES = (0.01, 3.0)  # of the quadratics: the range over which the paper's contrast is stated
_DOUBLE_UP_TO = 1_000_000  # entries of a network that walks in float64
_MARGIN = 1.2  # steps beyond five relaxation times of the flattest direction
_MOST_STEPS = 10_000
_LEAST_STEPS = 200


@dataclasses.dataclass(frozen=True)
class Law(Record):
    """The law under one kind of noise.

    Attributes:
        kind: ``sampling``: batches of the data; ``labels``: labels drawn anew, in a network from its own predictions;
            ``isotropic``: the same noise in every direction; ``moving``: an optimum that moves about.
        found: measured and predicted variances.
        intervals: of the ratio along each direction, over walkers; None where it has not relaxed.
        ratio: mean over the relaxed directions, with its interval over walkers; None if there is none.
        spread: largest over smallest measured variance among relaxed directions; None for fewer than two.
        expected_spread: the same of the predicted ones.
    """

    kind: str
    found: Stationary
    intervals: tuple[Interval | None, ...]
    ratio: Interval | None
    spread: float | None
    expected_spread: float | None


@dataclasses.dataclass(frozen=True)
class StationaryLaws(Record):
    """The law on quadratics and on a network.

    Attributes:
        name: of the network; None where only quadratics were asked for.
        quadratic: one law for each kind that a quadratic has.
        network: one law for each kind.
        weight_decay: weight decay that belongs to the network's objective.
        gradient_norm: of that objective where the walkers start.
        lowest: its smallest curvature there.
        settling: the descent to the bottom before; None if there was none.
        forced: whether a start that is no minimum was allowed.
        provenance: versions, machine, data.
    """

    name: str | None
    quadratic: tuple[Law, ...]
    network: tuple[Law, ...]
    weight_decay: float
    gradient_norm: float | None
    lowest: float | None
    settling: Settled | None
    forced: bool
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Walking:
    """How the walkers walk.

    Attributes:
        rate: the constant step η; by default a tenth of 2/λ_max, where SGD diverges.
        batch_size: examples in each step, n.
        walkers: how many at once; a quarter of them, but 16 or more, where every step needs all data.
        steps: of each; by default a little more than ten relaxation times of the flattest direction, at most 10,000.
        seed: of the noise.
    """

    rate: float | None = None
    batch_size: int = 32
    walkers: int = 64
    steps: int | None = None
    seed: int = 0


def on_quadratics(
    kinds: Sequence[str] = KINDS[1:],
    *,
    rate: float = 0.1,
    walkers: int = 1024,
    directions: int = 8,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Law, ...]:
    """The law where it is exact: quadratics with curvatures from .01 to 3 and noise of known form.

    Args:
        kinds: some of ``labels`` (C = λ), ``isotropic`` (C = 1) and ``moving`` (C = λ²); others are passed over.
        rate: the constant step.
        walkers: how many.
        directions: curvatures, evenly spaced in their logarithm.
        seed: of the noise.
        progress: told of every kind's steps.

    Raises:
        SettingError: a rate of 2/3 or more.

    Cost: 10,000 steps at the default rate, about a second for each kind.
    """
    flattest, sharpest = (math.log10(end) for end in CURVATURES)
    values = torch.logspace(flattest, sharpest, directions, dtype=torch.float64)
    noises = {"labels": values, "isotropic": torch.ones_like(values), "moving": values.square()}
    predicted_variance(values, values, rate=rate, batch_size=1)
    laws = []
    for kind in (kind for kind in kinds if kind in noises):
        found = stationary(
            Bowl(values, noises[kind]), torch.zeros_like(values), values=values, noise=noises[kind], rate=rate,
            batch_size=1, steps=_steps(values, rate, None), walkers=walkers,
            generator=child(seed, "stationary", "quadratic", kind), progress=progress,
        )  # fmt: skip
        laws.append(judged(kind, found))
    return tuple(laws)


def on_network(
    objective: Objective,
    weights: Weights,
    *,
    name: str = "network",
    kinds: Sequence[str] = KINDS,
    pairs: int = 12,
    weight_decay: float = 0.0,
    settle: int = 0,
    walking: Walking = Walking(),
    forced: bool = False,
    progress: Progress = silent,
) -> StationaryLaws:
    """The law around a trained network: many walkers from its minimum, against the Hessian's leading eigenpairs.

    Everything is in evaluation mode. ``labels`` walks on another objective, whose labels the network itself hands out
    (:func:`isthmus.noise.teaching`): the place is that objective's minimum by construction, so weight decay, settling
    and the check do not concern it.

    Args:
        objective: network, data and loss.
        weights: a minimum of it.
        name: of the weights.
        kinds: some of :data:`KINDS`.
        pairs: how many of the largest eigenvalues.
        weight_decay: ½·weight_decay·‖θ‖² is part of what was minimised. Without it, a network that fits its labels has
            no minimum.
        settle: iterations of descent to the bottom before; see :func:`isthmus.noise.settled`.
        walking: rate, batch size, walkers, steps.
        forced: go on where the start is no minimum.
        progress: told after each kind.

    Raises:
        SettingError: an unknown kind; a rate of 2/λ_max or more.
        DataError: ``labels`` where the targets are none.
        WeightsError: no minimum: the gradient's norm and the lowest curvature are said.

    Cost: 20 to 60 Hessian products for each end of the spectrum; walkers × steps gradients, of one batch for
        ``sampling`` and ``labels``, of all data for the other two.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise SettingError(f"noise must be some of {listed(KINDS)}, got {unknown[0]}")
    size = sum(weights[tensor].numel() for tensor in objective.network.parameter_names)
    weights = to(weights, dtype=torch.float64 if size <= _DOUBLE_UP_TO else torch.float32)
    descent = None
    jobs = len(kinds) + 2
    if settle:
        descent = settled(objective, weights, weight_decay=weight_decay, iterations=settle,
                          progress=within(progress, 0, jobs, label="settling"))  # fmt: skip
        weights = descent.weights
    progress(1, jobs, "curvature")
    place = Place.at(objective, weights, pairs=pairs, weight_decay=weight_decay)
    laws = []
    for number, kind in enumerate(kinds):
        start = taught(objective, weights, pairs=pairs) if kind == "labels" else place
        laws.append(_walked(kind, start, walking, forced, within(progress, number + 2, jobs, label=kind)))
    return StationaryLaws(
        name=name,
        quadratic=(),
        network=tuple(laws),
        weight_decay=weight_decay,
        gradient_norm=float(place.slope.norm()),
        lowest=place.lowest,
        settling=descent,
        forced=forced,
        provenance=provenance(),
    )


def judged(kind: str, found: Stationary) -> Law:
    """One kind's ratios with intervals over walkers."""
    usable = torch.isfinite(found.ratio)
    intervals = tuple(
        _over_walkers(found.each[:, index]) if bool(usable[index]) else None for index in range(len(usable))
    )
    mean = _over_walkers(found.each[:, usable].mean(1)) if bool(usable.any()) else None
    measured, predicted = found.measured[usable], found.predicted[usable]
    spreads = [float(part.max() / part.min()) if len(part) > 1 else None for part in (measured, predicted)]
    return Law(kind, found, intervals, mean, *spreads)


def _walked(kind: str, place: Place, walking: Walking, forced: bool, progress: Progress) -> Law:
    """Let the walkers go under one kind of noise."""
    rate = 0.2 / float(place.values.max()) if walking.rate is None else walking.rate
    noise, walkers = place.noise, walking.walkers
    if kind in ("sampling", "labels"):
        relabel = drawn_labels if kind == "labels" else None
        gradients: Any = Sampled(place.gradients, walking.batch_size, relabel=relabel, weight_decay=place.weight_decay)
    else:
        # As loud as batches of the data are on the whole, so that the walkers stay as near.
        walkers = min(walkers, max(16, walkers // 4))
        deviation = math.sqrt(place.trace / place.gradients.size / walking.batch_size)
        if kind == "moving":
            deviation /= float(place.values.max())
        each = place.values.square() if kind == "moving" else torch.ones_like(place.values)
        noise = each * deviation**2 * walking.batch_size
        gradients = Shaken(place.gradients, deviation, kind, weight_decay=place.weight_decay)
    found = stationary(
        gradients, place.gradients.vector, values=place.values, vectors=place.vectors, noise=noise, rate=rate,
        batch_size=walking.batch_size, steps=_steps(place.values, rate, walking.steps), walkers=walkers,
        slope=place.slope, lowest=place.lowest, forced=forced, progress=progress,
        generator=child(walking.seed, "stationary", "network", kind),
    )  # fmt: skip
    return judged(kind, found)


def _steps(values: Tensor, rate: float, wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    flattest = float(values[values > 0].min()) if bool((values > 0).any()) else 1.0
    return min(_MOST_STEPS, max(_LEAST_STEPS, math.ceil(_MARGIN * 10 / (max(rate, 1e-300) * flattest))))


def _over_walkers(values: Tensor) -> Interval:
    found = over_networks(values)
    return dataclasses.replace(found, method="Student's t over walkers")
