"""What trials of remedies say: differences and ratios to the plain network with intervals, verdicts, scaling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from isthmus.core.record import Record
from isthmus.core.statistics import Interval, student_quantile
from isthmus.studies.redundancy.candidates import REMEDIES
from isthmus.studies.redundancy.trials import Heights, Trial


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
class Claim(Record):
    """A stated expectation, held against the trials.

    Attributes:
        name: ``masks`` (masks and sorting do not remove the barrier) or ``frozen`` (frozen constants do).
        trials: how many bear on it.
        removed: in how many of them the barrier is removed.
        lowered: in how many it is only lowered.
        verdict: ``confirmed``: every trial agrees; ``refuted``: none does, and for ``frozen`` none even lowers it;
            ``mixed`` in between; ``unknown`` without intervals.
    """

    name: str
    trials: int
    removed: int
    lowered: int
    verdict: str


# What science has been surprised by: taking the exchange of units away is not enough, breaking it by constants is.
CLAIMS = {"masks": ("sorted", "ordered", "mask", "mask-blocks"), "frozen": ("frozen", "frozen-strong")}


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
    if math.isnan(remaining.high):
        return "unknown"
    return "lowers" if remaining.high < 1 else "does not"


def _logarithm(interval: Interval) -> Interval:
    """A symmetric interval of the logarithm, as wide as the logarithms of the ends are apart."""
    middle, reach = math.log(interval.estimate), math.log(interval.high / interval.low) / 2
    return dataclasses.replace(interval, estimate=middle, low=middle - reach, high=middle + reach)


def judged(cell: Trial, plain: Trial, threshold: float) -> Trial:
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


def claims(trials: Sequence[Trial]) -> tuple[Claim, ...]:
    """The known surprise, confirmed or refuted: masks and sorting do not remove the barrier, frozen constants do."""
    found = []
    for name, remedies in CLAIMS.items():
        verdicts = [trial.verdict for trial in trials if trial.remedy in remedies]
        removed, lowered = verdicts.count("removes"), verdicts.count("lowers")
        agreeing = len(verdicts) - removed if name == "masks" else removed
        against = removed if name == "masks" else verdicts.count("does not")
        if not verdicts:
            continue
        if "unknown" in verdicts:
            said = "unknown"
        elif agreeing == len(verdicts):
            said = "confirmed"
        else:
            said = "refuted" if against == len(verdicts) else "mixed"
        found.append(Claim(name, len(verdicts), removed, lowered, said))
    return tuple(found)


def scaling(trials: Sequence[Trial], remedy: str, noise: float) -> Scaling:
    """How one remedy's barriers go with size at one level of label noise."""
    cells = [trial for trial in trials if trial.remedy == remedy and trial.label_noise == noise]
    sizes = [trial.parameters for trial in cells]
    after = [trial.aligned.loss.estimate if trial.aligned else 0.0 for trial in cells]
    return Scaling(remedy, noise, _slope(sizes, [trial.naive.loss.estimate for trial in cells]), _slope(sizes, after))


def _slope(sizes: Sequence[int], heights: Sequence[float]) -> float | None:
    if len(set(sizes)) < 2 or min(heights) <= 0:
        return None
    x, y = (torch.tensor([math.log(value) for value in values], dtype=torch.float64) for values in (sizes, heights))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
