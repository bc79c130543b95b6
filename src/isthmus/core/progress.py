"""How long-running functions say where they are, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the work done so far, all the work, and what is being done."""

    def __call__(self, done: float, total: float, label: str = "") -> None:
        """Hear of progress."""


def silent(done: float, total: float, label: str = "") -> None:
    """A listener that does not care; the default everywhere."""


def within(progress: Progress, before: float, whole: float, *, share: float = 1.0, label: str = "") -> Progress:
    """A listener for one part of a larger piece of work.

    Args:
        progress: hears of the whole.
        before: what of the whole is done before the part begins.
        whole: all of it, often as many as there are equal parts.
        share: what of the whole the part is.
        label: what the part is called; stands before what it says of itself.
    """
    name = label

    def told(done: float, total: float, label: str = "") -> None:
        progress(before + share * (done / total if total else 0.0), whole, f"{name} {label}".strip())

    return told
