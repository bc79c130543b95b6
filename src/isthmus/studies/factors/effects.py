"""What the factors of a study do: means, paired contrasts, two-way tables and trends, with networks as the unit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch

from isthmus.core.errors import IsthmusError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval
from isthmus.studies.factors.contrasts import (
    Contrast,
    TwoWay,
    contrasts,
    interval,
    may_be_negative,
    shared_units,
    two_ways,
)
from isthmus.studies.factors.table import Level, Table, label, sample
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
class FactorTrend(Record):
    """The trend of a measure along an ordered factor."""

    measure: str
    factor: str
    trend: Trend
    p_corrected: float


@dataclasses.dataclass(frozen=True)
class Matching(Record):
    """Whether the cells reached the same training loss, without which their other differences mean little.

    Attributes:
        tolerance: how far the cells' means may lie apart.
        low: the cell of the lowest mean training loss.
        high: the cell of the highest.
        lowest: the lowest mean.
        highest: the highest mean.
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
    """What :func:`effects` found in a table.

    Attributes:
        study: its name.
        cells: the mean of every measure in every cell.
        contrasts: between the levels of every factor.
        trends: along factors whose levels have an order.
        two_way: every pair of factors.
        matching: whether the cells reached the same training loss; ``None`` where it was not measured.
        correction: for how many tests the p-values are corrected, and how.
        networks: that were trained.
        diverged: of them, which count nowhere.
        missing: that the design asks for and the table lacks.
    """

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
    compared = [found for measure in chosen for found in contrasts(table, measure, level)]
    trends = [found for measure in chosen for found in _trends(table, measure)]
    tables = [found for measure in chosen for found in two_ways(table, measure, level)]
    return Effects(
        table.study,
        tuple(cells),
        tuple(compared),
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
    mean = interval(found.values, level, signed=may_be_negative(measure))
    return CellMean(levels, measure, _unit(table, measure), mean, found.excluded)


def _trends(table: Table, measure: str) -> list[FactorTrend]:
    found = []
    for factor in table.ordered:
        levels = {value: sample(table, measure, {factor: value}) for value in table.factors[factor]}
        # A level whose networks all diverged says nothing; the others still may rise or fall.
        empty = [str(value) for value, s in levels.items() if not s.units]
        samples = [s for s in levels.values() if s.units]
        # Pairs of one set of networks are no independent replicates; their levels are compared by contrasts only.
        if len(samples) < 3 or any(s.paired for s in samples):
            continue
        shared = shared_units(samples)
        complete = all(len(shared) == len(s.units) for s in samples)
        if complete and len(shared) >= 2:
            trend = matched_trend(torch.stack([s.at(shared) for s in samples], dim=1).numpy())
        else:
            trend = jonckheere([s.values.tolist() for s in samples])
        if empty:
            trend = dataclasses.replace(trend, method=f"{trend.method}, without {', '.join(empty)}")
        found.append(FactorTrend(measure, factor, trend, math.nan))
    corrected = holm([entry.trend.p for entry in found])
    return [dataclasses.replace(entry, p_corrected=p) for entry, p in zip(found, corrected, strict=True)]


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


def _unit(table: Table, measure: str) -> str:
    return next(o.unit for o in table.observations if o.measure == measure)
