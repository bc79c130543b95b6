"""What is looked at in solutions before they are merged, one function for each subject."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from isthmus.core.errors import listed
from isthmus.merge.carry import tokenizers_differ
from isthmus.merge.finding import Finding, error, note, warning
from isthmus.merge.fitting import running_statistic, vocabulary
from isthmus.merge.views import View

# Rules of thumb, not tests: independently initialised layers have cosines near zero, briefly fine-tuned ones near one.
UNRELATED, CLOSE = 0.1, 0.9


def relations(
    cosines: Mapping[str, float], aligned: Mapping[str, float], deltas: Mapping[str, float], *, base: bool
) -> list[Finding]:
    """Do the solutions lie near each other?"""
    if not cosines:
        return []
    after = float(np.median(list(aligned.values()))) if aligned else None
    found = [_nearness(float(np.median(list(cosines.values()))), after)]
    if base and deltas and float(np.median(list(deltas.values()))) < -0.2:
        found.append(
            warning(
                "opposed",
                f"the solutions changed the base in opposite directions "
                f"(median cosine {np.median(list(deltas.values())):.2f})",
                "a sum of their task vectors undoes both; elect signs (TIES) or keep them apart",
            )
        )
    return found


def _nearness(middle: float, after: float | None) -> Finding:
    """What the median cosine of the layers says, as they are and, where that was tried, once aligned."""
    if middle >= CLOSE:
        return note(
            "one base",
            f"the solutions were fine-tuned from one base (median cosine of their layers {middle:.3f})",
            "aligning them would change nothing: the identity is the best permutation",
        )
    if middle < UNRELATED and after is not None and after > 2 * max(middle, UNRELATED):
        return warning(
            "permuted",
            f"layers are unrelated as they are (cosine {middle:.3f}) but not once aligned ({after:.3f})",
            "align them first, then merge",
        )
    if middle < UNRELATED and after is not None:
        return warning(
            "unrelated",
            f"the solutions are unrelated (median cosine of their layers {middle:.3f}, {after:.3f} once aligned)",
            "keep them apart as an ensemble, unless a barrier measured between the aligned ones says otherwise",
        )
    if middle < UNRELATED:
        return warning(
            "unrelated",
            f"the solutions are unrelated entry by entry (median cosine of their layers {middle:.3f})",
            "align them first, or keep them apart as an ensemble: their average is no working network",
        )
    return warning(
        "far apart",
        f"the solutions are far from each other (median cosine of their layers {middle:.3f})",
        "measure the barrier between them before you trust their average",
    )


def structure(views: Sequence[View]) -> list[Finding]:
    """Tensors, shapes, vocabulary and tokenizers."""
    found = [finding for other in views[1:] for finding in _misfits(views[0], other)]
    if tokenizers_differ([view.folder for view in views]):
        found.append(
            warning(
                "other tokenizers",
                "the models have different tokenizers",
                "rows of the embeddings may stand for different tokens: compare the tokenizers first",
            )
        )
    return found


def _misfits(first: View, other: View) -> Iterator[Finding]:
    """What of two solutions has not the same name or shape."""
    both = f"{first.what} and {other.what}"
    names = set(first.shapes) ^ set(other.shapes)
    heads = {name for name in names if re.search(r"lm_head|embed_out", name)}
    if names - heads:
        yield error(
            "other tensors",
            f"{both} hold different tensors ({listed(sorted(names), 3)})",
            "merge only networks of one architecture",
        )
    if heads:
        yield error(
            "half tied",
            f"of {both} one ties its output layer to the embedding",
            "untie both or neither before merging",
        )
    differing = [n for n, s in first.shapes.items() if n in other.shapes and other.shapes[n] != s]
    if words := [name for name in differing if vocabulary(name)]:
        shapes = f"{first.shapes[words[0]]} and {other.shapes[words[0]]}"
        yield error(
            "other vocabulary",
            f"the vocabularies of {both} differ: {words[0]} is {shapes}",
            "bring both to one tokenizer first: the same tokens in the same rows",
        )
    if rest := [name for name in differing if not vocabulary(name)]:
        yield error(
            "other shapes",
            f"{both} differ in the shape of {listed(rest, 3)}",
            "merge only networks of one width and depth",
        )


def statistics(views: Sequence[View]) -> list[Finding]:
    """Running statistics among the tensors."""
    names = [name for name in views[0].shapes if running_statistic(name)]
    if not names:
        return []
    return [
        warning(
            "batch statistics",
            f"{len(names)} tensors are running statistics of BatchNorm ({names[0]}, …), which no average gets right",
            "estimate them anew on training data after merging, or repair the variances",
        )
    ]


def ties(views: Sequence[View]) -> list[Finding]:
    """Two names for one tensor must stay equal in the merge; a filter by name would part them."""
    pairs = []
    for view in views[:1]:
        words = [n for n in view.shapes if vocabulary(n) and n in view.floating and len(view.shapes[n]) == 2]
        for a, b in itertools.combinations(words, 2):
            if view.shapes[a] == view.shapes[b] and np.array_equal(view.sample(a), view.sample(b)):
                pairs.append((a, b))
    return [
        note(
            "tied weights",
            f"{a} and {b} hold the same numbers: they are tied",
            "give both the same weights and densities; a filter that names only one would part them",
        )
        for a, b in pairs
    ]


def not_finite(views: Sequence[View], sampled: Sequence[str]) -> list[Finding]:
    """NaN and infinities: in memory anywhere, on disk in what is sampled."""
    found = []
    for view in views:
        names = sampled if view.weights is None else [name for name in view.shapes if name in view.floating]
        if view.weights is None:
            bad = [name for name in names if not np.isfinite(view.sample(name)).all()]
        else:
            bad = [name for name in names if not bool(view.weights[name].isfinite().all())]
        if bad:
            found.append(
                error(
                    "not finite",
                    f"{view.what} holds NaN or infinities in {listed(bad, 3)}",
                    "leave it out, or take an earlier checkpoint",
                )
            )
    return found
