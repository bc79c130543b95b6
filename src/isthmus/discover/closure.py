"""Closing the demands: ties followed through, one parent for each node, parents that cross settled."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isthmus.discover.hashing import hashed, summed


@dataclasses.dataclass(eq=False)
class Closure:
    """The state of closing the demands: labels (some made on the way), ties, nests as edges, marks and cells.

    Cells are columns (child, one parent, other parent, number of the crossing).
    """

    number: int
    pairs: list[np.ndarray]
    edges: np.ndarray
    marks: list[np.ndarray]
    cells: np.ndarray
    node: np.ndarray


def close(number: int, ties: np.ndarray, nests: np.ndarray, marks: np.ndarray) -> Closure:
    """Nodes and at most one parent for each: parents of a common child are tied, nested in each other, or cross."""
    none = np.zeros((4, 0), dtype=np.int64)
    state = Closure(number, [ties[:2]], nests, [], none, none[0])
    while True:
        node = state.node = components(state.number, np.concatenate(state.pairs, axis=1))
        lifted = np.stack([node[state.edges[0]], node[state.edges[1]], state.edges[2]])
        lifted = lifted[:, lifted[0] != lifted[1]]
        loops = _loops(int(node.max()) + 1 if len(node) else 0, lifted)
        if loops is not None:
            state.pairs.append(_representatives(node, loops))
            continue
        if (alone := _alone(lifted)).shape[1]:
            state.pairs.append(_representatives(node, alone))
            continue
        lifted = _first_of(lifted)
        if not _resolve(state, lifted, _marks_of(node, marks, state.marks)):
            state.edges = lifted
            return state


def _resolve(state: Closure, edges: np.ndarray, marks: np.ndarray) -> bool:  # noqa: D417
    """Decide for children with several parents how the parents stand to each other; whether there were any.

    Args:
        marks: a hash of the marks of each node.
    """
    kinds = _pairs_of_parents(edges)
    if not kinds:
        return False
    first = first_label(state.node)
    keep = np.ones(edges.shape[1], dtype=bool)
    added: list[np.ndarray] = []
    crossing = []
    for one, other in kinds:
        a, b = edges[1, one], edges[1, other]
        pairs = np.unique(np.stack([a, b]), axis=1)
        n, m, count = len(np.unique(a)), len(np.unique(b)), pairs.shape[1]
        relation = np.full(count, edges[2, one[0]])
        if count == n == m:
            state.pairs.append(first[pairs])
        elif count == n:  # each a lies in one b
            added.append(np.stack([pairs[0], pairs[1], relation]))
            keep[other] = False
        elif count == m:
            added.append(np.stack([pairs[1], pairs[0], relation]))
            keep[one] = False
        else:
            crossing.append((one, other))
    if len(crossing) == len(kinds) and not _drop_marked(state, edges, marks, crossing, keep, first):
        added += _cross_all(state, edges, marks, crossing, keep, first)
    old = np.stack([first[edges[0]], first[edges[1]], edges[2]])[:, keep]
    new = [np.stack([_label(first, e[0]), _label(first, e[1]), e[2]]) for e in added]
    state.edges = np.concatenate([old, *new], axis=1)
    return True


def _cross_all(  # noqa: PLR0917
    state: Closure,
    edges: np.ndarray,
    marks: np.ndarray,
    crossing: list[tuple[np.ndarray, np.ndarray]],
    keep: np.ndarray,
    first: np.ndarray,
) -> list[np.ndarray]:
    """Settle crossings, each child once in a round."""
    inner = np.zeros(len(first), dtype=bool)
    inner[edges[1]] = True
    inner[state.node[state.cells[:3]].reshape(-1)] = True
    used = np.zeros(len(first), dtype=bool)
    added = []
    for one, other in crossing:
        child = edges[0, one]
        if used[child].any():
            continue
        used[child] = True
        keep[one] = keep[other] = False
        columns = np.stack([child, edges[1, one], edges[1, other], edges[2, one]])
        added.append(_cross(state, first, marks, columns, leaves=not inner[child].any()))
    return added


def _marks_of(node: np.ndarray, marks: np.ndarray, made: list[np.ndarray]) -> np.ndarray:
    marks = np.concatenate([marks, *made], axis=1)
    return summed(node[marks[0]], hashed(marks[1]), int(node.max()) + 1 if len(node) else 0)


def _pairs_of_parents(edges: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of edges from one child (sorted by child), by the two relations that made them."""
    child = edges[0]
    ones, others = [], []
    apart = 1
    while len(child) > apart and (same := np.flatnonzero(child[apart:] == child[:-apart])).size:
        ones.append(same)
        others.append(same + apart)
        apart += 1
    if not ones:
        return []
    one, other = np.concatenate(ones), np.concatenate(others)
    kind = np.unique(np.stack([edges[2, one], edges[2, other]]), axis=1, return_inverse=True)[1].reshape(-1)
    order = np.argsort(kind, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(kind[order])) + 1)
    return [(one[run], other[run]) for run in runs]


def _drop_marked(  # noqa: PLR0917
    state: Closure,
    edges: np.ndarray,
    marks: np.ndarray,
    crossing: list[tuple[np.ndarray, np.ndarray]],
    keep: np.ndarray,
    first: np.ndarray,
) -> bool:
    """Where children's marks alone already keep them in their parents, these parents stand still and need no edge."""
    used = np.zeros(len(first), dtype=bool)
    for kind in crossing:
        if used[edges[0, kind[0]]].any():
            continue
        for side in kind:
            child, above = edges[0, side], edges[1, side]
            pairs = np.unique(np.stack([marks[child].view(np.int64), above]), axis=1)
            if len(np.unique(pairs[0])) == pairs.shape[1]:
                names = first[np.unique(above)]
                state.marks.append(np.stack([names, hashed(names).view(np.int64)]))
                keep[side] = False
                used[child] = True
                break
    return bool(used.any())


def _orders(marks: np.ndarray, side: np.ndarray) -> float:
    """Logarithm of how many orders of some nodes their marks allow."""
    return sum(math.lgamma(count + 1) for count in np.unique(marks[np.unique(side)], return_counts=True)[1].tolist())


def _label(first: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """A label of each node; negative numbers are labels made on the way."""
    return np.where(nodes < 0, -nodes - 1, first[np.maximum(nodes, 0)])


def _cross(state: Closure, first: np.ndarray, marks: np.ndarray, columns: np.ndarray, *, leaves: bool) -> np.ndarray:
    """Parents that cross: a full grid with one leaf in each cell moves with both; otherwise one kind stands still.

    Returns:
        Edges from parents to what encloses their grid; ends that are new labels as -label - 1.
    """
    child, a, b, relation = columns
    pairs, counts = np.unique(np.stack([a, b]), axis=1, return_counts=True)
    part = components(int(max(a.max(), b.max())) + 1, pairs)
    of_pair = part[pairs[0]]
    wide = [np.bincount(part[np.unique(side)], minlength=int(part.max()) + 1) for side in (a, b)]
    whole = (wide[0] * wide[1])[of_pair] == np.bincount(of_pair)[of_pair]
    if not leaves or not whole.all() or (counts > 1).any() or np.isin(a, b).any():
        free, still = (a, b) if _orders(marks, a) >= _orders(marks, b) else (b, a)
        alike = bool(np.isin(a, b).any())
        for side in (a, b) if alike else (still,):
            names = first[np.unique(side)]
            state.marks.append(np.stack([names, hashed(names, relation[0] + 0 * names).view(np.int64)]))
        state.marks.append(np.stack([first[child], (hashed(a, b) if alike else hashed(first[still])).view(np.int64)]))
        return np.zeros((3, 0), dtype=np.int64) if alike else np.stack([child, free, relation])
    crossing = int(state.cells[3].max(initial=-1)) + 1 + 0 * child
    state.cells = np.concatenate([state.cells, np.stack([first[child], first[a], first[b], crossing])], axis=1)
    parts = np.unique(of_pair)
    if len(parts) == 1:
        return np.zeros((3, 0), dtype=np.int64)
    labels = np.zeros(int(part.max()) + 1, dtype=np.int64)
    labels[parts] = state.number + np.arange(len(parts))
    state.number += len(parts)
    inner = np.concatenate([np.unique(a), np.unique(b)])
    return np.stack([inner, -labels[part[inner]] - 1, np.full(len(inner), relation[0])])


def components(number: int, pairs: np.ndarray) -> np.ndarray:
    """Parts of a graph, by its nodes."""
    if not number:
        return np.zeros(0, dtype=np.int64)
    graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(number, number))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _loops(nodes: int, edges: np.ndarray) -> np.ndarray | None:
    """Nodes that lie inside each other are one: pairs of them, or None."""
    if not edges.shape[1]:
        return None
    graph = coo_array((np.ones(edges.shape[1], dtype=np.int8), (edges[0], edges[1])), shape=(nodes, nodes))
    parts, part = connected_components(graph, directed=True, connection="strong")
    if parts == nodes:
        return None
    first = np.full(parts, -1)
    first[part[::-1]] = np.arange(nodes)[::-1]
    joined = np.stack([np.arange(nodes), first[part]])
    return joined[:, joined[0] != joined[1]]


def _alone(edges: np.ndarray) -> np.ndarray:
    """Pairs of a child and a parent where all children of one relation lie alone in parents of their own."""
    edges = np.unique(edges, axis=1)
    order = np.argsort(edges[2], kind="stable")
    edges = edges[:, order]
    runs = np.split(edges, np.flatnonzero(np.diff(edges[2])) + 1, axis=1)
    sole = [run for run in runs if len(np.unique(run[0])) == len(np.unique(run[1])) == run.shape[1]]
    return np.concatenate([edges[:2, :0], *(run[:2] for run in sole)], axis=1)


def first_label(node: np.ndarray) -> np.ndarray:
    """One label of each node."""
    first = np.zeros(int(node.max()) + 1, dtype=np.int64)
    first[node[::-1]] = np.arange(len(node))[::-1]
    return first


def _representatives(node: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return first_label(node)[pairs]


def _first_of(edges: np.ndarray) -> np.ndarray:
    """Edges with equal ends kept once, the one of the lowest relation."""
    order = np.lexsort((edges[2], edges[1], edges[0]))
    edges = edges[:, order]
    new = np.r_[True, (edges[0, 1:] != edges[0, :-1]) | (edges[1, 1:] != edges[1, :-1])] if edges.shape[1] else []
    return edges[:, np.asarray(new, dtype=bool)]
