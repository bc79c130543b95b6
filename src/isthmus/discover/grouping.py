"""From the forest to unit groups: sites, nesting and names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from isthmus.core.symmetry import Parent, Role, Site, UnitGroup
from isthmus.discover.families import Family
from isthmus.discover.forest import Forest, levels
from isthmus.discover.ledger import Ledger


def groups_of(  # noqa: D417
    ledger: Ledger, forest: Forest, roles: Mapping[str, Role], aliases: Mapping[str, Sequence[str]]
) -> tuple[UnitGroup, ...]:
    """The permutation groups.

    Args:
        roles: what each tensor's sites count as.
        aliases: further state-dict names of tied tensors.
    """
    unit_sets = _exchangeable(forest)
    owner, unit = _nearest(forest, unit_sets)
    atoms, bounds = _atoms_under(ledger, forest, unit_sets, owner, unit)
    words = _words(ledger, forest)
    names: dict[int, str] = {}
    groups = []
    taken: set[str] = set()
    slots: dict[tuple[int, int], int] = {}
    depth = levels(forest.parent)
    parts = [atoms[:, start:stop] for start, stop in itertools.pairwise(bounds.tolist())]
    first_label = [int(rows[1].min()) if rows.shape[1] else ledger.count for rows in parts]
    order = sorted(range(len(unit_sets)), key=lambda n: (depth[unit_sets[n][0]], first_label[n]))
    for number in order:
        members = unit_sets[number]
        sites, first = _sites(ledger, forest, len(members), parts[number], roles, aliases)
        if not sites:
            continue
        above = forest.parent[members[0]]
        parent = None
        if above >= 0 and owner[above] >= 0:
            around, which = int(owner[above]), int(unit[above])
            slot = slots.get((around, which), 0)
            slots[around, which] = slot + 1
            parent = Parent(names[around], which, slot)
        name = _unique(_title(first, words.get(int(members[0]), ""), parent), taken)
        names[number] = name
        groups.append(UnitGroup(name, len(members), tuple(sites), parent=parent))
    return tuple(groups)


def _exchangeable(forest: Forest) -> list[np.ndarray]:
    """Sets of two nodes or more that may be exchanged, outer before inner, in the order of the walk."""
    order = np.lexsort((forest.place, forest.kin))
    kin = forest.kin[order]
    starts = np.flatnonzero(np.r_[True, kin[1:] != kin[:-1]]) if len(kin) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.r_[starts, len(kin)])
    sets = [order[start : start + length] for start, length in zip(starts, lengths, strict=True) if length > 1]
    depth = levels(forest.parent)
    return sorted(sets, key=lambda run: (depth[run[0]], forest.place[run[0]], forest.parent[run[0]]))


def _nearest(forest: Forest, sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For each node the innermost group in which it or something around it is a unit, and which unit."""
    owner = np.full(len(forest.parent), -1)
    unit = np.full(len(forest.parent), -1)
    for number, members in enumerate(sets):
        owner[members] = number
        unit[members] = np.arange(len(members))
    depth = levels(forest.parent)
    for level in range(1, int(depth.max()) + 1 if len(depth) else 0):
        here = np.flatnonzero((depth == level) & (owner < 0))
        owner[here] = owner[forest.parent[here]]
        unit[here] = unit[forest.parent[here]]
    return owner, unit


def _atoms_under(
    ledger: Ledger, forest: Forest, sets: list[np.ndarray], owner: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Columns (unit, label) of all positions at or below the units of each group, and where each group's begin.

    A group's come by family, then by unit, then by their place inside the unit.
    """
    is_atom = np.array([family.tensor is not None for family in ledger.families], dtype=bool)
    labels = np.flatnonzero(is_atom[forest.origin]) if len(forest.origin) else np.zeros(0, dtype=np.int64)
    collected = [np.zeros((5, 0), dtype=np.int64)]
    start = forest.node[labels]
    crossing = np.isin(start, forest.cells[0])
    none = np.full(int((~crossing).sum()), -1)
    walks = [(labels[~crossing], start[~crossing], none)]
    row = np.full(len(forest.parent), -1)
    row[forest.cells[0]] = np.arange(forest.cells.shape[1])
    pairs = forest.cells[1:, row[start[crossing]]].T
    walks += [(labels[crossing], pairs[:, side], pairs[:, 1 - side]) for side in (0, 1)]
    sizes = [len(members) for members in sets]
    flat = np.concatenate(sets) if sets else np.zeros(0, dtype=np.int64)
    offset = np.r_[0, np.cumsum(sizes)].astype(np.int64)
    for walk in walks:
        names, at, other = walk
        at = at.copy()
        bottom = at
        while len(at):
            inside = owner[at] >= 0
            at, names, other, bottom = at[inside], names[inside], other[inside], bottom[inside]
            group, which = owner[at], unit[at]
            tops = flat[offset[group] + which]
            first = forest.place[bottom] - forest.place[tops]
            second = _place_inside(forest, other, tops)
            collected.append(np.stack([group, which, first, second, names]))
            at = forest.parent[tops]
            inside = at >= 0
            at, names, other, bottom = at[inside], names[inside], other[inside], bottom[inside]
    group, which, first, second, names = _once(np.concatenate(collected, axis=1))
    order = np.lexsort((forest.rank[names], second, first, which, forest.origin[names], group))
    return np.stack([which, names])[:, order], np.searchsorted(group[order], np.arange(len(sets) + 1))


def _place_inside(forest: Forest, other: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """Where a cell's other parent lies: counted from the unit if it is inside the unit, else from the top."""
    place = np.where(other >= 0, forest.place[other], 0)
    base = forest.place[tops]
    inside = (other >= 0) & (place >= base) & (place < base + forest.size[tops])
    return np.where(inside, place - base, place)


def _once(rows: np.ndarray) -> np.ndarray:
    """Each label once in each group: a group around a whole crossing meets its cells on both ways."""
    order = np.lexsort((rows[4], rows[0]))
    rows = rows[:, order]
    again = (rows[0, 1:] == rows[0, :-1]) & (rows[4, 1:] == rows[4, :-1])
    return rows[:, np.r_[True, ~again]] if rows.shape[1] else rows


def _sites(  # noqa: PLR0917
    ledger: Ledger,
    forest: Forest,
    size: int,
    atoms: np.ndarray,
    roles: Mapping[str, Role],
    aliases: Mapping[str, Sequence[str]],
) -> tuple[list[Site], Family | None]:
    which, labels = atoms
    sites: list[Site] = []
    first: tuple[bool, Family] | None = None
    origin = forest.origin[labels]
    cuts = [0, *(np.flatnonzero(origin[1:] != origin[:-1]) + 1).tolist(), len(origin)]
    for start, stop in itertools.pairwise(cuts if len(origin) else []):
        family = ledger.families[origin[start]]
        for index, within in _family_sites(family, size, which[start:stop], labels[start:stop] - family.start):
            assert family.tensor is not None
            written = family.dim == 0
            if first is None or (written and not first[0]):
                first = (written, family)
            role = roles.get(family.tensor, "match")
            sites.append(Site(family.tensor, family.dim, index, role, within))
            sites += [Site(alias, family.dim, index, "carry", within) for alias in aliases.get(family.tensor, ())]
    return sites, first[1] if first else None


def _family_sites(
    family: Family, size: int, which: np.ndarray, offsets: np.ndarray
) -> list[tuple[torch.Tensor, tuple[tuple[int, torch.Tensor], ...]]]:
    positions = family.positions
    assert positions is not None
    if family.slices is None:
        return [(_table(positions[offsets], size), ())]
    axis, starts = family.slices
    every, length = family.cuts
    mine = starts[offsets]
    one = bool((mine == mine[0]).all())
    result = []
    for start in mine[:1] if one else np.unique(mine):
        here = slice(None) if one else mine == start
        counts = np.bincount(which[here], minlength=size)
        # A slice that lies in one unit only moves with it as a whole, by the unit's own site along the other axis.
        if counts[0] and (counts == counts[0]).all():
            index = _table(positions[offsets[here]], size)
            result.append((index, ((axis, torch.arange(int(start), int(start) + length)),)))
    if not family.width and len(result) == len(every) and all(torch.equal(index, result[0][0]) for index, _ in result):
        return [(result[0][0], ())]
    return result


def _table(positions: np.ndarray, size: int) -> torch.Tensor:
    """Positions as (units, entries), columns in the order of the first unit's positions."""
    table = torch.from_numpy(positions.reshape(size, -1).copy())
    return table if table.shape[1] == 1 else table[:, table[0].argsort()]


def _words(ledger: Ledger, forest: Forest) -> dict[int, str]:
    """What the units of a node are, if an operation made them blocks: the word of the node's first block label."""
    words: dict[int, str] = {}
    for family in ledger.families:
        if family.word:
            for node in forest.node[family.start : family.stop].tolist():
                words.setdefault(node, family.word)
    return words


_OWN = ("weight", "bias", "weight_g", "weight_v", "in_proj_weight", "in_proj_bias", "running_mean", "running_var")


def _title(first: Family | None, word: str, parent: Parent | None) -> str:
    stem = first.tensor or "" if first is not None else "units"
    head, _, tail = stem.partition(".parametrizations.")[0].rpartition(".")
    base = head if head and tail in _OWN else stem.partition(".parametrizations.")[0]
    if parent is not None:
        outer = parent.group.split(" ")[0]
        inner = base.removeprefix(outer.rpartition(".")[0] + ".") if "." in outer else base
        return " ".join(filter(None, [f"{parent.group}[{parent.unit}]", inner if inner != outer else "", word]))
    return f"{base} {word}".strip()


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} #{number}", number + 1
    taken.add(candidate)
    return candidate
