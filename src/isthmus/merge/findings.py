"""What to know about solutions before they are merged: are they related, and what will not survive the average?

Reads a sample, not everything, and needs neither torch nor memory for a whole model when the solutions are on disk.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.errors import CheckpointError, listed
from isthmus.core.record import Record
from isthmus.merge.carry import tokenizers_differ
from isthmus.merge.fitting import running_statistic, vocabulary
from isthmus.merge.shards import Shards
from isthmus.merge.views import View, cosine, pairs, sampled_names, view_of

if TYPE_CHECKING:
    from isthmus.core.weights import Weights

# Rules of thumb, not tests: independently initialised layers have cosines near zero, briefly fine-tuned ones near one.
_UNRELATED, _CLOSE = 0.1, 0.9


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
    if aligner is not None and sampled and np.median(list(cosines.values())) < _CLOSE:
        moved = [
            view if place == 0 else view_of(aligner(view.weights, views[0].weights), view.what)
            for place, view in enumerate(views)
        ]
        aligned = {name: min(cosine(a, b) for a, b in pairs([v.sample(name) for v in moved])) for name in sampled}
    found = [
        *_relations(cosines, aligned, deltas, base=base is not None),
        *_structure(every),
        *_statistics(views),
        *_ties(every),
        *_not_finite(every, sampled),
    ]
    order = list(Severity)[::-1]
    found.sort(key=lambda finding: order.index(finding.severity))
    return Findings(tuple(found), cosines, deltas, aligned)


def _relations(
    cosines: Mapping[str, float], aligned: Mapping[str, float], deltas: Mapping[str, float], *, base: bool
) -> list[Finding]:
    """Do the solutions lie near each other?"""
    if not cosines:
        return []
    middle = float(np.median(list(cosines.values())))
    if middle >= _CLOSE:
        found = [
            _note(
                "one base",
                f"the solutions were fine-tuned from one base (median cosine of their layers {middle:.3f})",
                "aligning them would change nothing: the identity is the best permutation",
            )
        ]
    elif middle < _UNRELATED and aligned and float(np.median(list(aligned.values()))) > 2 * max(middle, _UNRELATED):
        after = float(np.median(list(aligned.values())))
        found = [
            _warning(
                "permuted",
                f"layers are unrelated as they are (cosine {middle:.3f}) but not once aligned ({after:.3f})",
                "align them first, then merge",
            )
        ]
    elif middle < _UNRELATED:
        found = [
            _warning(
                "unrelated",
                f"the solutions are unrelated entry by entry (median cosine of their layers {middle:.3f})",
                "align them first, or keep them apart as an ensemble: their average is no working network",
            )
        ]
    else:
        found = [
            _warning(
                "far apart",
                f"the solutions are far from each other (median cosine of their layers {middle:.3f})",
                "measure the barrier between them before you trust their average",
            )
        ]
    if base and deltas and float(np.median(list(deltas.values()))) < -0.2:
        found.append(
            _warning(
                "opposed",
                f"the solutions changed the base in opposite directions "
                f"(median cosine {np.median(list(deltas.values())):.2f})",
                "a sum of their task vectors undoes both; elect signs (TIES) or keep them apart",
            )
        )
    return found


def _structure(views: Sequence[View]) -> list[Finding]:
    """Tensors, shapes, vocabulary and tokenizers."""
    first, found = views[0], []
    for other in views[1:]:
        names = set(first.shapes) ^ set(other.shapes)
        heads = {name for name in names if re.search(r"lm_head|embed_out", name)}
        if names - heads:
            found.append(
                _error(
                    "other tensors",
                    f"{first.what} and {other.what} hold different tensors ({listed(sorted(names), 3)})",
                    "merge only networks of one architecture",
                )
            )
        if heads:
            found.append(
                _error(
                    "half tied",
                    f"of {first.what} and {other.what} one ties its output layer to the embedding",
                    "untie both or neither before merging",
                )
            )
        differing = [n for n, s in first.shapes.items() if n in other.shapes and other.shapes[n] != s]
        if words := [name for name in differing if vocabulary(name)]:
            shapes = f"{first.shapes[words[0]]} and {other.shapes[words[0]]}"
            found.append(
                _error(
                    "other vocabulary",
                    f"the vocabularies of {first.what} and {other.what} differ: {words[0]} is {shapes}",
                    "bring both to one tokenizer first: the same tokens in the same rows",
                )
            )
        if rest := [name for name in differing if not vocabulary(name)]:
            found.append(
                _error(
                    "other shapes",
                    f"{first.what} and {other.what} differ in the shape of {listed(rest, 3)}",
                    "merge only networks of one width and depth",
                )
            )
    if tokenizers_differ([view.folder for view in views]):
        found.append(
            _warning(
                "other tokenizers",
                "the models have different tokenizers",
                "rows of the embeddings may stand for different tokens: compare the tokenizers first",
            )
        )
    return found


def _statistics(views: Sequence[View]) -> list[Finding]:
    names = [name for name in views[0].shapes if running_statistic(name)]
    if not names:
        return []
    return [
        _warning(
            "batch statistics",
            f"{len(names)} tensors are running statistics of BatchNorm ({names[0]}, …), which no average gets right",
            "estimate them anew on training data after merging, or repair the variances",
        )
    ]


def _ties(views: Sequence[View]) -> list[Finding]:
    """Two names for one tensor must stay equal in the merge; trimming or random masks by name would part them."""
    pairs = []
    for view in views[:1]:
        words = [n for n in view.shapes if vocabulary(n) and n in view.floating and len(view.shapes[n]) == 2]
        for a, b in itertools.combinations(words, 2):
            if view.shapes[a] == view.shapes[b] and np.array_equal(view.sample(a), view.sample(b)):
                pairs.append((a, b))
    return [
        _note(
            "tied weights",
            f"{a} and {b} hold the same numbers: they are tied",
            "merge both in the same way; random masks (DARE) would part them",
        )
        for a, b in pairs
    ]


def _not_finite(views: Sequence[View], sampled: Sequence[str]) -> list[Finding]:
    found = []
    for view in views:
        names = sampled if view.weights is None else [name for name in view.shapes if name in view.floating]
        if view.weights is None:
            bad = [name for name in names if not np.isfinite(view.sample(name)).all()]
        else:
            bad = [name for name in names if not bool(view.weights[name].isfinite().all())]
        if bad:
            found.append(
                _error(
                    "not finite",
                    f"{view.what} holds NaN or infinities in {listed(bad, 3)}",
                    "leave it out, or take an earlier checkpoint",
                )
            )
    return found


def _note(what: str, sentence: str, advice: str) -> Finding:
    return Finding(what, Severity.NOTE, sentence, advice)


def _warning(what: str, sentence: str, advice: str) -> Finding:
    return Finding(what, Severity.WARNING, sentence, advice)


def _error(what: str, sentence: str, advice: str) -> Finding:
    return Finding(what, Severity.ERROR, sentence, advice)
