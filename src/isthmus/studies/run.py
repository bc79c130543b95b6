"""Running a study: do what is missing, keep every result at once, and be killable at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError, listed
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record, to_json
from isthmus.core.status import Status
from isthmus.studies.cells import Cell, Place, cells, data_of
from isthmus.studies.design import Design, StudyError
from isthmus.studies.engines import Engine, Finished, Here
from isthmus.studies.jobs import MeasureJob, Packed, Question, TrainJob, pack
from isthmus.studies.measures import columns_for, dataset, measures_for
from isthmus.studies.plan import Measuring, Plan, Training, plan, steps_of
from isthmus.studies.rows import Row
from isthmus.studies.store import Store
from isthmus.studies.table import Observation, Table
from isthmus.zoo import build

# How long to wait for another process that is at work on what is missing here, before looking again.
_PATIENCE = 0.2


@dataclasses.dataclass(frozen=True)
class Outlook(Record):
    """What a study would do, from :func:`outlook`.

    Attributes:
        cells: the combinations of levels, in words.
        networks: how many networks the study has.
        trained: how many of them the store holds already.
        comparisons: how many pairs are compared.
        groups: groups of networks that are still to be trained.
        measurements: values of networks and pairs that are still to be measured.
        steps: training steps that this comes to, measuring included (a forward pass as a third of a step).
        seconds: estimated, with all places of the engine busy; ``None`` if nothing comparable was ever timed.
        basis: where the estimate comes from.
    """

    cells: tuple[str, ...]
    networks: int
    trained: int
    comparisons: int
    groups: int
    measurements: int
    steps: float
    seconds: float | None
    basis: str


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A design made ready for one store: its cells and its plan.

    Example:
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
                    extra = {"other": keys[1]} if len(keys) > 1 else {}
                    identity = Row(measure.name, measure.version, {**settings, **extra}, None, "").identity
                    row = rows.get(keys[0], {}).get(identity)
                    if row is None and not lost:
                        missing += 1
                        continue
                    value = row.value[column] if row is not None and not lost else None
                    unit = measure.columns[column]
                    found.append(Observation(cell.levels, units, keys, column, value, unit, lost))
        factors = {name: factor.names for name, factor in self.design.factors.items()}
        ordered = tuple(name for name, factor in self.design.factors.items() if factor.has_order)
        return Table(self.design.name, factors, ordered, tuple(found), len(diverged), len(self.keys), missing)


def run_study(study: Study, store: Store, *, engine: Engine | None = None, progress: Progress = silent) -> Table:
    """Do what of a study is missing in a store, and return its table.

    Every result is in the store as soon as it exists, whole. The process may be killed at any moment; the next run goes on
    from there. Several processes may run the same study on one store: each piece of work is done by one of them.

    Args:
        study: what to do.
        store: where results are looked for and kept.
        engine: what runs the jobs; this process by default. It is not closed.
        progress: told the work done so far in training steps, and all of it.

    Raises:
        IsthmusError: a job cannot be done; the results of all others are kept, and a further run tries again.
    """
    store.remember_study(study.design.name, {"design": study.design.model_dump(), "keys": study.keys})
    with contextlib.closing(_Runner(study, store, engine or Here(), progress)) as runner:
        runner.run()
    return study.table(store)


def outlook(study: Study, store: Store | None, *, slots: int = 1, seconds_per_step: float | None = None) -> Outlook:
    """What :func:`run_study` would do now.

    Args:
        study: what would be done.
        store: what is there already; ``None`` for a store that does not exist yet.
        slots: how many jobs run at a time.
        seconds_per_step: of one network, from a probe; by default from trainings of the same networks in the store.
    """
    versions = {measure.name: measure.version for measure in measures_for(study.design)}
    steps, groups, measurements = 0.0, 0, 0
    for training in study.plan.trainings:
        missing = training.missing(store) if store else list(training.places)
        groups += bool(missing)
        steps += sum(steps_of(place.recipe, study.sizes) for place in missing)
    for measuring in study.plan.measurings:
        there = store is not None and all(key in store for key in measuring.keys)
        open_questions = measuring.missing(store, versions) if store and there else list(measuring.questions)
        measurements += len(open_questions)
        steps += measuring.cost * len(open_questions) / max(1, len(measuring.questions))
    basis = "a short probe on this machine"
    if seconds_per_step is None:
        seconds_per_step, basis = _seconds_per_step(study, store)
    trained = sum(key in store for key in study.keys) if store else 0
    return Outlook(
        tuple(cell.name for cell in study.cells),
        len(study.keys),
        trained,
        sum(len(cell.comparisons) for cell in study.cells),
        groups,
        measurements,
        steps,
        None if seconds_per_step is None else steps * seconds_per_step / max(1, min(slots, groups or slots)),
        basis,
    )


def probe_seconds(study: Study, *, device: str = "cpu", most_steps: int = 60) -> float:
    """Seconds that one step of one network takes here, from a short training of the study's first group."""
    recipes = [place.recipe for place in study.plan.trainings[0].places]
    short = {"spawn": 0, "rewind": 0, "pruning_levels": 0, "checkpoints": (), "warmup": 0}
    measured = []
    for steps in (most_steps // 6, most_steps):
        cut = [dataclasses.replace(recipe, steps=steps, **short).to_dict() for recipe in recipes]
        begun = time.monotonic()
        TrainJob(tuple(cut), study.design.engine, study.data_folder).run(device=device)
        measured.append((steps, time.monotonic() - begun))
    (few, first), (many, second) = measured
    return max(second - first, 1e-6) / (many - few) / len(recipes)


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


def _seconds_per_step(study: Study, store: Store | None) -> tuple[float | None, str]:
    """From the trainings of this study's networks that the store holds."""
    total, steps = 0.0, 0
    for place in (place for cell in study.cells for place in cell.places):
        if store is not None and place.key in store:
            total += store.run(place.key).provenance.get("seconds") or 0.0
            steps += steps_of(place.recipe, study.sizes)
    if steps and total:
        return total / steps, "the trainings of this study that are in the store"
    return None, "nothing yet"


def _subjects(cell: Cell, kind: str) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """The networks or pairs of a cell with their independent units."""
    if kind == "pair":
        return [(comparison.units, (comparison.start, comparison.end)) for comparison in cell.comparisons]
    alone = len({place.replicate for place in cell.places}) == 1
    return [((place.member if alone else place.replicate,), (place.key,)) for place in cell.places]


class _Runner:
    """One run of a study: hands out what is missing and keeps what comes back."""

    def __init__(self, study: Study, store: Store, engine: Engine, progress: Progress) -> None:
        self.study, self.store, self.engine, self.progress = study, store, engine, progress
        self.versions = {measure.name: measure.version for measure in measures_for(study.design)}
        self.trainings = [t for t in study.plan.trainings if t.missing(store)]
        self.measurings = list(study.plan.measurings)
        self.flying: dict[str, tuple[Training | Measuring, contextlib.ExitStack]] = {}
        self.shares: dict[str, float] = {}
        self.costs = {t.name: self._cost(t) for t in self.trainings} | {m.name: m.cost for m in self.measurings}
        self.total = sum(self.costs.values())
        self.done = 0.0
        self.problems: list[str] = []

    def run(self) -> None:
        """Until nothing is missing that could be done."""
        while self.trainings or self.measurings or self.flying:
            handed_out = self._hand_out()
            if self.flying:
                if (finished := self.engine.next(1.0)) is not None:
                    self._keep(finished)
            elif not handed_out:
                # Everything that is missing is in the hands of other processes.
                time.sleep(_PATIENCE)
                self._say("waiting for another process")
        if self.problems:
            raise IsthmusError(f"{listed(self.problems, 1)}; what is done is kept, and another run goes on from there")

    def close(self) -> None:
        """Give back all claims."""
        for _, claims in self.flying.values():
            claims.close()
        self.flying.clear()

    def _hand_out(self) -> bool:
        """Fill the engine's places; measuring first, so that results come early and weights are still in memory."""
        handed_out = False
        opened: set[str] = set()
        for work in [*self.measurings, *self.trainings]:
            if len(self.flying) >= self.engine.slots:
                break
            if isinstance(work, Training):
                # The first group of a kind finds the fastest engine; the others wait for its choice and follow it.
                if self._engine_for(work) is None and (work.kind in opened or self._probing(work.kind)):
                    continue
                opened.add(work.kind)
            if self._ready(work):
                handed_out |= self._start(work)
        return handed_out

    def _probing(self, kind: str) -> bool:
        return any(isinstance(work, Training) and work.kind == kind for work, _ in self.flying.values())

    def _ready(self, work: Training | Measuring) -> bool:
        return isinstance(work, Training) or all(key in self.store for key in work.keys)

    def _start(self, work: Training | Measuring) -> bool:
        """Claim a piece of work and submit it; whether anything changed."""
        claims = contextlib.ExitStack()
        if not claims.enter_context(self.store.claim(work.name)):
            claims.close()
            # Another process has it. If it is done by now, it is none of our work any more.
            return self._drop_if_done(work)
        job = self._job(work) if self._open(work) else None
        if job is None:
            claims.close()
            self._finish(work)
            return True
        self.flying[work.name] = (work, claims)
        (self.trainings if isinstance(work, Training) else self.measurings).remove(work)  # type: ignore[arg-type]
        self.engine.submit(work.name, job)
        return True

    def _open(self, work: Training | Measuring) -> tuple[Place, ...] | tuple[Question, ...]:
        """What of a piece of work is still missing; nothing is asked of networks that diverged."""
        if isinstance(work, Training):
            return tuple(work.missing(self.store))
        missing = work.missing(self.store, self.versions)
        alive = {key for key in work.keys if self.store.status(key) != Status.DIVERGED.value} if missing else set()
        return tuple(question for question in missing if set(question.keys) <= alive)

    def _job(self, work: Training | Measuring) -> TrainJob | MeasureJob:
        """The missing part of a piece of work, now that nobody else can be at it."""
        if isinstance(work, Training):
            recipes = tuple(place.recipe.to_dict() for place in work.missing(self.store))
            return TrainJob(recipes, self._engine_for(work) or "auto", self.study.data_folder)
        questions = tuple(question for question in self._open(work) if isinstance(question, Question))
        needed = {key for question in questions for key in question.keys}
        return MeasureJob(
            questions,
            {key: self.store.run(key).recipe for key in needed},
            {key: pack(self.store.weights(key)) for key in needed},
            self.study.data_folder,
        )

    def _keep(self, finished: Finished) -> None:
        """Put a result into the store, then give its claim back."""
        if not finished.over:
            self.shares[finished.name] = finished.share
            self._say("")
            return
        work, claims = self.flying.pop(finished.name)
        with claims:
            if finished.problem is not None:
                self.problems.append(f"{work.cell}: {finished.problem}")
                self._give_up(work)
            elif isinstance(work, Training):
                self._keep_networks(work, finished.outcome)
            else:
                for key in work.keys:
                    self.store.record(key, [row for owner, row in finished.outcome if owner == key])
        self.shares.pop(finished.name, None)
        self.done += self.costs.get(finished.name, 0.0)
        self._say(work.cell)

    def _keep_networks(self, work: Training, packed: list[Packed]) -> None:
        members = [member.unpacked() for member in packed]
        self.store.add(members)
        if self.study.design.engine == "auto" and (found := _engine_word(members[0].provenance["engine"])):
            self.store.remember_choice(work.kind, found)

    def _give_up(self, work: Training | Measuring) -> None:
        """Without these networks, what would be measured on them cannot be."""
        if isinstance(work, Training):
            lost = {place.key for place in work.places}
            self.measurings = [m for m in self.measurings if not lost & set(m.keys)]

    def _drop_if_done(self, work: Training | Measuring) -> bool:
        if self._open(work):
            return False
        self._finish(work)
        return True

    def _finish(self, work: Training | Measuring) -> None:
        (self.trainings if isinstance(work, Training) else self.measurings).remove(work)  # type: ignore[arg-type]
        self.done += self.costs.get(work.name, 0.0)

    def _cost(self, work: Training) -> float:
        return float(sum(steps_of(place.recipe, self.study.sizes) for place in work.missing(self.store)))

    def _say(self, label: str) -> None:
        under_way = sum(self.costs.get(name, 0.0) * share for name, share in self.shares.items())
        self.progress(self.done + under_way, self.total, label)

    def _engine_for(self, work: Training) -> str | None:
        """The engine that the design names, or that was chosen before: a resumed study must round as it did."""
        return self.study.design.engine if self.study.design.engine != "auto" else self.store.choice(work.kind)


def _engine_word(name: str) -> str | None:
    """The word by which an engine is asked for again, from the name under which it reports."""
    return next((word for word in ("compiled", "graphs", "graph", "vectorised", "sequential") if word in name), None)


def describe(value: Any) -> str:
    """A duration in words, such as ``3 min 20 s``."""
    seconds = round(float(value))
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
