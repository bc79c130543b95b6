"""What a check's verdict is made of, and how it follows from the barriers: no network is touched here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval
from isthmus.curvature import Sharpness
from isthmus.noise import EffectiveRedundancy
from isthmus.studies.check.capabilities import Retention
from isthmus.studies.check.checklist import Origin
from isthmus.studies.check.views import Crossing

Verdict = Literal["as_they_are", "permutation", "repair", "apart"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # from the best to the worst
# Which manners of meeting belong to each verdict; a later verdict includes the earlier ones.
WAYS: Mapping[Verdict, tuple[str, ...]] = {
    "as_they_are": ("naive",),
    "permutation": ("weights", "activations"),
    "repair": ("repair",),
}


@dataclasses.dataclass(frozen=True)
class Thresholds(Record):
    """What counts as good enough.

    Attributes:
        barrier: largest error barrier of a connected pair; .02 is Frankle et al.'s and Sharma et al.'s.
        level: of all intervals.
        strict: a pair counts as connected only if its whole interval lies below ``barrier``, not just the estimate.
        floors: accuracy that every model must reach, by capability; ``all`` is the accuracy on all examples.
    """

    barrier: float = 0.02
    level: float = 0.95
    strict: bool = False
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 < self.barrier < 1.0:
            raise SettingError(f"barrier must lie between 0 and 1 (an error rate), got {self.barrier:g}")
        if not 0.5 <= self.level < 1.0:
            raise SettingError(f"level must lie between 0.5 and 1, got {self.level:g}")
        if wrong := [f"{name}={value:g}" for name, value in self.floors.items() if not 0.0 <= value <= 1.0]:
            raise SettingError(f"floors must be accuracies between 0 and 1, got {wrong[0]}")

    def met(self, crossing: Crossing) -> bool:
        """Whether a pair counts as connected."""
        height = crossing.error_barrier.high if self.strict else crossing.error_barrier.estimate
        return height <= self.barrier  # NaN is never met


@dataclasses.dataclass(frozen=True)
class Effort(Record):
    """How much is spent; what was spent stands in the result.

    Attributes:
        points: on each path, odd so that ½ is among them.
        path_examples: at most so many examples along the paths; the models themselves are always judged on all.
        statistics_examples: training examples for running statistics, repair and activations.
        repair_points: on the repaired path, odd.
        repair_examples: training examples for repair, whose pass costs several times a plain one.
        foresee_examples: at most so many for what an average is foreseen to keep.
        directions: random directions for flatness.
        flat_examples: training examples for flatness.
        noise_examples: training examples for the gradient's signal and noise; 0 leaves them out.
        curvature: also the largest Hessian eigenvalue and the trace.
        identities: also which units of each model can be told apart (all pairs of units of every layer are compared).
        seconds: aim for about so much time for the paths, by using fewer examples; ``None``: no aim.
    """

    points: int = 11
    path_examples: int | None = None
    statistics_examples: int = 2000
    repair_points: int = 11
    repair_examples: int = 2000
    foresee_examples: int = 2000
    directions: int = 10
    flat_examples: int = 1000
    noise_examples: int = 1000
    curvature: bool = True
    identities: bool = True
    seconds: float | None = None

    def __post_init__(self) -> None:
        for points in (self.points, self.repair_points):
            if points < 3 or points % 2 == 0:
                raise SettingError(f"points must be odd and at least 3, got {points}")

    @classmethod
    def quick(cls) -> Effort:
        """For two models of some ten million weights in under a minute on two cores."""
        return cls(
            points=5,
            statistics_examples=500,
            repair_points=3,
            repair_examples=250,
            foresee_examples=250,
            directions=2,
            flat_examples=250,
            noise_examples=64,
            curvature=False,
            identities=False,
            seconds=15.0,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Model(Record):
    """One model by itself.

    Attributes:
        name: what it is called.
        accuracy: on all examples, with its interval over examples.
        loss: likewise.
        calibration: expected calibration error.
        capabilities: accuracy by capability.
        seconds: for one pass over all examples on this machine.
        sharpness: rise of the training loss under filter-normalised random perturbations; free scales are removed
            where the curvature was asked for.
        eigenvalue: largest of the training loss's Hessian, free scales removed; ``None`` where it was not asked for.
        trace: of that Hessian.
        redundancy: how many of the architecture's equal copies these weights tell apart.
        origin: what is recorded of its making.
    """

    name: str
    accuracy: Interval
    loss: Interval
    calibration: float
    capabilities: Mapping[str, float]
    seconds: float
    sharpness: Sharpness | None
    eigenvalue: float | None
    trace: Interval | None
    redundancy: EffectiveRedundancy | None
    origin: Origin


@dataclasses.dataclass(frozen=True, eq=False)
class Pair(Record):
    """Two models, by every way of bringing them together.

    Attributes:
        first: place of the one.
        second: place of the other.
        verdict: of this pair alone.
        established: whether the whole interval of the barrier that decides lies on its side of the threshold.
        best: the way that decides: the first that connects, else the one with the lowest barrier.
        crossings: by way.
        agreement: share of examples to which both models give the same class.
        chance_agreement: share expected if the two erred independently of each other, with wrong answers spread evenly.
        preference: share of resampled data on which the first is the more accurate; near 0 or 1 the data decide.
        retention: of the average in the best way.
    """

    first: int
    second: int
    verdict: Verdict
    established: bool
    best: str
    crossings: Mapping[str, Crossing]
    agreement: float
    chance_agreement: float
    preference: float
    retention: Retention


@dataclasses.dataclass(frozen=True)
class Way(Record):
    """One way forward and what it costs, all of it measured on this machine unless ``estimated``.

    Attributes:
        name: ``as_they_are``, ``permutation``, ``repair``, ``ensemble`` or ``distil``.
        seconds: to make the one model from all of them.
        inference: cost of one answer, in passes through one model.
        accuracy: of what comes out, mean over pairs; NaN where it is not known before it is made.
        open: whether the verdict allows it.
        estimated: whether ``seconds`` is a measured rate times a number of examples.
    """

    name: str
    seconds: float
    inference: float
    accuracy: float
    open: bool
    estimated: bool


@dataclasses.dataclass(frozen=True)
class Change(Record):
    """Something that would change the verdict.

    Attributes:
        what: ``threshold`` (the smallest barrier threshold at which the better verdict would hold), ``stricter`` (the
            threshold below which this one would fall), ``examples`` (how many would put the interval on one side of the
            threshold) or ``without`` (leaving one model out).
        verdict: that would then hold; for ``examples`` the present one, established.
        value: threshold, number of examples or place of the model.
    """

    what: Literal["threshold", "stricter", "examples", "without"]
    verdict: Verdict
    value: float


def judged(crossings: Mapping[str, Crossing], rule: Thresholds) -> tuple[Verdict, str, bool]:
    """The verdict on one pair, the way that decides it, and whether its interval lies on one side of the threshold."""
    for verdict, ways in WAYS.items():
        able = [way for way in ways if way in crossings and rule.met(crossings[way])]
        if able:
            best = min(able, key=lambda way: crossings[way].error_barrier.estimate)
            return verdict, best, crossings[best].error_barrier.high <= rule.barrier
    best = min(crossings, key=lambda way: _or_infinite(crossings[way].error_barrier.estimate))
    # Kept apart for sure only if no way's interval reaches down to the threshold.
    lowest = min(_or_infinite(crossing.error_barrier.low) for crossing in crossings.values())
    return "apart", best, lowest > rule.barrier


def worst(pairs: Sequence[Pair]) -> Verdict:
    """What the pair that is hardest to connect needs."""
    return VERDICTS[max(VERDICTS.index(pair.verdict) for pair in pairs)]


def changes(pairs: Sequence[Pair], verdict: Verdict, rule: Thresholds) -> tuple[Change, ...]:
    """What would change a verdict: another threshold, more examples, one model less."""
    found = []
    place = VERDICTS.index(verdict)
    least = math.inf
    for better in VERDICTS[:place]:
        needed = max(_reach(pair, better, strict=rule.strict) for pair in pairs)
        if needed < least:  # else that threshold already gives a better verdict still
            found.append(Change("threshold", better, needed))
            least = needed
    if verdict != "apart":
        needed = max(_reach(pair, verdict, strict=rule.strict) for pair in pairs)
        if needed > 0.0:  # no threshold is stricter than nothing at all
            later = range(place + 1, len(VERDICTS))
            then = next((i for i in later[:-1] if _differs(pairs, VERDICTS[i], needed, rule)), later[-1])
            found.append(Change("stricter", VERDICTS[then], needed))
    if (examples := _examples_needed(pairs, rule)) is not None:
        found.append(Change("examples", verdict, examples))
    models = sorted({end for pair in pairs for end in (pair.first, pair.second)})
    for model in models if len(models) > 2 else ():
        others = [pair for pair in pairs if model not in (pair.first, pair.second)]
        if (then := worst(others)) != verdict:
            found.append(Change("without", then, model))
    return tuple(found)


def _differs(pairs: Sequence[Pair], verdict: Verdict, threshold: float, rule: Thresholds) -> bool:
    """Whether a later verdict would still hold just below a threshold."""
    return max(_reach(pair, verdict, strict=rule.strict) for pair in pairs) < threshold


def _reach(pair: Pair, verdict: Verdict, *, strict: bool) -> float:
    """The smallest threshold at which a pair would get this verdict or an earlier one."""
    ways = [way for name in VERDICTS[: VERDICTS.index(verdict) + 1] for way in WAYS.get(name, ())]
    heights = [
        pair.crossings[way].error_barrier.high if strict else pair.crossings[way].error_barrier.estimate
        for way in ways
        if way in pair.crossings
    ]
    return min((_or_infinite(height) for height in heights), default=math.inf)


def _examples_needed(pairs: Sequence[Pair], rule: Thresholds) -> float | None:
    """How many examples would settle every open pair, were the estimates true: intervals shrink with the root."""
    needed = 0.0
    for pair in pairs:
        if pair.established:
            continue
        deciding = pair.crossings[pair.best]
        interval = deciding.error_barrier
        margin = abs(rule.barrier - interval.estimate)
        half = (
            interval.high - interval.estimate if interval.estimate <= rule.barrier else interval.estimate - interval.low
        )
        if not math.isfinite(half) or margin == 0.0:
            continue
        needed = max(needed, math.ceil(deciding.examples * (half / margin) ** 2))
    return needed or None


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
