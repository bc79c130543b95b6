"""A SQLite table of what a store holds, for listings: a cache that is brought up to date on every use.

The folders are the truth. The file is never written in place: a new one is made beside it and renamed over it, and it
is read as immutable, so that no SQLite lock is ever taken, which network file systems do not keep reliably.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError, SettingError, UnwritableError
from isthmus.core.files import atomic
from isthmus.core.record import Record
from isthmus.studies.store.export import flat, numbers
from isthmus.studies.store.query import Query, conditions, order, path_of
from isthmus.studies.store.store import Store

_SCHEMA_VERSION = 2
# ``fields``: the flattened recipe and the run's own numbers, as JSON; ``said``: what a search looks through.
_SCHEMA = """
create table runs (
  key text primary key, stamp text, created text, status text, recipe text, fields text, said text, seconds real,
  rows integer
);
create index runs_by_age on runs (created, key);
"""
_COLUMNS = "key, created, status, recipe, seconds, rows, fields"


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
        fields: the recipe without nesting and the numbers measured on the run alone, by name.
    """

    key: str
    created: str
    status: str
    recipe: dict[str, Any]
    seconds: float | None
    rows: int
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Found(Record):
    """What a query found.

    Attributes:
        runs: the part that was asked for.
        total: how many fit in all.
    """

    runs: tuple[Listed, ...]
    total: int


def refresh(store: Store, *, file: Path | None = None) -> int:
    """Bring the index up to date with the folders; returns how many runs were read anew or had gone.

    Args:
        store: what is listed.
        file: where the index lies, for a store that must not be written; in the store by default.

    Raises:
        IsthmusError: the index cannot be written.

    Cost: one look at the state of every run's rows, and reading of those that changed.
    """
    target = file or index_of(store)
    kept = _stamps(target)
    known = kept or {}
    runs = str(store.path / "runs")
    present = {key: _stamp(f"{runs}/{key}") for key in store.keys}
    stale = [key for key, stamp in present.items() if known.get(key) != stamp]
    gone = [key for key in known if key not in present]
    if kept is not None and not stale and not gone:
        return 0
    with atomic(target) as temporary, _full_disks_in_words(target):
        if known:
            shutil.copyfile(target, temporary)
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            if not known:
                _lay_out(database)
            database.executemany("delete from runs where key = ?", [(key,) for key in (*gone, *stale)])
            for key in stale:
                _insert(database, store, key, present[key])
            database.commit()
    return len(stale) + len(gone)


def index_of(store: Store) -> Path:
    """Where the index of a store lies."""
    return store.path / "index.sqlite"


def listing(store: Store) -> list[Listed]:
    """All runs, the oldest first; of a store that cannot be written the folders are read instead of the index."""
    with _up_to_date(store) as file:
        return list(search(file, Query()).runs)


def search(file: Path, query: Query) -> Found:
    """The runs that fit a query, from an index as it stands; see :func:`refresh`.

    Raises:
        SettingError: offset or limit are negative.

    Cost: a pass over the index for words; a page in the order of age takes milliseconds with 100,000 runs.
    """
    if query.offset < 0 or (query.limit is not None and query.limit < 0):
        raise SettingError(f"offset and limit must not be negative, got {query.offset} and {query.limit}")
    where, values = conditions(query)
    with _reading(file) as database:
        total = database.execute(f"select count(*) from runs where {where}", values).fetchone()[0]
        by, place = order(query)
        limit = -1 if query.limit is None else query.limit
        found = database.execute(
            f"select {_COLUMNS} from runs where {where} order by {by} limit ? offset ?",
            [*values, *place, limit, query.offset],
        ).fetchall()
    return Found(tuple(_listed(row) for row in found), total)


def counts(file: Path, field: str) -> dict[str, int]:
    """How many runs have each value of a field, the most frequent first."""
    with _reading(file) as database:
        found = database.execute(
            "select json_extract(fields, ?) as value, count(*) from runs where value is not null "
            "group by value order by count(*) desc, value limit 200",
            [path_of(field)],
        ).fetchall()
    return {str(value): count for value, count in found}


def _listed(row: tuple[Any, ...]) -> Listed:
    key, created, status, recipe, seconds, rows, fields = row
    return Listed(key, created, status, json.loads(recipe), seconds, rows, json.loads(fields))


@contextlib.contextmanager
def _up_to_date(store: Store) -> Iterator[Path]:
    """The index after a refresh; where that is not allowed, one in a folder of its own."""
    try:
        refresh(store)
    except IsthmusError:
        with tempfile.TemporaryDirectory(prefix="isthmus-index-") as folder:
            file = Path(folder) / "index.sqlite"
            refresh(store, file=file)
            yield file
        return
    yield index_of(store)


@contextlib.contextmanager
def _full_disks_in_words(target: Path) -> Iterator[None]:
    """SQLite's complaint that the file cannot be written (a full disk, above all) as the error of any other file."""
    try:
        yield
    except sqlite3.OperationalError as problem:
        raise UnwritableError(f"{target} must be writable, but: {problem}; free some space") from problem


def _lay_out(database: sqlite3.Connection) -> None:
    database.executescript(_SCHEMA)
    database.execute(f"pragma user_version = {_SCHEMA_VERSION}")


def _insert(database: sqlite3.Connection, store: Store, key: str, stamp: str) -> None:
    statement = "insert into runs values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    try:
        run = store.run(key)
    except IsthmusError:
        # Damaged runs are for ``verify`` to name; a listing shows that they are there.
        database.execute(
            statement, (key, stamp, "", "damaged", "{}", '{"status": "damaged"}', f"{key} damaged", None, 0)
        )
        return
    made = run.provenance
    status = str(made.get("status", "unknown"))
    # Rows about another run as well (a pair) say nothing about this run alone.
    alone = {name: value for row in run.rows if "other" not in row.settings for name, value in numbers(row).items()}
    fields = {**flat(run.recipe), **alone, "status": status, "seconds": made.get("seconds")}
    measures = " ".join(sorted({row.measure for row in run.rows}))
    said = " ".join([key, status, *(str(value) for value in flat(run.recipe).values()), measures]).lower()
    database.execute(
        statement,
        (
            key, stamp, made.get("created", ""), status, json.dumps(run.recipe), json.dumps(fields), said,
            made.get("seconds"), len(run.rows),
        ),
    )  # fmt: skip


def _stamp(folder: str) -> str:
    """Changes whenever rows were added or the run was written anew."""
    try:
        # Asked for every run at every refresh: no ``Path`` is made for it.
        state = os.stat(f"{folder}/measures.jsonl")
    except OSError:
        return "none"
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ino}"


def _stamps(target: Path) -> dict[str, str] | None:
    """What the index knows; ``None`` where it is missing, damaged or of another version."""
    if not target.exists():
        return None
    try:
        with _reading(target) as database:
            if database.execute("pragma user_version").fetchone()[0] != _SCHEMA_VERSION:
                return None
            return dict(database.execute("select key, stamp from runs").fetchall())
    except sqlite3.DatabaseError:
        return None


@contextlib.contextmanager
def _reading(target: Path) -> Iterator[sqlite3.Connection]:
    """The index, read without locks: the file behind the name never changes."""
    with contextlib.closing(sqlite3.connect(f"{target.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        yield database
