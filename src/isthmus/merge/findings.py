"""What to know about solutions before they are merged: are they related, and what will not survive the average?

Reads a sample, not everything, and needs neither torch nor memory for a whole model when the solutions are on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.errors import CheckpointError
from isthmus.core.record import Record
from isthmus.merge import inspections
from isthmus.merge.finding import Finding, Severity
from isthmus.merge.shards import Shards
from isthmus.merge.views import cosine, pairs, sampled_names, view_of

if TYPE_CHECKING:
    from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True)
class Findings(Record):
    """Everything that was found.

    Attributes:
        findings: the heaviest first.
        weight_cosines: smallest cosine between any two solutions, of each sampled tensor.
        delta_cosines: mean cosine of two solutions' differences from the base, likewise; empty without base.
        aligned_cosines: as ``weight_cosines``, after aligning to the first solution; empty without aligner.
    """

    findings: tuple[Finding, ...]
    weight_cosines: Mapping[str, float]
    delta_cosines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    aligned_cosines: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def worst(self) -> Severity:
        """The heaviest severity; NOTE where nothing was found."""
        order = list(Severity)
        return max((finding.severity for finding in self.findings), key=order.index, default=Severity.NOTE)

    def __contains__(self, what: str) -> bool:
        return any(finding.what == what for finding in self.findings)


def examine(
    solutions: Sequence[Weights | Shards | str | Path],
    base: Weights | Shards | str | Path | None = None,
    *,
    aligner: Callable[[Any, Any], Any] | None = None,
) -> Findings:
    """Look at solutions before the expensive part.

    Args:
        solutions: at least two, as weights, opened shards or paths.
        base: what they are said to have started from.
        aligner: (moving, fixed) → moving; solutions in memory that look unrelated are aligned and compared again.

    Raises:
        CheckpointError: fewer than two solutions, or files that cannot be read.

    Cost: reads some megabytes of each solution; weights in memory are searched for NaN entirely.
    """
    views = [view_of(solution, f"solution {place}") for place, solution in enumerate(solutions)]
    if len(views) < 2:
        raise CheckpointError(f"an examination compares at least two solutions, got {len(views)}")
    origin = view_of(base, "the base") if base is not None else None
    every = [*views, *([origin] if origin is not None else [])]
    sampled = sampled_names(every)
    cosines = {name: min(cosine(a, b) for a, b in pairs([v.sample(name) for v in views])) for name in sampled}
    deltas = {}
    if origin is not None:
        for name in sampled:
            start = origin.sample(name)
            differences = [view.sample(name) - start for view in views]
            deltas[name] = float(np.mean([cosine(a, b) for a, b in pairs(differences)]))
    aligned = {}
    if aligner is not None and sampled and np.median(list(cosines.values())) < inspections.CLOSE:
        moved = [
            view if place == 0 else view_of(aligner(view.weights, views[0].weights), view.what)
            for place, view in enumerate(views)
        ]
        aligned = {name: min(cosine(a, b) for a, b in pairs([v.sample(name) for v in moved])) for name in sampled}
    found = [
        *inspections.relations(cosines, aligned, deltas, base=base is not None),
        *inspections.structure(every),
        *inspections.statistics(views),
        *inspections.ties(every),
        *inspections.not_finite(every, sampled),
    ]
    order = list(Severity)[::-1]
    found.sort(key=lambda finding: order.index(finding.severity))
    return Findings(tuple(found), cosines, deltas, aligned)
