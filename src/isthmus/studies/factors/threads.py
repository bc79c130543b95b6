"""How many threads each worker of a study computes with."""

from __future__ import annotations

from isthmus.studies.factors.local import cores
from isthmus.studies.factors.outlook import probe_seconds
from isthmus.studies.factors.study import Study
from isthmus.studies.store.store import Store

_MEMORY = "threads"  # the name under which a store remembers the answer
_PAYS = 1.3  # threads must make a step this much faster: a probe of a few steps is not more exact
_SMALL = 5e-3  # seconds of a step of a whole group below which handing work to threads costs as much as it saves
_ROUNDS = 2  # in turns; other work on the machine must not make either look faster once


def threads_for(study: Study, store: Store | None, *, workers: int, available: int | None = None) -> int:
    """Threads of each of ``workers`` processes on this machine: one, unless cores are left over and more of them pay.

    A short probe trains the first group with one thread and with as many as there are cores for each worker. Sums of
    several threads round otherwise, so the store remembers the answer and a resumed study rounds as it did.

    Args:
        study: what will be trained.
        store: where the answer is kept, if it is kept.
        workers: processes at the same time.
        available: cores; all that this process may use by default.

    Cost: up to eight trainings of at most a dozen steps of one group, only where there are two cores or more for each
    worker.
    """
    spare = (available or cores()) // workers
    if spare < 2 or not study.plan.trainings:
        return 1
    if store is not None and (known := store.choice(_MEMORY)) is not None and known.isdigit():
        return min(int(known), spare)
    found = spare if _pay(study, spare) else 1
    if store is not None:
        store.remember_choice(_MEMORY, str(found))
    return found


def _pay(study: Study, spare: int) -> bool:
    """Whether so many threads are faster than one, in every round."""
    together = len(study.plan.trainings[0].places)
    for _ in range(_ROUNDS):
        one = probe_seconds(study, most_steps=12, threads=1)
        if one * together < _SMALL or probe_seconds(study, most_steps=12, threads=spare) * _PAYS >= one:
            return False
    return True
