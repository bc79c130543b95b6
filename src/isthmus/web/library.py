"""What the pages read: the store through its index, kept up to date by one thread, so that no reader waits for it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from isthmus.core.errors import IsthmusError
from isthmus.studies.store import index
from isthmus.studies.store.kept import Run
from isthmus.studies.store.progress import Told, heard
from isthmus.studies.store.query import Query
from isthmus.studies.store.store import Store

_Answer = TypeVar("_Answer")
_MOST_ANSWERS = 200  # pages of 50 runs each take about 0.3 MB
_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
_RESULT = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,120}")


@dataclasses.dataclass(frozen=True)
class StudyState:
    """How far a study is.

    Attributes:
        name: of the study.
        question: that it asks.
        keys: of its networks, in the order of the design.
        present: how many of them the store holds.
        told: what the process that runs it said last.
        running: whether that process is at work.
    """

    name: str
    question: str
    keys: tuple[str, ...]
    present: int
    told: Told | None
    running: bool

    @property
    def share(self) -> float:
        """Of the work that is done: as the study itself says while it runs, else of its networks."""
        if self.running and self.told is not None and self.told.total > 0:
            return min(1.0, self.told.done / self.told.total)
        return self.present / len(self.keys) if self.keys else 1.0


class Library:
    """One store, read by many."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.version = 0
        self._lock = threading.Lock()
        self._file = index.index_of(store)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._studies: tuple[StudyState, ...] = ()
        self._said: Any = None
        # Answers from the index as it stands; a new index empties it. Readers mostly ask for the same few lists.
        self._answers: dict[Any, Any] = {}

    def refresh(self) -> bool:
        """Bring everything up to date; whether anything changed. Only one thread at a time does the work."""
        with self._lock:
            changed = self._refresh_index()
            if changed:
                self._answers = {}
            studies = self._read_studies()
            results = tuple(entry.name for entry in self.results())
            now = (studies, results)
            if changed or now != self._said:
                self._studies, self._said = studies, now
                self.version += 1
                return True
            return False

    def close(self) -> None:
        """Remove the index that stood outside the store."""
        if self._folder is not None:
            self._folder.cleanup()

    def search(self, query: Query) -> index.Found:
        """The runs that fit a query."""
        if query.limit is None:  # all of them, for a table: too much to keep
            return index.search(self._file, query)
        return self._answered(query, lambda: index.search(self._file, query))

    def counts(self, field: str) -> dict[str, int]:
        """How many runs have each value of a field."""
        return self._answered(field, lambda: index.counts(self._file, field))

    def studies(self) -> tuple[StudyState, ...]:
        """Every study that used the store."""
        return self._studies

    def study(self, name: str) -> StudyState | None:
        """The study of a name."""
        return next((state for state in self._studies if state.name == name), None)

    def run(self, key: str) -> Run | None:
        """One run; ``None`` where there is none of this key.

        Raises:
            IsthmusError: it is damaged.
        """
        if not _KEY.fullmatch(key) or key not in self.store:
            return None
        return self.store.run(key)

    def results(self) -> list[Path]:
        """The files of results of whole questions, the newest first."""
        folder = self.store.path / "results"
        files = [file for file in folder.glob("*.json") if _RESULT.fullmatch(file.stem)] if folder.is_dir() else []
        stamped = []
        for file in files:
            with contextlib.suppress(OSError):
                stamped.append((file.stat().st_mtime_ns, file.name, file))
        return [file for _, _, file in sorted(stamped, reverse=True)]

    def result(self, name: str) -> Path | None:
        """The file of one result."""
        file = self.store.path / "results" / f"{name}.json"
        return file if _RESULT.fullmatch(name) and file.is_file() else None

    def _answered(self, question: Hashable, ask: Callable[[], _Answer]) -> _Answer:
        """An answer that was given before, or a new one. Two threads may ask at once: they get equal answers."""
        answers = self._answers
        found = answers.get(question)
        if found is None:
            found = ask()
            if len(answers) >= _MOST_ANSWERS:
                answers.clear()
            answers[question] = found
        return found

    def _refresh_index(self) -> int:
        try:
            return index.refresh(self.store, file=self._file)
        except IsthmusError:
            if self._folder is not None:
                raise
            # The store must not be written: its index lies elsewhere for as long as we read.
            self._folder = tempfile.TemporaryDirectory(prefix="isthmus-index-")
            self._file = Path(self._folder.name) / "index.sqlite"
            return index.refresh(self.store, file=self._file)

    def _read_studies(self) -> tuple[StudyState, ...]:
        present, told, now = set(self.store.keys), heard(self.store), time.time()
        states = []
        for name, content in _studies_of(self.store).items():
            keys = tuple(str(key) for key in content.get("keys", ()))
            design = content.get("design")
            question = str(design.get("question") or "") if isinstance(design, dict) else ""
            last = told.get(name)
            running = last is not None and last.running(now)
            states.append(StudyState(name, question, keys, len(present.intersection(keys)), last, running))
        return tuple(states)


def _studies_of(store: Store) -> dict[str, dict[str, Any]]:
    """The studies that can be read; a damaged one must not hide the others."""
    found = {}
    folder = store.path / "studies"
    for file in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                found[file.stem] = content
    return found
