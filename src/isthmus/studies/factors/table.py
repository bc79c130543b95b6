"""The results of a study as one table: a line for every value of every network or pair."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import SettingError, listed
from isthmus.core.record import Record

Level = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Observation(Record):
    """One value.

    Attributes:
        levels: the cell: factor → level.
        units: the independent sets of seeds behind the value: one for a network or a pair that shares them, two for a
            pair across sets. Intervals are over these.
        networks: keys of the one or two runs.
        measure: what was measured.
        value: the number; ``None`` where it is not finite or the training diverged.
        unit: what the number counts.
        diverged: whether a training behind it diverged; such values are kept and left out of every mean.
    """

    levels: Mapping[str, Level]
    units: tuple[int, ...]
    networks: tuple[str, ...]
    measure: str
    value: float | None
    unit: str
    diverged: bool


@dataclasses.dataclass(frozen=True)
class Table(Record):
    """Everything that a study measured.

    Attributes:
        study: its name.
        factors: factor → levels in the order of the study file.
        ordered: factors whose levels have an order.
        observations: one entry a value, in the order of the design.
        diverged: how many networks diverged.
        networks: how many networks there are.
        missing: how many values the design asks for that are not in the store yet.
    """

    study: str
    factors: Mapping[str, tuple[Level, ...]]
    ordered: tuple[str, ...]
    observations: tuple[Observation, ...]
    diverged: int
    networks: int
    missing: int

    @property
    def measures(self) -> tuple[str, ...]:
        """What was measured, in order of appearance."""
        return tuple(dict.fromkeys(observation.measure for observation in self.observations))

    @property
    def cells(self) -> tuple[Mapping[str, Level], ...]:
        """The combinations of levels, in the order of the design."""
        return tuple({label(o.levels): o.levels for o in self.observations}.values())

    def columns(self) -> dict[str, list[Any]]:
        """The table by columns, ready for pandas or CSV; lists are of equal length."""
        columns: dict[str, list[Any]] = {name: [o.levels.get(name) for o in self.observations] for name in self.factors}
        columns["replicate"] = ["-".join(map(str, o.units)) for o in self.observations]
        columns["network"] = [o.networks[0] for o in self.observations]
        columns["other"] = [o.networks[1] if len(o.networks) > 1 else None for o in self.observations]
        for name in ("measure", "value", "unit", "diverged"):
            columns[name] = [getattr(o, name) for o in self.observations]
        return columns


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The values of one measure in one cell (or averaged over several) by independent unit.

    Attributes:
        units: names of the units, ascending.
        values: one value a unit, or a symmetric matrix with one value for each pair of units.
        excluded: how many values were left out because a training diverged or the value is not finite.
    """

    units: tuple[int, ...]
    values: Tensor
    excluded: int

    @property
    def paired(self) -> bool:
        """Whether each value belongs to two units."""
        return self.values.dim() == 2

    def at(self, units: tuple[int, ...]) -> Tensor:
        """The values at some of the units."""
        places = torch.tensor([self.units.index(unit) for unit in units], dtype=torch.long)
        return self.values[places][:, places] if self.paired else self.values[places]


def sample(table: Table, measure: str, levels: Mapping[str, Level]) -> Sample:
    """The values of a measure where the given factors have the given levels, averaged over all other factors.

    A unit counts if it has a finite value in every cell that is averaged over; else the average would mix what differs.

    Raises:
        SettingError: the table holds no such measure or level.
    """
    if measure not in table.measures:
        raise SettingError(f"measure must be one of {listed(table.measures)}, got {measure!r}")
    chosen = [o for o in table.observations if o.measure == measure and _fits(o.levels, levels)]
    if not chosen:
        raise SettingError(f"the table must hold values at {label(levels)}, but it has none")
    usable = [o for o in chosen if o.value is not None and math.isfinite(o.value) and not o.diverged]
    cells = len({label(o.levels) for o in chosen})
    if any(len(o.units) == 2 for o in chosen):
        return _pairwise(chosen, usable)
    sums: dict[int, dict[str, list[float]]] = {}
    for o in usable:
        sums.setdefault(o.units[0], {}).setdefault(label(o.levels), []).append(float(o.value or 0.0))
    whole = sorted(unit for unit, by_cell in sums.items() if len(by_cell) == cells)
    means = [sum(sum(v) / len(v) for v in sums[unit].values()) / cells for unit in whole]
    return Sample(tuple(whole), torch.tensor(means, dtype=torch.float64), len(chosen) - len(usable))


def label(levels: Mapping[str, Level]) -> str:
    """A cell in words, such as ``rate=0.1, width=64``."""
    return ", ".join(f"{name}={level}" for name, level in levels.items()) or "all"


def _pairwise(chosen: list[Observation], usable: list[Observation]) -> Sample:
    """A matrix over units that have every pair; those with most missing pairs are dropped first, until it is whole."""
    units = sorted({unit for o in chosen for unit in o.units})
    sums, counts = torch.zeros(len(units), len(units)).double(), torch.zeros(len(units), len(units)).double()
    for o in usable:
        i, j = units.index(o.units[0]), units.index(o.units[-1])
        for row, column in {(i, j), (j, i)}:
            sums[row, column] += float(o.value or 0.0)
            counts[row, column] += 1
    lacking = (counts < counts.max()).fill_diagonal_(False)
    keep = torch.arange(len(units))
    while bool(lacking[keep][:, keep].any()):
        worst = int(lacking[keep][:, keep].sum(0).argmax())
        keep = torch.cat([keep[:worst], keep[worst + 1 :]])
    means = (sums / counts.clamp(min=1))[keep][:, keep]
    return Sample(tuple(units[k] for k in keep.tolist()), means, len(chosen) - len(usable))


def _fits(levels: Mapping[str, Level], wanted: Mapping[str, Level]) -> bool:
    return all(levels.get(name) == level for name, level in wanted.items())
