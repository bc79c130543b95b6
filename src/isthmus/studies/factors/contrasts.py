"""Differences between levels, seed by seed: main and simple effects, interactions, and tables of two factors."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks, over_pairs, student_quantile
from isthmus.studies.factors.table import Level, Sample, Table, sample
from isthmus.studies.factors.trends import holm

_ROUNDING = 1e-9  # of a difference: units that are nearer to each other differ by the same amount


@dataclasses.dataclass(frozen=True)
class Contrast(Record):
    """How much higher a measure is at one level than at another, seed by seed, averaged over the other factors.

    With one level for each factor that it is averaged over, this is the factor's main effect.

    Attributes:
        measure: what is compared.
        factor: whose levels are compared.
        first: the level that is subtracted.
        second: the other level.
        at: levels at which other factors are held instead of being averaged over: a simple effect.
        difference: second level minus first, over the units that both have.
        p: two-sided, from the interval's own Student's t; from the sign test where all units differ by the same amount.
        p_corrected: after the correction that :class:`Effects` names.
    """

    measure: str
    factor: str
    first: Level
    second: Level
    difference: Interval
    p: float
    p_corrected: float
    at: Mapping[str, Level] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Interaction(Record):
    """How much a difference between two levels of one factor changes between two levels of another, seed by seed.

    Attributes:
        measure: what is compared.
        factor: whose levels are subtracted: second minus first.
        first: the level that is subtracted.
        second: the other level.
        depends_on: the other factor; the difference at its level ``there`` minus that at its level ``here``.
        here: level of the other factor whose difference is subtracted.
        there: the other's other level.
        difference: 0 where the two factors only add up; over the units that all four cells have.
        p: two-sided, from the interval's own Student's t; from the sign test where all units differ by the same amount.
        p_corrected: after the correction that :class:`Effects` names.
    """

    measure: str
    factor: str
    first: Level
    second: Level
    depends_on: str
    here: Level
    there: Level
    difference: Interval
    p: float
    p_corrected: float


@dataclasses.dataclass(frozen=True)
class TwoWay(Record):
    """Means of one measure by two factors, and how much the one factor's effect depends on the other.

    Attributes:
        measure: what is averaged.
        rows: the first factor.
        columns: the second.
        row_levels: of the first factor.
        column_levels: of the second.
        means: one row a level of the first factor, one column a level of the second.
        row_means: of each row, averaged over the columns seed by seed; what the main effects compare.
        column_means: of each column, averaged over the rows.
        interactions: for each other row and column, (there − first column) − (first row's same difference).
    """

    measure: str
    rows: str
    columns: str
    row_levels: tuple[Level, ...]
    column_levels: tuple[Level, ...]
    means: tuple[tuple[Interval, ...], ...]
    row_means: tuple[Interval, ...]
    column_means: tuple[Interval, ...]
    interactions: tuple[tuple[Interaction, ...], ...]


def contrast(
    table: Table,
    measure: str,
    factor: str,
    between: tuple[Level, Level],
    *,
    at: Mapping[str, Level] | None = None,
    level: float = 0.95,
) -> Contrast:
    """One paired contrast, not corrected: the second level of ``between`` minus the first."""
    first, second = (sample(table, measure, {**(at or {}), factor: value}) for value in between)
    difference = interval(_difference(first, second), level, signed=True)
    p = _p_value(difference)
    return Contrast(measure, factor, *between, difference, p, p, dict(at or {}))


def interaction(
    table: Table,
    measure: str,
    factor: str,
    between: tuple[Level, Level],
    *,
    depends_on: str,
    where: tuple[Level, Level],
    level: float = 0.95,
) -> Interaction:
    """One difference of differences, not corrected; averaged over the levels of all further factors."""
    corners = [sample(table, measure, {factor: value, depends_on: place}) for place in where for value in between]
    shared = shared_units(corners)
    first, second, first_there, second_there = (corner.at(shared) for corner in corners)
    difference = interval((second_there - first_there) - (second - first), level, signed=True)
    p = _p_value(difference)
    return Interaction(measure, factor, *between, depends_on, *where, difference, p, p)


def contrasts(table: Table, measure: str, level: float) -> list[Contrast]:
    """Every pair of levels of every factor, averaged over the other factors, corrected together."""
    found = [
        contrast(table, measure, factor, pair, level=level)
        for factor, levels in table.factors.items()
        for pair in itertools.combinations(levels, 2)
    ]
    corrected = holm([entry.p for entry in found])
    return [dataclasses.replace(c, p_corrected=p) for c, p in zip(found, corrected, strict=True)]


def two_ways(table: Table, measure: str, level: float) -> list[TwoWay]:
    """A table for every pair of factors; the interactions of all of them are corrected together."""
    pairs = list(itertools.combinations([name for name, levels in table.factors.items() if len(levels) > 1], 2))
    tables = [_two_way(table, measure, *pair, level) for pair in pairs]
    corrected = iter(holm([one.p for found in tables for row in found.interactions for one in row]))
    return [
        dataclasses.replace(
            found,
            interactions=tuple(
                tuple(dataclasses.replace(one, p_corrected=next(corrected)) for one in row)
                for row in found.interactions
            ),
        )
        for found in tables
    ]


def _two_way(table: Table, measure: str, rows: str, columns: str, level: float) -> TwoWay:
    row_levels, column_levels = table.factors[rows], table.factors[columns]

    def mean(levels: Mapping[str, Level]) -> Interval:
        return interval(sample(table, measure, levels).values, level, signed=may_be_negative(measure))

    interactions = tuple(
        tuple(
            interaction(
                table,
                measure,
                rows,
                (row_levels[0], row),
                depends_on=columns,
                where=(column_levels[0], column),
                level=level,
            )
            for column in column_levels[1:]
        )
        for row in row_levels[1:]
    )
    return TwoWay(
        measure,
        rows,
        columns,
        row_levels,
        column_levels,
        tuple(tuple(mean({rows: row, columns: column}) for column in column_levels) for row in row_levels),
        tuple(mean({rows: row}) for row in row_levels),
        tuple(mean({columns: column}) for column in column_levels),
        interactions,
    )


def shared_units(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Units that all samples have."""
    return tuple(unit for unit in samples[0].units if all(unit in other.units for other in samples[1:]))


def _difference(first: Sample, second: Sample) -> Tensor:
    shared = shared_units([first, second])
    return second.at(shared) - first.at(shared)


def may_be_negative(measure: str) -> bool:
    """Whether a measure of pairs can be negative: a middle lies below its ends, an overlap is a cosine."""
    return measure.endswith(("midpoint", "midpoint_error", "overlap"))


def interval(values: Tensor, level: float, *, signed: bool) -> Interval:
    """Over networks for one value a unit, by the jackknife over networks for one value a pair."""
    if values.numel() == 0 or (values.dim() == 2 and len(values) < 2):
        return Interval(math.nan, math.nan, math.nan, level, len(values), "none: every value was left out")
    return over_pairs(values, level=level, signed=signed) if values.dim() == 2 else over_networks(values, level=level)


def _p_value(difference: Interval) -> float:
    """Two-sided p of the t statistic that the interval is made of.

    Where all units differ by the same amount, t has no error and would call any difference certain: two replicates
    whose errors are multiples of 1/20 differ alike in a tenth of studies by chance. Then it is the sign test's,
    2^(1 − n).
    """
    if not math.isfinite(difference.low):
        return math.nan
    degrees = difference.networks - 1
    error = (difference.high - difference.low) / 2 / student_quantile(0.5 + difference.level / 2, degrees)
    if error <= _ROUNDING * abs(difference.estimate):
        return 1.0 if difference.estimate == 0 else 2.0 ** (1 - difference.networks)
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(difference.estimate) / error))
