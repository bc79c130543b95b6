"""A design made ready: its cells, its plan, and the table of what a store holds of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from isthmus.core.errors import IsthmusError
from isthmus.core.record import to_json
from isthmus.core.status import Status
from isthmus.studies.factors.cells import Cell, cells, data_of
from isthmus.studies.factors.design import Design, StudyError
from isthmus.studies.factors.measures import columns_for, dataset, measures_for
from isthmus.studies.factors.plan import Plan, plan
from isthmus.studies.factors.table import Observation, Table
from isthmus.studies.store.rows import identity
from isthmus.studies.store.store import Store
from isthmus.zoo import build


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A design made ready for one store: its cells and its plan.

    Example:
        >>> from isthmus.studies import parse_design
        >>> design = parse_design({"name": "rate", "factors": {"rate": [0.01, 0.1]}, "recipe": {"epochs": 1}})
        >>> study = Study.of(design)
        >>> len(study.cells), len(study.keys)
        (2, 24)
    """

    design: Design
    cells: tuple[Cell, ...]
    plan: Plan
    sizes: Mapping[str, tuple[int, int]]
    data_folder: str | None = None

    @classmethod
    def of(cls, design: Design, *, data_folder: str | Path | None = None) -> Study:
        """Expand and check a design; reads its data sets for their shapes.

        Raises:
            StudyError: a level is impossible; nothing has run then.
            DataError: a data set cannot be read.
        """
        folder = str(data_folder) if data_folder is not None else None
        measures_for(design)
        data = {name: dataset(name, folder, "cpu") for name in data_of(design)}
        expanded = cells(design, shapes={name: (found.shape, found.classes) for name, found in data.items()})
        _try_networks(expanded)
        sizes = {name: (len(found.train_targets), len(found.test_targets)) for name, found in data.items()}
        return cls(design, expanded, plan(design, expanded, sizes=sizes), sizes, folder)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all its trainings."""
        return tuple(dict.fromkeys(place.key for cell in self.cells for place in cell.places))

    def table(self, store: Store) -> Table:
        """What the store holds of this study now."""
        measures = {column: measure for measure in measures_for(self.design) for column in measure.columns}
        known = {key: store.run(key) for key in self.keys if key in store}
        diverged = {key for key, run in known.items() if run.provenance.get("status") == Status.DIVERGED.value}
        rows = {key: {row.identity: row for row in run.rows} for key, run in known.items()}
        found: list[Observation] = []
        missing = 0
        for cell in self.cells:
            for column in columns_for(self.design):
                measure = measures[column]
                settings = measure.settings_in(self.design)
                for units, keys in _subjects(cell, measure.kind):
                    lost = any(key in diverged for key in keys)
                    owner, *others = keys
                    asked = {**settings, **({"other": others[0]} if others else {})}
                    row = rows.get(owner, {}).get(identity(measure.name, measure.version, asked))
                    if row is None and not lost:
                        missing += 1
                        continue
                    value = row.value[column] if row is not None and not lost else None
                    unit = measure.columns[column]
                    found.append(Observation(cell.levels, units, keys, column, value, unit, lost))
        factors = {name: factor.names for name, factor in self.design.factors.items()}
        ordered = tuple(name for name, factor in self.design.factors.items() if factor.has_order)
        return Table(self.design.name, factors, ordered, tuple(found), len(diverged), len(self.keys), missing)


def _try_networks(expanded: tuple[Cell, ...]) -> None:
    """Build each network once, so that a setting that it does not know is found before anything is trained."""
    tried: set[str] = set()
    for cell in expanded:
        recipe = cell.places[0].recipe
        if (form := to_json([recipe.network, recipe.settings])) in tried:
            continue
        tried.add(form)
        try:
            build(recipe)
        except IsthmusError as problem:
            raise StudyError(f"the cell {cell.name} is impossible: {problem}") from None


def _subjects(cell: Cell, kind: str) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """The networks or pairs of a cell with their independent units."""
    if kind == "pair":
        return [(comparison.units, (comparison.start, comparison.end)) for comparison in cell.comparisons]
    alone = len({place.replicate for place in cell.places}) == 1
    return [((place.member if alone else place.replicate,), (place.key,)) for place in cell.places]
