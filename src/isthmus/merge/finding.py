"""One thing to know about solutions before they are merged."""

from __future__ import annotations

import dataclasses
import enum

from isthmus.core.record import Record


class Severity(enum.Enum):
    """How much a finding weighs."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclasses.dataclass(frozen=True)
class Finding(Record):
    """One thing to know.

    Attributes:
        what: a short, stable name, such as ``unrelated``.
        severity: an ERROR means that a merge would be refused or meaningless.
        sentence: what was found.
        advice: what to do.
    """

    what: str
    severity: Severity
    sentence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.sentence}; {self.advice}"


def note(what: str, sentence: str, advice: str) -> Finding:
    """Something to know."""
    return Finding(what, Severity.NOTE, sentence, advice)


def warning(what: str, sentence: str, advice: str) -> Finding:
    """Something that may make the result wrong."""
    return Finding(what, Severity.WARNING, sentence, advice)


def error(what: str, sentence: str, advice: str) -> Finding:
    """Something that a merge would be refused for, or meaningless."""
    return Finding(what, Severity.ERROR, sentence, advice)
