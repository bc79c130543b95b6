"""What the factors of a study do: means, paired contrasts, two-way tables and trends, with networks as the unit."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isthmus.core.errors import IsthmusError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks, over_pairs, student_quantile
from isthmus.studies.factors.table import Level, Sample, Table, label, sample
from isthmus.studies.factors.trends import Trend, holm, jonckheere, matched_trend

CORRECTION = "Holm over all tests of one kind for one measure"


class MatchingError(IsthmusError):
    """Cells that must have reached the same training loss have not."""


@dataclasses.dataclass(frozen=True)
class CellMean(Record):
    """The mean of one measure in one cell; ``excluded`` counts values of diverged trainings."""

    levels: Mapping[str, Level]
    measure: str
    unit: str
    interval: Interval
    excluded: int


@dataclasses.dataclass(frozen=True)
class Contrast(Record):
    """How much higher a measure is at one level than at another, seed by seed, averaged over the other factors.

    Attributes:
        difference: second level minus first, over the units that both have.
        p: two-sided, from the interval's own Student's t.
        p_corrected: after the correction that :class:`Effects` names.
    """

    measure: str
    factor: str
    first: Level
    second: Level
    difference: Interval
    p: float
    p_corrected: float


@dataclasses.dataclass(frozen=True)
class FactorTrend(Record):
    """The trend of a measure along an ordered factor."""

    measure: str
    factor: str
    trend: Trend
    p_corrected: float


@dataclasses.dataclass(frozen=True)
class TwoWay(Record):
    """Means of one measure by two factors, and how much the one factor's effect depends on the other.

    Attributes:
        means: one row a level of the first factor, one column a level of the second.
        interactions: for each other row and column, (there − first column) − (first row's same difference): 0 where
            the factors only add up.
    """

    measure: str
    rows: str
    columns: str
    row_levels: tuple[Level, ...]
    column_levels: tuple[Level, ...]
    means: tuple[tuple[Interval, ...], ...]
    interactions: tuple[tuple[Interval, ...], ...]


@dataclasses.dataclass(frozen=True)
class Matching(Record):
    """Whether the cells reached the same training loss, without which their other differences mean little.

    Attributes:
        tolerance: how far the cells' means may lie apart.
        low: the cell of the lowest mean training loss.
        high: the cell of the highest.
        spread: highest minus lowest mean.
        matched: whether the spread is within the tolerance.
        required: whether the study insists on it.
    """

    tolerance: float
    low: str
    high: str
    lowest: float
    highest: float
    spread: float
    matched: bool
    required: bool


@dataclasses.dataclass(frozen=True)
class Effects(Record):
    """What :func:`effects` found in a table."""

    study: str
    cells: tuple[CellMean, ...]
    contrasts: tuple[Contrast, ...]
    trends: tuple[FactorTrend, ...]
    two_way: tuple[TwoWay, ...]
    matching: Matching | None
    correction: str
    networks: int
    diverged: int
    missing: int


def effects(
    table: Table,
    *,
    measures: Sequence[str] = (),
    tolerance: float = 0.05,
    require_matching: bool = False,
    level: float = 0.95,
) -> Effects:
    """Estimate and test what every factor does to every measure.

    Args:
        table: a study's results.
        measures: which; all scalar measures of the table by default.
        tolerance: how far mean training losses of cells may lie apart and still count as matched, in nats.
        require_matching: refuse cells that are not matched.
        level: nominal coverage of the intervals.

    Raises:
        MatchingError: matching is required and the cells differ.
        SettingError: a measure is not in the table.
    """
    matching = _matching(table, tolerance, required=require_matching)
    if matching and matching.required and not matching.matched:
        raise MatchingError(
            f"training loss must be matched within {tolerance:g}, but its mean is {matching.lowest:.4g} at "
            f"{matching.low} and {matching.highest:.4g} at {matching.high}; train until the losses agree, raise the "
            "tolerance, or do not require it"
        )
    chosen = tuple(measures) or table.measures
    cells = [_cell_mean(table, measure, levels, level) for measure in chosen for levels in table.cells]
    contrasts = [found for measure in chosen for found in _contrasts(table, measure, level)]
    trends = [found for measure in chosen for found in _trends(table, measure)]
    pairs = list(itertools.combinations([name for name, levels in table.factors.items() if len(levels) > 1], 2))
    tables = [_two_way(table, measure, *pair, level) for measure in chosen for pair in pairs]
    return Effects(
        table.study,
        tuple(cells),
        tuple(contrasts),
        tuple(trends),
        tuple(tables),
        matching,
        CORRECTION,
        table.networks,
        table.diverged,
        table.missing,
    )


def _cell_mean(table: Table, measure: str, levels: Mapping[str, Level], level: float) -> CellMean:
    found = sample(table, measure, levels)
    return CellMean(levels, measure, _unit(table, measure), _interval(found.values, level), found.excluded)


def _contrasts(table: Table, measure: str, level: float) -> list[Contrast]:
    found = []
    for factor, levels in table.factors.items():
        samples = {value: sample(table, measure, {factor: value}) for value in levels}
        for first, second in itertools.combinations(levels, 2):
            difference = _interval(_difference(samples[first], samples[second]), level)
            found.append(Contrast(measure, factor, first, second, difference, _p_value(difference), math.nan))
    corrected = holm([contrast.p for contrast in found])
    return [dataclasses.replace(c, p_corrected=p) for c, p in zip(found, corrected, strict=True)]


def _trends(table: Table, measure: str) -> list[FactorTrend]:
    found = []
    for factor in table.ordered:
        samples = [sample(table, measure, {factor: value}) for value in table.factors[factor]]
        # Pairs of one set of networks are no independent replicates; their levels are compared by contrasts only.
        if len(samples) < 3 or any(s.paired or len(s.units) == 0 for s in samples):
            continue
        shared = _shared(samples)
        complete = all(len(shared) == len(s.units) for s in samples)
        if complete and len(shared) >= 2:
            trend = matched_trend(torch.stack([s.at(shared) for s in samples], dim=1).numpy())
        else:
            trend = jonckheere([s.values.tolist() for s in samples])
        found.append(FactorTrend(measure, factor, trend, math.nan))
    corrected = holm([entry.trend.p for entry in found])
    return [dataclasses.replace(entry, p_corrected=p) for entry, p in zip(found, corrected, strict=True)]


def _two_way(table: Table, measure: str, rows: str, columns: str, level: float) -> TwoWay:
    row_levels, column_levels = table.factors[rows], table.factors[columns]
    samples = [[sample(table, measure, {rows: r, columns: c}) for c in column_levels] for r in row_levels]
    means = tuple(tuple(_interval(s.values, level) for s in row) for row in samples)
    interactions = []
    for row in samples[1:]:
        line = []
        for column in range(1, len(column_levels)):
            corner = [row[column], row[0], samples[0][column], samples[0][0]]
            shared = _shared(corner)
            there, back, first, origin = (s.at(shared) for s in corner)
            line.append(_interval((there - back) - (first - origin), level))
        interactions.append(tuple(line))
    return TwoWay(measure, rows, columns, row_levels, column_levels, means, tuple(interactions))


def _matching(table: Table, tolerance: float, *, required: bool) -> Matching | None:
    """Compare the mean training losses of the cells."""
    if "training_loss" not in table.measures:
        return None
    means = {label(levels): sample(table, "training_loss", levels).values for levels in table.cells}
    finite = {name: float(values.mean()) for name, values in means.items() if len(values)}
    if not finite:
        return None
    low, high = min(finite, key=finite.__getitem__), max(finite, key=finite.__getitem__)
    spread = finite[high] - finite[low]
    return Matching(tolerance, low, high, finite[low], finite[high], spread, spread <= tolerance, required)


def _shared(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Units that all samples have."""
    return tuple(unit for unit in samples[0].units if all(unit in other.units for other in samples[1:]))


def _difference(first: Sample, second: Sample) -> Tensor:
    shared = _shared([first, second])
    return second.at(shared) - first.at(shared)


def _interval(values: Tensor, level: float) -> Interval:
    """Over networks for one value a unit, by the jackknife over networks for one value a pair."""
    if values.numel() == 0 or (values.dim() == 2 and len(values) < 2):
        return Interval(math.nan, math.nan, math.nan, level, len(values), "none: every value was left out")
    return over_pairs(values, level=level) if values.dim() == 2 else over_networks(values, level=level)


def _p_value(difference: Interval) -> float:
    """Two-sided p of the t statistic that the interval is made of."""
    if not math.isfinite(difference.low):
        return math.nan
    degrees = difference.networks - 1
    error = (difference.high - difference.low) / 2 / student_quantile(0.5 + difference.level / 2, degrees)
    if error == 0:
        return 1.0 if difference.estimate == 0 else 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(difference.estimate) / error))


def _unit(table: Table, measure: str) -> str:
    return next(o.unit for o in table.observations if o.measure == measure)
