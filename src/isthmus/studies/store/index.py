"""A SQLite table of what a store holds, for listings: a cache that is brought up to date on every use.

The folders are the truth. The file is never written in place: a new one is made beside it and renamed over it, and it
is read as immutable, so that no SQLite lock is ever taken, which network file systems do not keep reliably.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError
from isthmus.core.files import atomic
from isthmus.core.record import Record
from isthmus.studies.store.store import Store

_SCHEMA_VERSION = 1
_SCHEMA = """
create table runs (
  key text primary key, stamp text, created text, status text, recipe text, seconds real, grouped text
);
create table rows (key text, measure text, version integer, settings text, value text, unit text);
create index rows_by_key on rows (key);
create index rows_by_measure on rows (measure);
"""


@dataclasses.dataclass(frozen=True)
class Listed(Record):
    """One run as a listing shows it.

    Attributes:
        key: the recipe's key.
        created: when, ISO 8601.
        status: how the training ended.
        recipe: in full.
        seconds: what the training took, its share of the group's time.
        rows: how many values were measured.
    """

    key: str
    created: str
    status: str
    recipe: dict[str, Any]
    seconds: float | None
    rows: int


def refresh(store: Store, *, rebuild: bool = False) -> int:
    """Bring the index up to date with the folders; returns how many runs were read anew.

    Raises:
        IsthmusError: the store cannot be written.
    """
    target = store.path / "index.sqlite"
    known = {} if rebuild else _stamps(target)
    present = {key: _stamp(store.folder(key)) for key in store.keys}
    stale = [key for key, stamp in present.items() if known.get(key) != stamp]
    gone = [key for key in known if key not in present]
    if known and not stale and not gone:
        return 0
    with atomic(target) as temporary:
        if known:
            shutil.copyfile(target, temporary)
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            if not known:
                _lay_out(database)
            for key in [*gone, *stale]:
                database.execute("delete from runs where key = ?", (key,))
                database.execute("delete from rows where key = ?", (key,))
            for key in stale:
                _insert(database, store, key, present[key])
            database.commit()
    return len(stale)


def listing(store: Store) -> list[Listed]:
    """All runs, the oldest first; of a store that cannot be written the folders are read instead of the index."""
    with _up_to_date(store) as database:
        found = database.execute(
            "select key, created, status, recipe, seconds, (select count(*) from rows where rows.key = runs.key) "
            "from runs order by created, key"
        ).fetchall()
    return [Listed(key, made, status, json.loads(recipe), sec, rows) for key, made, status, recipe, sec, rows in found]


@contextlib.contextmanager
def _up_to_date(store: Store) -> Iterator[sqlite3.Connection]:
    """The index after a refresh; where that is not allowed, one in memory."""
    try:
        refresh(store)
    except IsthmusError:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            _lay_out(database)
            for key in store.keys:
                _insert(database, store, key, _stamp(store.folder(key)))
            yield database
        return
    with _reading(store.path / "index.sqlite") as database:
        yield database


def _lay_out(database: sqlite3.Connection) -> None:
    database.executescript(_SCHEMA)
    database.execute(f"pragma user_version = {_SCHEMA_VERSION}")


def _insert(database: sqlite3.Connection, store: Store, key: str, stamp: str) -> None:
    try:
        run = store.run(key)
    except IsthmusError:
        # Damaged runs are for ``verify`` to name; a listing shows that they are there.
        database.execute("insert into runs values (?, ?, '', 'damaged', '{}', null, null)", (key, stamp))
        return
    made = run.provenance
    status = str(made.get("status", "unknown"))
    database.execute(
        "insert into runs values (?, ?, ?, ?, ?, ?, ?)",
        (key, stamp, made.get("created", ""), status, json.dumps(run.recipe), made.get("seconds"), run.group),
    )
    database.executemany(
        "insert into rows values (?, ?, ?, ?, ?, ?)",
        [(key, r.measure, r.version, json.dumps(r.settings), json.dumps(r.value), r.unit) for r in run.rows],
    )


def _stamp(folder: Path) -> str:
    """Changes whenever rows were added or the run was written anew."""
    try:
        state = (folder / "measures.jsonl").stat()
    except OSError:
        return "none"
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ino}"


def _stamps(target: Path) -> dict[str, str]:
    """What the index knows; nothing where it is missing, damaged or of another version."""
    if not target.exists():
        return {}
    try:
        with _reading(target) as database:
            if database.execute("pragma user_version").fetchone()[0] != _SCHEMA_VERSION:
                return {}
            return dict(database.execute("select key, stamp from runs").fetchall())
    except sqlite3.DatabaseError:
        return {}


@contextlib.contextmanager
def _reading(target: Path) -> Iterator[sqlite3.Connection]:
    """The index, read without locks: the file behind the name never changes."""
    with contextlib.closing(sqlite3.connect(f"{target.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        yield database
