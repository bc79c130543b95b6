"""What of a study is missing in a store, as jobs that can be claimed, run and resumed one by one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from isthmus.studies.factors.cells import Cell, Place
from isthmus.studies.factors.design import Design
from isthmus.studies.factors.jobs import Question
from isthmus.studies.factors.measures import Measure, measures_for
from isthmus.studies.store.rows import identity
from isthmus.studies.store.store import Store
from isthmus.train import Recipe

# A forward pass costs a third of a training step.
_FORWARD = 1 / 3


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """One group of networks of one cell, trained together or not at all.

    Attributes:
        name: identifies the group among all processes that use a store.
        cell: in words.
        places: the whole group.
        kind: what the choice of an engine depends on; groups of one kind use one engine.
    """

    name: str
    cell: str
    places: tuple[Place, ...]
    kind: str

    def missing(self, store: Store) -> list[Place]:
        """The trainings that the store does not hold."""
        return [place for place in self.places if place.key not in store]


@dataclasses.dataclass(frozen=True, eq=False)
class Measuring:
    """All questions about one replicate of one cell.

    Attributes:
        name: identifies it among all processes that use a store.
        cell: in words.
        questions: what is asked.
        keys: the networks that must be there first.
        cost: in training steps.
    """

    name: str
    cell: str
    questions: tuple[Question, ...]
    keys: tuple[str, ...]
    cost: float

    def missing(self, store: Store, versions: Mapping[str, int]) -> list[Question]:
        """The questions that the store has no answer to; networks that diverged are asked nothing."""
        known = {key: {row.identity for row in store.rows(key)} for key in {q.keys[0] for q in self.questions}}
        return [
            question
            for question in self.questions
            if identity(question.measure, versions[question.measure], question.row_settings)
            not in known[question.keys[0]]
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A study as work, in the order of the design."""

    trainings: tuple[Training, ...]
    measurings: tuple[Measuring, ...]


def plan(design: Design, cells: Sequence[Cell], *, sizes: Mapping[str, tuple[int, int]]) -> Plan:
    """Split a study into jobs.

    The split follows from the design alone, so that a resumed study rounds as an undisturbed one does.

    Args:
        design: the study.
        cells: of that study.
        sizes: data set → how many training and test examples it has, for the costs.
    """
    trainings, seen = [], set()
    for cell in cells:
        places = [place for place in cell.places if place.key not in seen]
        seen.update(place.key for place in places)
        for first in range(0, len(places), design.together):
            group = tuple(places[first : first + design.together])
            trainings.append(Training(_name("train", *(p.key for p in group)), cell.name, group, _kind(group)))
    measures = measures_for(design)
    measurings = [part for cell in cells for part in _measurings(design, cell, measures, sizes)]
    return Plan(tuple(trainings), tuple(measurings))


def steps_of(recipe: Recipe, sizes: Mapping[str, tuple[int, int]]) -> int:
    """Training steps of one network, all rounds of pruning together."""
    examples = min(recipe.subset or sizes[recipe.data][0], sizes[recipe.data][0])
    return max(1, recipe.total_steps(examples)) * (recipe.pruning_levels + 1)


def _measurings(
    design: Design, cell: Cell, measures: Sequence[Measure], sizes: Mapping[str, tuple[int, int]]
) -> list[Measuring]:
    """One for each replicate: its networks, and the pairs whose first unit it is."""
    found = []
    recipe = cell.places[0].recipe
    alone = design.replicates.count == 1 and design.replicates.pairs == "within"
    for unit in range(design.replicates.count):
        keys = [place.key for place in cell.places if place.replicate == unit]
        pairs = [(c.start, c.end) for c in cell.comparisons if alone or c.units[0] == unit]
        questions = tuple(
            Question(measure.name, measure.settings_in(design), subject)
            for measure in measures
            for subject in ([(key,) for key in keys] if measure.kind == "network" else pairs)
        )
        needed = tuple(dict.fromkeys([*keys, *(key for pair in pairs for key in pair)]))
        name = _name("measure", *needed, json.dumps(design.measures.model_dump(), sort_keys=True))
        cost = sum(_cost(question, design, recipe, sizes) for question in questions)
        found.append(Measuring(name, cell.name, questions, needed, cost))
    return found


def _cost(question: Question, design: Design, recipe: Recipe, sizes: Mapping[str, tuple[int, int]]) -> float:
    """In training steps of the same recipe."""
    training, test = sizes[recipe.data]
    if question.measure == "score":
        examples = training + test
    elif "points" in question.settings:
        whole = test if design.measures.on == "test" else training
        examples = design.measures.points * min(whole, design.measures.examples or whole)
    else:
        return 0.1
    return math.ceil(examples / recipe.batch_size) * _FORWARD


def _kind(group: Sequence[Place]) -> str:
    """Everything that the speed of an engine depends on."""
    recipe = group[0].recipe
    shared = {
        name: value
        for name, value in recipe.to_dict().items()
        if name
        in ("network", "settings", "data", "optimiser", "batch_size", "precision", "augmentation", "steps", "epochs")
    }
    return _name("kind", json.dumps(shared, sort_keys=True), str(len(group)))


def _name(*parts: str) -> str:
    return f"{parts[0]}-{hashlib.sha256(chr(31).join(parts).encode()).hexdigest()[:24]}"
