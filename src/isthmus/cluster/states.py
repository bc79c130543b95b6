"""Groups of solutions: the dendrogram, a cut through it, and whether known families are found again."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.cluster.overlap import Overlaps
from isthmus.cluster.ultrametric import checked
from isthmus.core.errors import SettingError
from isthmus.core.record import Record

# Leaf orders that bring neighbours together cost networks⁴ at worst.
_MOST_ORDERED = 500


@dataclasses.dataclass(frozen=True)
class States(Record):
    """Solutions in groups.

    Attributes:
        names: of the solutions.
        state: the group of each, from 0 in the order of the drawing.
        merges: the dendrogram of average linkage in SciPy's form: (left, right, height, leaves) for each merge.
        order: leaves in the order in which a dendrogram or an ordered matrix shows them.
        height: where the tree was cut.
    """

    names: tuple[str, ...]
    state: tuple[int, ...]
    merges: Float[Tensor, "merges 4"]
    order: tuple[int, ...]
    height: float

    @property
    def count(self) -> int:
        """How many groups."""
        return len(set(self.state))


@dataclasses.dataclass(frozen=True)
class Recovery(Record):
    """Whether groups found without knowing the families are the families.

    Attributes:
        score: adjusted Rand index: 1 the same groups, 0 what chance gives.
        p: share of random assignments that score as high, counting this one.
        families: how many there are; the tree was cut into as many groups.
        state: the groups that were found.
    """

    score: float
    p: float
    families: int
    state: tuple[int, ...]


def states(overlaps: Overlaps, *, count: int | None = None, height: float | None = None) -> States:
    """Group solutions by average linkage of their distances.

    Args:
        overlaps: of at least two solutions.
        count: how many groups; not together with ``height``.
        height: distance at which to cut. By default the tree is cut in the middle of the longest stretch of heights
            between two merges. That always yields groups: ask ``hierarchy`` whether they mean anything.

    Raises:
        SettingError: both are given, or a count that cannot be.
    """
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    networks = len(overlaps.names)
    if count is not None and height is not None:
        raise SettingError("states are cut by count or by height, not by both")
    if count is not None and not 1 <= count <= networks:
        raise SettingError(f"count must lie in 1 … {networks} (the solutions), got {count}")
    pairs = squareform(checked(overlaps.distances), checks=False)
    merges = linkage(pairs, "average", optimal_ordering=networks <= _MOST_ORDERED)
    order = leaves_list(merges)
    heights = merges[:, 2]
    if count is not None:
        # Ties can make a cut by height yield fewer groups; taking merges off the top cannot.
        height = float(heights[networks - count - 1]) if count < networks else 0.0
        raw = _cut(merges, networks - count)
    else:
        if height is None:
            steps = np.diff(heights)
            top = int(steps.argmax()) if len(steps) else 0
            height = float(heights[top] + (steps[top] / 2 if len(steps) else 0.0))
        raw = fcluster(merges, height, "distance")
    first_seen: dict[int, int] = {}
    for leaf in order:
        first_seen.setdefault(int(raw[leaf]), len(first_seen))
    state = tuple(first_seen[int(group)] for group in raw)
    return States(overlaps.names, state, torch.from_numpy(merges), tuple(int(leaf) for leaf in order), height)


def recovery(
    overlaps: Overlaps, families: Sequence[Hashable], *, generator: torch.Generator, draws: int = 999
) -> Recovery:
    """Cut the tree of solutions into as many groups as there are known families and compare.

    Args:
        overlaps: of the solutions.
        families: the known family of each solution in ``overlaps.names``: seeds, spawn families, subsets of the data.
        generator: shuffles the families for the p-value.
        draws: shuffles.

    Raises:
        SettingError: not one family for each solution, or fewer than two families.

    Reference: Hubert and Arabie, "Comparing partitions" (1985).
    """
    if len(families) != len(overlaps.names):
        raise SettingError(f"families must name one for each of {len(overlaps.names)} solutions, got {len(families)}")
    names = {family: index for index, family in enumerate(dict.fromkeys(families))}
    if len(names) < 2:
        raise SettingError(f"recovery needs at least 2 families, got {len(names)}")
    known = np.array([names[family] for family in families])
    found = np.array(states(overlaps, count=len(names)).state)
    orders = torch.rand(draws, len(known), generator=generator).argsort(1).numpy()
    score, *shuffled = _adjusted_rand(np.vstack([known[None], known[orders]]), found).tolist()
    as_high = sum(each >= score - 1e-12 for each in shuffled)
    return Recovery(score, (1 + as_high) / (1 + draws), len(names), tuple(int(group) for group in found))


def _adjusted_rand(
    rows: Int[np.ndarray, "groupings networks"], found: Int[np.ndarray, " networks"]
) -> Float[np.ndarray, " groupings"]:
    """The adjusted Rand index of each of some groupings, all with groups of the same sizes, and the one found."""
    groups = (found[:, None] == np.unique(found)).astype(float)
    members = (rows[:, None, :] == np.unique(rows)[None, :, None]).astype(float)
    shared = _pairs(members @ groups).sum((1, 2))  # pairs of solutions that lie together in both groupings
    known, seen = _pairs(members[0].sum(1)).sum(), _pairs(groups.sum(0)).sum()
    chance, most = known * seen / _pairs(float(len(found))), (known + seen) / 2
    return (shared - chance) / (most - chance) if most > chance else np.ones(len(rows))


def _pairs(sizes: Any) -> Any:
    return sizes * (sizes - 1) / 2


def _cut(merges: Float[np.ndarray, "merges 4"], done: int) -> Float[np.ndarray, " networks"]:
    """The groups after the first ``done`` merges."""
    networks = len(merges) + 1
    members = {leaf: [leaf] for leaf in range(networks)}
    for step in range(done):
        left, right = int(merges[step, 0]), int(merges[step, 1])
        members[networks + step] = members.pop(left) + members.pop(right)
    groups = np.empty(networks, dtype=int)
    for group, leaves in enumerate(members.values()):
        groups[leaves] = group
    return groups
