"""Labels that move alike, and what lies inside and around them, whether anything may be exchanged or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Classes:
    """Labels that move alike, and what lies inside them.

    Attributes:
        of: the number of each label's class.
    """

    def __init__(self, count: int, ties: Sequence[np.ndarray], nests: Sequence[np.ndarray]) -> None:
        pairs, inner = (
            np.concatenate([part[:2] for part in parts], axis=1) if parts else np.zeros((2, 0), dtype=np.int64)
            for parts in (ties, nests)
        )
        graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(count, count))
        self.of = connected_components(graph, directed=False)[1]
        self._order = np.argsort(self.of, kind="stable")
        self._starts = np.searchsorted(self.of[self._order], np.arange(int(self.of.max(initial=-1)) + 2))
        edges = self.of[inner]
        edges = np.unique(edges[:, edges[0] != edges[1]], axis=1)
        self._inner = edges[:, np.argsort(edges[1], kind="stable")]

    def holding(self, labels: np.ndarray) -> np.ndarray:
        """Which classes hold one of some labels, or anything inside of them that might."""
        result = np.zeros(int(self.of.max(initial=-1)) + 1, dtype=bool)
        result[self.of[labels]] = True
        result[self._inner[1]] = True
        return result

    def labels(self, number: int) -> np.ndarray:
        """All labels of a class and of the classes that lie inside it, in order."""
        found, waiting = {number}, [number]
        while waiting:
            first, last = np.searchsorted(self._inner[1], [waiting[-1], waiting.pop() + 1])
            fresh = set(self._inner[0, first:last].tolist()) - found
            found |= fresh
            waiting += fresh
        parts = [self._order[self._starts[one] : self._starts[one + 1]] for one in found]
        return np.sort(np.concatenate(parts))

    def around(self, units: Sequence[np.ndarray]) -> list[list[int]]:
        """The classes that hold nothing but what is in one of several sets of labels, and are in none of them."""
        unit = np.full(int(self.of.max(initial=-1)) + 1, -1)
        for number, labels in enumerate(units):
            own = np.unique(self.of[labels])
            unit[own] = np.where(unit[own] < 0, number, len(units))
        found: list[list[int]] = [[] for _ in units]
        child, parent = self._inner
        starts = np.flatnonzero(np.r_[True, parent[1:] != parent[:-1]]) if len(parent) else parent
        if not len(starts):
            return found
        least, most = np.minimum.reduceat(unit[child], starts), np.maximum.reduceat(unit[child], starts)
        for one, low, high in zip(parent[starts].tolist(), least.tolist(), most.tolist(), strict=True):
            if low == high and 0 <= low < len(units) and unit[one] < 0:
                found[low].append(one)
        return found
