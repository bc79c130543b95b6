"""Running a study: do what is missing, keep every result at once, and be killable at any moment."""

from __future__ import annotations

import contextlib
import time

from isthmus.core.errors import IsthmusError
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.studies.factors.cells import Place
from isthmus.studies.factors.engines import Engine, Finished, Here
from isthmus.studies.factors.jobs import MeasureJob, Packed, Question, TrainJob, pack
from isthmus.studies.factors.measures import measures_for
from isthmus.studies.factors.plan import Measuring, Training, steps_of
from isthmus.studies.factors.study import Study
from isthmus.studies.factors.table import Table
from isthmus.studies.store.progress import Teller
from isthmus.studies.store.store import Store

# How long to wait for another process that is at work on what is missing here, before looking again.
_PATIENCE = 0.2


def run_study(study: Study, store: Store, *, engine: Engine | None = None, progress: Progress = silent) -> Table:
    """Do what of a study is missing in a store, and return its table.

    Every result is in the store as soon as it exists, whole. The process may be killed at any moment; the next run goes
    on from there. Several processes may run the same study on one store: each piece of work is done by one of them.

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
        # Looking each key up in the store at every turn would be slow on network file systems.
        self.present = set(store.keys)
        self.teller = Teller(store, study.design.name)

    def run(self) -> None:
        """Until nothing is missing that could be done."""
        while self.trainings or self.measurings or self.flying:
            self.teller.again()
            handed_out = self._hand_out()
            if self.flying:
                if (finished := self.engine.next(1.0)) is not None:
                    self._keep(finished)
            elif not handed_out:
                # Everything that is missing is in the hands of other processes.
                time.sleep(_PATIENCE)
                self.present.update(self.store.keys)
                self._say("waiting for another process")
        if self.problems:
            first, *more = self.problems
            others = f" (and {len(more)} more like it)" if more else ""
            raise IsthmusError(f"{first}{others}; what is done is kept, and another run goes on from there")

    def close(self) -> None:
        """Give back all claims."""
        self.teller.close()
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
        return isinstance(work, Training) or self.present.issuperset(work.keys)

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
        self.present.update(member.key for member in members)
        if self.study.design.engine == "auto" and (found := _engine_word(members[0].provenance["engine"])):
            self.store.remember_choice(self._kind(work), found)

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
        if isinstance(work, Training):
            self.present.update(place.key for place in work.places)
        self.done += self.costs.get(work.name, 0.0)

    def _cost(self, work: Training) -> float:
        return float(sum(steps_of(place.recipe, self.study.sizes) for place in work.missing(self.store)))

    def _say(self, label: str) -> None:
        under_way = sum(self.costs.get(name, 0.0) * share for name, share in self.shares.items())
        self.progress(self.done + under_way, self.total, label)
        self.teller.say(self.done + under_way, self.total, label)

    def _kind(self, work: Training) -> str:
        """What is fastest on a CPU is not on a GPU, so each has its own choice."""
        return f"{work.kind}-{self.engine.processor}"

    def _engine_for(self, work: Training) -> str | None:
        """The engine that the design names, or that was chosen before: a resumed study must round as it did."""
        return self.study.design.engine if self.study.design.engine != "auto" else self.store.choice(self._kind(work))


def _engine_word(name: str) -> str | None:
    """The word by which an engine is asked for again, from the name under which it reports."""
    kinds = {
        "folded": "folded graph",
        "each replica": "graphs",
        "one captured graph": "graph",
        "channels last": "channels last",
        "vectorised and compiled": "",  # whose chunks are its own affair
        "in chunks": "chunks",
        "vectorised": "",
        "sequential": "sequential",
    }
    kind = next((word for part, word in kinds.items() if part in name), None)
    if kind is None or kind in ("sequential", "channels last", "folded graph"):
        return kind
    manner = "compiled" if "compiled" in name else "kernel" if "own kernels" in name else ""
    return f"{manner} {kind}".strip() or "vectorised"
