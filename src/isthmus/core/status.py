"""How an iteration ended and what to do about it."""

from __future__ import annotations

import enum


class Status(enum.Enum):
    """The end of an iterative method; ``advice`` says what to do next."""

    CONVERGED = "converged"
    STOPPED = "stopped"
    DIVERGED = "diverged"

    @property
    def advice(self) -> str:
        """One sentence for the user."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The stopping rule was met; nothing needs to be done.",
    Status.STOPPED: "The limit of iterations came first; raise it, or accept the accuracy that the result states.",
    Status.DIVERGED: "Values left the finite range; lower the step size or check the data for NaN.",
}
