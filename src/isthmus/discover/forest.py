"""From what operations demanded to what may still be exchanged.

Labels that are tied form *nodes*; nodes nest in nodes: a forest. Two nodes under one parent may be exchanged exactly if
everything in and below them corresponds: the same tensors' axes, tied by the same operations, marked alike, with the
same
nodes inside. That is colour refinement on a forest, done in bulk with 64-bit hashes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isthmus.discover.ledger import Ledger

_C1, _C2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
    """Nodes of tied labels, their parents, and which of them may be exchanged.

    Attributes:
        node: for each label its node.
        parent: for each node its parent, -1 at the top.
        kin: for each node a number shared by exactly those that may be exchanged for it, under the same parent.
        place: for each node its position in a walk through the forest that is the same in exchangeable nodes.
        rank: for each label its place among the labels of its node, the same in exchangeable nodes.
        origin: for each label its family's number.
        size: for each node how many nodes lie in and below it.
        cells: columns (node, one parent, other parent) of nodes that lie where two families of nodes cross, as the
            channels of grouped queries do: they move with both and are no units themselves.
    """

    node: np.ndarray
    parent: np.ndarray
    kin: np.ndarray
    place: np.ndarray
    rank: np.ndarray
    origin: np.ndarray
    size: np.ndarray
    cells: np.ndarray


def grow(ledger: Ledger) -> Forest:
    """Solve the ledger's demands."""
    ties = _joined(ledger.ties, 3)
    nests = _joined(ledger.nests, 3)
    marks = _joined(ledger.marks, 2)
    closed = _close(ledger.count, ties, nests, marks)
    if closed.number > ledger.count:
        ledger.blocks(closed.number - ledger.count)
    marks = np.concatenate([marks, *closed.marks], axis=1)
    node = closed.node
    nodes = int(node.max()) + 1 if len(node) else 0
    parent = np.full(nodes, -1)
    parent[closed.edges[0]] = closed.edges[1]
    cells = node[closed.cells]
    stuck = _third_parents(parent, cells)
    if len(stuck):
        named = _first_label(node)[stuck]
        marks = np.concatenate([marks, np.stack([named, hashed(named).view(np.int64)])], axis=1)
    parent[cells[0]] = -1
    origin = _origins(ledger)
    rank, own, lying = _describe(ledger, node, nodes, origin, ties, nests, marks)
    _settle_cells(cells, own, lying)
    level = levels(parent)
    sibling, inner = _refine(parent, level, own, lying)
    least, first = _positions_inside(ledger, node, nodes, origin, parent, level, cells)
    place, size = _walk(parent, level, (first, inner, least, sibling))
    kin = np.unique(np.stack([parent, sibling.view(np.int64)]), axis=1, return_inverse=True)[1].reshape(-1)
    kin[cells[0]] = int(kin.max(initial=0)) + 1 + np.arange(cells.shape[1])
    return Forest(node, parent, kin, place, rank, origin, size, cells)


def _third_parents(parent: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Nodes that must stand still because a cell lies in a third one that holds neither of its two parents."""
    cells = cells[:, parent[cells[0]] >= 0]
    third = parent[cells[0]]
    inside = np.zeros(len(third), dtype=bool)
    for start in cells[1:]:
        above = start.copy()
        while (above >= 0).any():
            inside |= above == third
            above = np.where(above >= 0, parent[np.maximum(above, 0)], -1)
    return np.unique(np.concatenate([cells[1][~inside], cells[2][~inside], third[~inside]]))


def _settle_cells(cells: np.ndarray, own: np.ndarray, lying: np.ndarray) -> None:
    """What tells cells apart is said of the parent that determines it; where neither does, both stand still."""
    node, one, other = cells
    left = np.ones(len(node), dtype=bool)
    for side in (other, one):
        # A whole crossing is decided together: its parents on one side are joined through the other side.
        part = _components(len(own), np.stack([one, other]))[one]
        bad = _undetermined(part, side, own[node]) | _undetermined(part, side, lying[node])
        good = left & ~bad
        own += summed(side[good], hashed(own[node[good]].view(np.int64)), len(own))
        left = left & bad
    for side in (one[left], other[left]):
        stuck = np.unique(side)
        own[stuck] += hashed(stuck, stuck)


def _undetermined(part: np.ndarray, side: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each cell whether somewhere in its crossing the values differ between cells of one parent."""
    pairs = np.unique(np.stack([side, values.view(np.int64)]), axis=1)
    several = pairs[0][1:][pairs[0][1:] == pairs[0][:-1]]
    return np.isin(part, part[np.isin(side, several)])


def hashed(*columns: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row of some integer columns."""
    result = np.zeros(len(columns[0]), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            result = result * _GOLDEN + column.astype(np.uint64) + _GOLDEN
            result = (result ^ (result >> np.uint64(30))) * _C1
            result = (result ^ (result >> np.uint64(27))) * _C2
            result ^= result >> np.uint64(31)
    return result


def summed(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Sums of 64-bit hashes by index, modulo 2**64."""
    total = np.zeros(size, dtype=np.uint64)
    if not len(index):
        return total
    order = np.argsort(index, kind="stable")
    index, values = index[order], values[order]
    starts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    total[index[starts]] = np.add.reduceat(values, starts)
    return total


def _joined(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.concatenate(columns, axis=1) if columns else np.zeros((rows, 0), dtype=np.int64)


def _origins(ledger: Ledger) -> np.ndarray:
    starts = np.array([family.start for family in ledger.families], dtype=np.int64)
    return np.searchsorted(starts, np.arange(ledger.count), side="right") - 1


@dataclasses.dataclass(eq=False)
class _Closure:
    """The state of closing the demands: labels (some made on the way), ties, nests as edges, marks and cells."""

    number: int
    pairs: list[np.ndarray]
    edges: np.ndarray
    marks: list[np.ndarray]
    cells: np.ndarray
    node: np.ndarray


def _close(number: int, ties: np.ndarray, nests: np.ndarray, marks: np.ndarray) -> _Closure:
    """Nodes and at most one parent for each: parents of a common child are tied, nested in each other, or cross."""
    none = np.zeros((3, 0), dtype=np.int64)
    state = _Closure(number, [ties[:2]], nests, [], none, none[0])
    while True:
        node = state.node = _components(state.number, np.concatenate(state.pairs, axis=1))
        lifted = np.stack([node[state.edges[0]], node[state.edges[1]], state.edges[2]])
        lifted = lifted[:, lifted[0] != lifted[1]]
        loops = _loops(int(node.max()) + 1 if len(node) else 0, lifted)
        if loops is not None:
            state.pairs.append(_representatives(node, loops))
            continue
        lifted = _first_of(lifted)
        if not _resolve(state, lifted, _marks_of(node, marks, state.marks)):
            state.edges = lifted
            return state


def _resolve(state: _Closure, edges: np.ndarray, marks: np.ndarray) -> bool:  # noqa: D417
    """Decide for children with several parents how the parents stand to each other; whether there were any.

    Args:
        marks: a hash of the marks of each node.
    """
    kinds = _pairs_of_parents(edges)
    if not kinds:
        return False
    first = _first_label(state.node)
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
        added += _cross_all(state, edges, crossing, keep, first)
    old = np.stack([first[edges[0]], first[edges[1]], edges[2]])[:, keep]
    new = [np.stack([_label(first, e[0]), _label(first, e[1]), e[2]]) for e in added]
    state.edges = np.concatenate([old, *new], axis=1)
    return True


def _cross_all(
    state: _Closure,
    edges: np.ndarray,
    crossing: list[tuple[np.ndarray, np.ndarray]],
    keep: np.ndarray,
    first: np.ndarray,
) -> list[np.ndarray]:
    """Settle crossings, each child once in a round."""
    inner = np.zeros(len(first), dtype=bool)
    inner[edges[1]] = True
    inner[state.node[state.cells].reshape(-1)] = True
    used = np.zeros(len(first), dtype=bool)
    added = []
    for one, other in crossing:
        child = edges[0, one]
        if used[child].any():
            continue
        used[child] = True
        keep[one] = keep[other] = False
        columns = np.stack([child, edges[1, one], edges[1, other], edges[2, one]])
        added.append(_cross(state, first, columns, leaves=not inner[child].any()))
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
    state: _Closure,
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


def _label(first: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """A label of each node; negative numbers are labels made on the way."""
    return np.where(nodes < 0, -nodes - 1, first[np.maximum(nodes, 0)])


def _cross(state: _Closure, first: np.ndarray, crossing: np.ndarray, *, leaves: bool) -> np.ndarray:
    """Parents that cross: a full grid with one leaf in each cell moves with both; otherwise the parents stand still.

    Returns:
        Edges from parents to what encloses their grid; ends that are new labels as -label - 1.
    """
    child, a, b, relation = crossing
    pairs, counts = np.unique(np.stack([a, b]), axis=1, return_counts=True)
    part = _components(int(max(a.max(), b.max())) + 1, pairs)
    of_pair = part[pairs[0]]
    wide = [np.bincount(part[np.unique(side)], minlength=int(part.max()) + 1) for side in (a, b)]
    whole = (wide[0] * wide[1])[of_pair] == np.bincount(of_pair)[of_pair]
    if not leaves or not whole.all() or (counts > 1).any() or np.isin(a, b).any():
        for side in (a, b):
            names = first[np.unique(side)]
            state.marks.append(np.stack([names, hashed(names, relation[0] + 0 * names).view(np.int64)]))
        state.marks.append(np.stack([first[child], hashed(a, b).view(np.int64)]))
        return np.zeros((3, 0), dtype=np.int64)
    state.cells = np.concatenate([state.cells, np.stack([first[child], first[a], first[b]])], axis=1)
    parts = np.unique(of_pair)
    if len(parts) == 1:
        return np.zeros((3, 0), dtype=np.int64)
    labels = np.zeros(int(part.max()) + 1, dtype=np.int64)
    labels[parts] = state.number + np.arange(len(parts))
    state.number += len(parts)
    inner = np.concatenate([np.unique(a), np.unique(b)])
    return np.stack([inner, -labels[part[inner]] - 1, np.full(len(inner), relation[0])])


def _components(number: int, pairs: np.ndarray) -> np.ndarray:
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


def _first_label(node: np.ndarray) -> np.ndarray:
    first = np.zeros(int(node.max()) + 1, dtype=np.int64)
    first[node[::-1]] = np.arange(len(node))[::-1]
    return first


def _representatives(node: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return _first_label(node)[pairs]


def _first_of(edges: np.ndarray) -> np.ndarray:
    """Edges with equal ends kept once, the one of the lowest relation."""
    order = np.lexsort((edges[2], edges[1], edges[0]))
    edges = edges[:, order]
    new = np.r_[True, (edges[0, 1:] != edges[0, :-1]) | (edges[1, 1:] != edges[1, :-1])] if edges.shape[1] else []
    return edges[:, np.asarray(new, dtype=bool)]


def _describe(  # noqa: PLR0917
    ledger: Ledger,
    node: np.ndarray,
    nodes: int,
    origin: np.ndarray,
    ties: np.ndarray,
    nests: np.ndarray,
    marks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks of labels in their nodes; for each node a hash of its content; and one of where it lies in split axes."""
    mark = summed(marks[0], hashed(marks[1]), len(node))
    order = np.lexsort((np.arange(len(node)), mark, origin, node))
    starts = np.r_[0, np.flatnonzero(np.diff(node[order])) + 1] if len(node) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.r_[starts, len(node)])
    rank = np.empty(len(node), dtype=np.int64)
    rank[order] = np.arange(len(node)) - np.repeat(starts, lengths)
    own = summed(node, hashed(rank, _kinds(ledger)[origin], mark), nodes)
    own = own + summed(node[ties[0]], hashed(rank[ties[0]], ties[2], rank[ties[1]]), nodes)
    own = own + summed(node[nests[0]], hashed(rank[nests[0]], nests[2], rank[nests[1]]), nodes)
    lying = np.zeros(nodes, dtype=np.uint64)
    for family in ledger.families:
        if family.slices is not None and family.positions is not None:
            labels = np.arange(family.start, family.stop)
            at = hashed(np.full(len(labels), family.start), family.positions)
            lying += summed(node[labels], at, nodes)
    return rank, own, lying


def _kinds(ledger: Ledger) -> np.ndarray:
    """Families as they count in comparisons: each its own."""
    return np.arange(len(ledger.families))


def levels(parent: np.ndarray) -> np.ndarray:
    """How many parents lie above each node."""
    level = np.zeros(len(parent), dtype=np.int64)
    above = parent.copy()
    while (inside := above >= 0).any():
        level[inside] += 1
        above[inside] = parent[above[inside]]
    return level


def _refine(parent: np.ndarray, level: np.ndarray, own: np.ndarray, lying: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of whole subtrees: as siblings see each other, and as the parent sees them (split positions count)."""
    sibling, inner = own.copy(), own.copy()
    for depth in range(int(level.max()) if len(level) else -1, -1, -1):
        here = np.flatnonzero(level == depth)
        inner[here] = hashed(sibling[here], lying[here])
        if depth:
            total = summed(parent[here], inner[here], len(parent))
            touched = np.unique(parent[here])
            sibling[touched] = hashed(sibling[touched], total[touched])
    return sibling, inner


def _positions_inside(  # noqa: PLR0917
    ledger: Ledger,
    node: np.ndarray,
    nodes: int,
    origin: np.ndarray,
    parent: np.ndarray,
    level: np.ndarray,
    cells: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """For each node its least position in a split axis (-1 without), and the first position of any weight below it."""
    least = np.full(nodes, -1)
    for family in ledger.families:
        if family.slices is not None and family.positions is not None:
            here = node[family.start : family.stop]
            found = np.full(nodes, np.iinfo(np.int64).max)
            np.minimum.at(found, here, family.positions)
            least[here] = np.where(least[here] < 0, found[here], np.minimum(least[here], found[here]))
    first = np.full(nodes, ledger.count)
    is_atom = np.array([family.tensor is not None for family in ledger.families], dtype=bool)
    atoms = np.flatnonzero(is_atom[origin]) if len(origin) else np.zeros(0, dtype=np.int64)
    np.minimum.at(first, node[atoms], atoms)
    for side in cells[1:]:
        np.minimum.at(first, side, first[cells[0]])
    for depth in range(int(level.max()) if len(level) else -1, 0, -1):
        here = np.flatnonzero(level == depth)
        np.minimum.at(first, parent[here], first[here])
    return least, first


def _walk(parent: np.ndarray, level: np.ndarray, keys: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of nodes in a walk from the top, exchangeable nodes' insides in corresponding order; subtree sizes."""
    sizes = np.ones(len(parent), dtype=np.int64)
    for depth in range(int(level.max()) if len(level) else -1, 0, -1):
        here = np.flatnonzero(level == depth)
        np.add.at(sizes, parent[here], sizes[here])
    place = np.zeros(len(parent), dtype=np.int64)
    for depth in range(int(level.max()) + 1 if len(level) else 0):
        here = np.flatnonzero(level == depth)
        order = here[np.lexsort((*(key[here] for key in keys), parent[here]))]
        before = np.cumsum(sizes[order]) - sizes[order]
        starts = np.r_[True, parent[order][1:] != parent[order][:-1]]
        base = before[starts][np.cumsum(starts) - 1]
        above = np.where(parent[order] >= 0, place[parent[order]] + 1, 0)
        place[order] = above + before - base
    return place, sizes
