"""How long-running functions say where they are, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the work done so far, all the work, and what is being done."""

    def __call__(self, done: float, total: float, label: str = "") -> None:
        """Hear of progress."""


def silent(done: float, total: float, label: str = "") -> None:
    """A listener that does not care; the default everywhere."""


def within(progress: Progress, place: int, parts: int) -> Progress:
    """A listener for part ``place`` of a piece of work that has several equal parts."""

    def told(done: float, total: float, label: str = "") -> None:
        progress(place + (done / total if total else 0.0), parts, label)

    return told
