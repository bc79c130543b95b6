"""Colour refinement on the forest: whole subtrees compared by 64-bit hashes.

Positions in a split axis (the channels of one head) count only for what holds a slice as a whole: a head that moves
takes its channels along in their places. Inside a slice positions are free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from isthmus.discover.families import Family
from isthmus.discover.hashing import hashed, summed


@dataclasses.dataclass(frozen=True, eq=False)
class Lying:
    """Where labels lie in split axes.

    Attributes:
        node: the node of each label.
        place: a hash of its position and of which of its node's labels it is.
        position: the position itself.
        depth: the level of the innermost node that holds all of the label's slice; -1 if none does.
    """

    node: np.ndarray
    place: np.ndarray
    position: np.ndarray
    depth: np.ndarray


def lying_of(
    families: Sequence[Family], node: np.ndarray, rank: np.ndarray, parent: np.ndarray, level: np.ndarray
) -> Lying:
    """Where all labels of split axes lie; ``rank`` is their place among the labels of their node."""
    parts = [
        (
            node[family.start : family.stop],
            hashed(
                np.full(family.stop - family.start, family.start), family.positions, rank[family.start : family.stop]
            ),
            family.positions,
            _holding(node[family.start : family.stop], family.slices[1], parent, level),
        )
        for family in families
        if family.slices is not None and family.positions is not None
    ]
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Lying(none, none.view(np.uint64), none, none)
    return Lying(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _holding(at: np.ndarray, slices: np.ndarray, parent: np.ndarray, level: np.ndarray) -> np.ndarray:
    """For each label the level of the innermost node that holds all of its slice, -1 without."""
    which = np.unique(slices, return_inverse=True)[1].reshape(-1)
    at = at.copy()
    number = int(which.max()) + 1
    while True:
        low, high = np.full(number, np.iinfo(np.int64).max), np.full(number, -1)
        np.minimum.at(low, which, at)
        np.maximum.at(high, which, at)
        apart = (low != high)[which] & (at >= 0)
        if not apart.any():
            return np.where((low == high)[which] & (at >= 0), level[at], -1)
        deepest = np.full(number, -1)
        np.maximum.at(deepest, which[apart], level[at[apart]])
        climbing = apart & (np.where(at >= 0, level[at], -1) == deepest[which])
        at[climbing] = parent[at[climbing]]


def refine(parent: np.ndarray, level: np.ndarray, own: np.ndarray, lying: Lying) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of whole subtrees: as siblings see each other, and as the parent sees them."""
    sibling, inner = own.copy(), own.copy()
    for depth in range(int(level.max()) + 1 if len(level) else 0):
        counted = lying.depth >= depth
        seen = own + summed(lying.node[counted], lying.place[counted], len(own))
        for below in range(int(level.max()), depth, -1):
            here = np.flatnonzero(level == below)
            total = summed(parent[here], hashed(seen[here]), len(parent))
            touched = np.unique(parent[here])
            seen[touched] = hashed(seen[touched], total[touched])
        here = level == depth
        sibling[here] = seen[here]
        inner[level == depth + 1] = seen[level == depth + 1]
    return sibling, inner
