"""What a matcher returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from isthmus.align.ascent import Ascent
from isthmus.align.landscape import Landscape
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Match(Record):
    """A permutation that brings one solution to another, and how it was found.

    Attributes:
        permutation: for the moving solution: ``permutation.apply(moving)`` is like ``fixed``.
        objective: the similarity that was reached, in the matcher's own measure (``measure``); larger is better.
        identity_objective: the same measure without permuting anything; never above ``objective``.
        upper_bound: no permutation can reach more: the sum of assignments that are free of each other. NaN where the
            matcher knows none.
        measure: what the objective is, in words.
        sweeps: passes over the groups.
        status: whether no group would move any more.
        unsettled: groups that would still move, or were not looked at again after a neighbour moved.
        history: the objective after each sweep, from the start that won.
        seconds: time spent on each group.
        method: the matcher's name.
        settings: its settings.
        notes: what the reader should know, such as groups that were matched in another way.
    """

    permutation: Permutation = dataclasses.field(metadata={"record": False})
    objective: float
    identity_objective: float
    upper_bound: float
    measure: str
    sweeps: int
    status: Status
    unsettled: tuple[str, ...]
    history: tuple[float, ...]
    seconds: Mapping[str, float]
    method: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """How much the objective rose above the identity's."""
        return self.objective - self.identity_objective

    def aligned(self, moving: Weights) -> dict[str, torch.Tensor]:
        """The moving solution in the fixed one's order."""
        return self.permutation.apply(moving)


class Matcher(Protocol):
    """Two solutions of one symmetry → the permutation that brings the first to the second."""

    def __call__(
        self,
        symmetry: Symmetry,
        moving: Weights,
        fixed: Weights,
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> Match:
        """Match two solutions."""
        ...


def settings_of(method: Any) -> dict[str, Any]:
    """A method's settings as plain values: fields that hold data (networks, inputs) are left out."""
    kept = {}
    for field in dataclasses.fields(method):
        entry = getattr(method, field.name)
        if isinstance(entry, str | int | float | bool | tuple) or entry is None:
            kept[field.name] = entry
        elif dataclasses.is_dataclass(entry) and field.metadata.get("settings", False):
            kept[field.name] = {"method": type(entry).__name__, **settings_of(entry)}
    return kept


def finished(
    landscape: Landscape,
    ascents: Sequence[Ascent],
    *,
    bound: float,
    measure: str,
    method: str,
    settings: dict[str, Any],
) -> Match:
    """The result of climbs on one landscape: the best of them, or the identity if none came above it."""
    best = max(ascents, key=lambda ascent: ascent.history[-1])
    identity = landscape.objective(landscape.moving)
    kept = best.history[-1] >= identity
    return Match(
        permutation=best.answer if kept else landscape.stacking.original.identity(),
        objective=max(best.history[-1], identity),
        identity_objective=identity,
        upper_bound=bound,
        measure=measure,
        sweeps=len(best.history) - 1,
        status=best.status,
        unsettled=tuple(sorted(best.unsettled)),
        history=tuple(best.history),
        seconds={name: sum(ascent.seconds[name] for ascent in ascents) for name in best.seconds},
        method=method,
        settings=settings,
        notes=() if kept else ("no ascent came above the identity, which is returned",),
    )
