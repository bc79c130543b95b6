"""Looking after a store: does every run hold what it says, and what may go?"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError, UnwritableError
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.studies.store.stacked import digest
from isthmus.studies.store.store import Store

# A writer touches its temporary files far more often than this; what is older was left by a process that died.
_ABANDONED_AFTER = 3600.0


@dataclasses.dataclass(frozen=True)
class Verification(Record):
    """What :func:`verify` found.

    Attributes:
        runs: how many runs were read.
        groups: how many stacked files stand behind them.
        rows: how many measured values were read.
        damaged: key of each damaged run, and what is wrong with it.
    """

    runs: int
    groups: int
    rows: int
    damaged: dict[str, str]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged


@dataclasses.dataclass(frozen=True)
class Collected(Record):
    """What :func:`collect` removed, or would.

    Attributes:
        leftovers: temporary files and folders of processes that died.
        groups: stacked files that no run reads.
        runs: runs that were asked to go.
        bytes: their size together.
        removed: whether they are gone, or were only listed.
    """

    leftovers: int
    groups: int
    runs: int
    bytes: int
    removed: bool


def verify(store: Store, *, progress: Progress = silent) -> Verification:
    """Read every run in full: its files, its weights against their digests, its key against its recipe.

    Cost: reads every byte of the store once.
    """
    damaged: dict[str, str] = {}
    rows, groups, keys = 0, set(), store.keys
    for index, key in enumerate(keys):
        progress(index, len(keys), key[:12])
        try:
            run = store.run(key)
            rows += len(run.rows)
            groups.add(run.group)
            if wrong := _wrong_content(store, key, run.recipe, run.moments):
                damaged[key] = wrong
        except IsthmusError as problem:
            damaged[key] = str(problem)
    progress(len(keys), len(keys), "")
    return Verification(len(keys), len(groups - {None}), rows, damaged)


def collect(store: Store, *, runs: tuple[str, ...] = (), remove: bool = True) -> Collected:
    """Remove what no longer serves: leftovers of killed processes, stacked files that no run reads, and ``runs``.

    Args:
        store: the store; others may go on using it.
        runs: keys of runs to remove as well.
        remove: ``False`` only counts.

    Raises:
        StoreError: a run that stays does not say which group it reads, so that no group may go; verify the store first.
    """
    pending: set[str] = set()
    try:
        store.complete_groups()
    except UnwritableError:  # a full disk, which is what this is called for: what waits for space to be completed stays
        pending = set(store.open_groups())
    doomed = set(runs) & set(store.keys)
    leftovers = [path for path in store.path.rglob(".*.part") if _abandoned(path)]
    gone = [store.folder(key) for key in sorted(doomed)]
    read = {store.group_of(key) for key in store.keys if key not in doomed}
    unread = [store.group_folder(name) for name in store.groups() if name not in read | pending]
    size = sum(_size(path) for path in [*gone, *leftovers, *unread])
    if remove:
        # Runs before the groups that they read, so that no run is ever without its weights.
        for path in [*leftovers, *gone, *unread]:
            _delete(path)
    return Collected(len(leftovers), len(unread), len(gone), size, remove)


def unused(store: Store) -> tuple[str, ...]:
    """Keys of runs that belong to no study that the store remembers."""
    used = {key for content in store.studies().values() for key in content.get("keys", ())}
    return tuple(key for key in store.keys if key not in used)


def _wrong_content(store: Store, key: str, recipe: Any, moments: Any) -> str | None:
    """What of a readable run contradicts its own records."""
    from isthmus.studies.factors.jobs import key_of

    if (derived := key_of(recipe)) != key:
        return f"its recipe has the key {derived[:12]}"
    for moment, expected in moments.items():
        if digest(store.weights(key, moment=moment)) != expected:
            return f"the weights at {moment} have changed since they were written"
    return None


def _abandoned(path: Path) -> bool:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    try:
        newest = max(file.stat().st_mtime for file in files)
    except FileNotFoundError:
        return False
    return time.time() - newest > _ABANDONED_AFTER


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _delete(path: Path) -> None:
    if path.is_dir():
        # Renamed first: nobody must find a run with half of its files.
        doomed = path.with_name(f".{path.name.lstrip('.')}.gone.part")
        path.replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
