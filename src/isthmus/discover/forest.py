"""From what operations demanded to what may still be exchanged.

Labels that are tied form *nodes*; nodes nest in nodes: a forest. Two nodes under one parent may be exchanged exactly if
everything in and below them corresponds: the same tensors' axes, tied by the same operations, marked alike, with the
same
nodes inside. That is colour refinement on a forest, done in bulk with 64-bit hashes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from isthmus.discover.closure import close, components, first_label
from isthmus.discover.hashing import hashed, summed
from isthmus.discover.implied import simplified
from isthmus.discover.ledger import Ledger
from isthmus.discover.refining import Lying, lying_of, refine


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
    nests, marks = simplified(nests, _joined(ledger.marks, 2), ledger.count)
    closed = close(ledger.count, ties, nests, marks)
    if closed.number > ledger.count:
        ledger.blocks(closed.number - ledger.count)
    marks = np.concatenate([marks, *closed.marks], axis=1)
    node = closed.node
    nodes = int(node.max()) + 1 if len(node) else 0
    parent = np.full(nodes, -1)
    parent[closed.edges[0]] = closed.edges[1]
    cells = node[closed.cells[:3]]
    stuck = _third_parents(parent, cells)
    if len(stuck):
        named = first_label(node)[stuck]
        marks = np.concatenate([marks, np.stack([named, hashed(named).view(np.int64)])], axis=1)
    parent[cells[0]] = -1
    origin = _origins(ledger)
    rank, own = _describe(ledger, node, nodes, origin, ties, nests, marks)
    lying = _lying_in_cells(ledger, node, cells[0], closed.cells[3])
    for number in np.unique(closed.cells[3]).tolist():
        _settle_cells(cells[:, closed.cells[3] == number], own, lying.get(number, []))
    level = levels(parent)
    counted = lying_of(ledger.families, node, rank, parent, level)
    sibling, inner = refine(parent, level, own, counted)
    least, first = _least_positions(counted, level), _first_atoms(ledger, node, origin, parent, level, cells)
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


def _lying_in_cells(
    ledger: Ledger, node: np.ndarray, cells: np.ndarray, crossing: np.ndarray
) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """For each crossing and each split axis that has labels in its cells: the nodes of these, and where they lie."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    if not len(cells):
        return found
    number = np.full(int(node.max()) + 1, -1)
    number[cells] = crossing
    for family in ledger.families:
        if family.slices is not None and family.positions is not None:
            at = node[family.start : family.stop]
            of = number[at]
            for which in np.unique(of[of >= 0]).tolist():
                found.setdefault(which, []).append((at[of == which], family.positions[of == which]))
    return found


def _settle_cells(cells: np.ndarray, own: np.ndarray, lying: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """What tells cells of one crossing apart is said of the parent that determines it; or else both stand still.

    Where cells lie in a split axis must be up to one of the parents, as the slices are up to the other.
    """
    node, one, other = cells
    # A whole crossing is decided together: its parents on one side are joined through the other side.
    ends = np.unique(np.stack([one, other]), return_inverse=True)[1].reshape(2, -1)
    part = components(int(ends.max(initial=-1)) + 1, ends)[ends[0]]
    astray = np.zeros(len(node), dtype=bool)
    order = np.argsort(node)
    for nodes, positions in lying:
        cell = order[np.searchsorted(node, nodes, sorter=order)]
        places = summed(cell, hashed(positions), len(node))
        astray |= _undetermined(part, one, places) & _undetermined(part, other, places)
    left = np.ones(len(node), dtype=bool)
    for side in (other, one):
        bad = astray | _undetermined(part, side, own[node])
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


def _joined(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.concatenate(columns, axis=1) if columns else np.zeros((rows, 0), dtype=np.int64)


def _origins(ledger: Ledger) -> np.ndarray:
    starts = np.array([family.start for family in ledger.families], dtype=np.int64)
    return np.searchsorted(starts, np.arange(ledger.count), side="right") - 1


def _describe(  # noqa: PLR0917
    ledger: Ledger,
    node: np.ndarray,
    nodes: int,
    origin: np.ndarray,
    ties: np.ndarray,
    nests: np.ndarray,
    marks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of labels in their nodes; for each node a hash of its content.

    Relations are counted downwards, families upwards, so that none is taken for the other.
    """
    mark = summed(marks[0], hashed(marks[1]), len(node))
    order = np.lexsort((np.arange(len(node)), mark, origin, node))
    starts = np.r_[0, np.flatnonzero(np.diff(node[order])) + 1] if len(node) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.r_[starts, len(node)])
    rank = np.empty(len(node), dtype=np.int64)
    rank[order] = np.arange(len(node)) - np.repeat(starts, lengths)
    own = summed(node, hashed(rank, _kinds(ledger)[origin], mark), nodes)
    own = own + summed(node[ties[0]], hashed(rank[ties[0]], ~ties[2], rank[ties[1]]), nodes)
    own = own + summed(node[nests[0]], hashed(rank[nests[0]], ~nests[2], rank[nests[1]]), nodes)
    return rank, own


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


def _least_positions(lying: Lying, level: np.ndarray) -> np.ndarray:
    """For each node its least position in a split axis, of those that its parent sees; -1 without.

    Others may differ between nodes that correspond, and so may not put a node's insides in order.
    """
    counted = lying.depth >= np.maximum(level[lying.node] - 1, 0)
    least = np.full(len(level), np.iinfo(np.int64).max)
    np.minimum.at(least, lying.node[counted], lying.position[counted])
    return np.where(least == np.iinfo(np.int64).max, -1, least)


def _first_atoms(  # noqa: PLR0917
    ledger: Ledger, node: np.ndarray, origin: np.ndarray, parent: np.ndarray, level: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    """For each node the first position of any weight in or below it."""
    first = np.full(len(parent), ledger.count)
    is_atom = np.array([family.tensor is not None for family in ledger.families], dtype=bool)
    atoms = np.flatnonzero(is_atom[origin]) if len(origin) else np.zeros(0, dtype=np.int64)
    np.minimum.at(first, node[atoms], atoms)
    for side in cells[1:]:
        np.minimum.at(first, side, first[cells[0]])
    for depth in range(int(level.max()) if len(level) else -1, 0, -1):
        here = np.flatnonzero(level == depth)
        np.minimum.at(first, parent[here], first[here])
    return first


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
