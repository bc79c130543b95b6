"""What a study would do, and how long that would take."""

from __future__ import annotations

import dataclasses
import time

from isthmus.core.record import Record
from isthmus.studies.factors.jobs import TrainJob
from isthmus.studies.factors.measures import measures_for
from isthmus.studies.factors.plan import steps_of
from isthmus.studies.factors.study import Study
from isthmus.studies.store.store import Store


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


def probe_seconds(study: Study, *, device: str = "cpu", most_steps: int = 60, threads: int | None = None) -> float:
    """Seconds that one step of one network takes here, from a short training of the study's first group.

    Args:
        study: whose group.
        device: where.
        most_steps: of the longer of two trainings; their difference is free of what it takes to start.
        threads: to compute with; by default as many as this process has.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return _probed(study, device, most_steps)
    finally:
        torch.set_num_threads(before)


def _probed(study: Study, device: str, most_steps: int) -> float:
    first = next(iter(study.plan.trainings))
    recipes = [place.recipe for place in first.places]
    short = {"spawn": 0, "rewind": 0, "pruning_levels": 0, "checkpoints": (), "warmup": 0}
    measured = []
    for steps in (most_steps // 6, most_steps):
        cut = [dataclasses.replace(recipe, steps=steps, **short).to_dict() for recipe in recipes]
        begun = time.monotonic()
        TrainJob(tuple(cut), study.design.engine, study.data_folder).run(device=device)
        measured.append((steps, time.monotonic() - begun))
    (few, first), (many, second) = measured
    return max(second - first, 1e-6) / (many - few) / len(recipes)


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


def describe(duration: float) -> str:
    """A duration in seconds in words, such as ``3 min 20 s``."""
    seconds = round(duration)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
