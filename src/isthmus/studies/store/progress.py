"""How far a study is, told by the process that runs it to whoever looks at the store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time

from isthmus.core.errors import IsthmusError
from isthmus.core.files import write_text
from isthmus.core.record import Record, to_json
from isthmus.studies.store.store import Store

# A listener looks every second or two; to write more often would only load a network file system.
_EVERY = 1.0
# A running study tells at least every few seconds, also while a long training goes on.
_SILENT_AFTER = 60.0


@dataclasses.dataclass(frozen=True)
class Told(Record):
    """The last that a running study said.

    Attributes:
        done: work that is done, in training steps.
        total: all the work of this run of the study.
        label: what was done last.
        at: when, seconds since 1970.
        over: whether the run ended; ``False`` with an old ``at`` is a process that was killed.
    """

    done: float
    total: float
    label: str
    at: float
    over: bool

    def running(self, now: float | None = None) -> bool:
        """Whether the process that told this is still at it, as far as its silence says."""
        return not self.over and (time.time() if now is None else now) - self.at < _SILENT_AFTER


class Teller:
    """Tells of one run of a study; at most once a second, whatever is said more often."""

    def __init__(self, store: Store, study: str) -> None:
        self._file = store.path / "progress" / f"{study}.json"
        self._last = Told(0.0, 0.0, "", 0.0, False)

    def say(self, done: float, total: float, label: str = "") -> None:
        """Tell how far the study is."""
        if time.time() - self._last.at >= _EVERY:
            self._write(Told(done, total, label or self._last.label, time.time(), False))

    def again(self) -> None:
        """Tell that the study is still at work."""
        self.say(self._last.done, self._last.total)

    def close(self) -> None:
        """Tell that this run of the study has ended."""
        self._write(dataclasses.replace(self._last, at=time.time(), over=True))

    def _write(self, told: Told) -> None:
        self._last = told
        # Who runs a study must not lose it because nobody could be told.
        with contextlib.suppress(IsthmusError):
            write_text(self._file, to_json(told) + "\n")


def heard(store: Store) -> dict[str, Told]:
    """What was last told of each study; what cannot be read is left out."""
    folder = store.path / "progress"
    found = {}
    for file in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, TypeError):
            content = json.loads(file.read_text(encoding="utf-8"))
            content.pop("kind", None)
            found[file.stem] = Told(**content)
    return found
