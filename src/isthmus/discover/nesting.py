"""Units around units: a symmetry with one more group, whose units hold groups that were found before.

What is inside one unit is inside each of them, since they do the same: the unit in which most was found lends its
groups to the others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isthmus.core.symmetry import Parent, Siblings, Site, Symmetry, UnitGroup


def nested(symmetry: Symmetry, group: UnitGroup) -> Symmetry | None:
    """The symmetry with a group of units that have tensors of their own; None if other groups lie across its units."""
    group = dataclasses.replace(group, name=_free(group.name, symmetry.by_name))
    unit_of = {name: unit for row in group.siblings for unit, name in enumerate(row.tensors)}
    inside: dict[int, list[UnitGroup]] = {unit: [] for unit in range(group.size)}
    for root in (one for one in symmetry.groups if one.parent is None):
        tree = _tree(symmetry, root)
        units = _units(tree, group, unit_of)
        if len(units) == 1:
            inside[units.pop()] += tree
        elif units and not all(_alike(one, group) for one in tree):
            return None
    gone = {one.name for members in inside.values() for one in members}
    template = max(inside, key=lambda unit: sum(math.lgamma(one.size + 1) for one in inside[unit]))
    made = _copies(group, inside, template)
    if made is None:
        return None
    place = next((n for n, one in enumerate(symmetry.groups) if one.name in gone), len(symmetry.groups))
    before = [one for one in symmetry.groups[:place] if one.name not in gone]
    after = [one for one in symmetry.groups[place:] if one.name not in gone]
    return dataclasses.replace(symmetry, groups=(*before, group, *made, *after))


def _tree(symmetry: Symmetry, root: UnitGroup) -> list[UnitGroup]:
    """A group and all that is nested in it, outside first."""
    members = [root]
    for member in members:
        members += symmetry.children(member.name)
    return members


def _units(tree: Sequence[UnitGroup], group: UnitGroup, unit_of: Mapping[str, int]) -> set[int]:
    """In which units of a group the places of a tree lie."""
    units = {unit_of[name] for one in tree for name in one.tensors if name in unit_of}
    for mine in group.sites:
        for one in tree:
            for site in one.sites:
                if site.tensor == mine.tensor and site.dim == mine.dim and _meet(site, mine):
                    units |= {unit for unit in range(group.size) if _any_in(site.index, mine.index[unit])}
    return units


def _meet(one: Site, other: Site) -> bool:
    """Whether two sites on one axis may share entries: not if they lie in different slices."""
    slices = dict(other.within)
    return all(axis not in slices or _any_in(positions, slices[axis]) for axis, positions in one.within)


def _any_in(some: Tensor, others: Tensor) -> bool:
    return bool(torch.isin(some, others).any())


def _alike(one: UnitGroup, group: UnitGroup) -> bool:
    """Whether a group that lies outside the units has the same places in all of them.

    Whole tensors that it moves itself may not be the units' own: modules in a grid are left to one of both groups.
    """
    if {name for row in one.siblings for name in row.tensors} & {n for row in group.siblings for n in row.tensors}:
        return False
    for mine in group.sites:
        for site in one.sites:
            meet = site.tensor == mine.tensor and site.dim == mine.dim and _meet(site, mine)
            if meet and not _across(site.index, mine.index):
                return False
    places: dict[str, set[object]] = {}
    for site in one.sites:
        places.setdefault(site.tensor, set()).add(_key(site))
    return all(
        places.get(name, set()) == places.get(row.tensors[0], set()) for row in group.siblings for name in row.tensors
    )


def _across(index: Tensor, units: Tensor) -> bool:
    """Whether entries lie alike in the units: each column in one of them, and in every unit the same columns."""
    if not bool(torch.isin(index, units).all()):
        return False
    place = {position: (unit, column) for unit, row in enumerate(units.tolist()) for column, position in enumerate(row)}
    columns: dict[int, list[tuple[int, ...]]] = {unit: [] for unit in range(len(units))}
    for entries in index.T.tolist():
        at = {place[position][0] for position in entries}
        if len(at) > 1:
            return False
        columns[at.pop()].append(tuple(place[position][1] for position in entries))
    return all(sorted(found) == sorted(columns[0]) for found in columns.values())


def _key(site: Site) -> object:
    within = tuple((axis, positions.numpy().tobytes()) for axis, positions in site.within)
    return site.dim, tuple(site.index.shape), site.index.numpy().tobytes(), within, site.role, site.power


def _copies(group: UnitGroup, inside: Mapping[int, Sequence[UnitGroup]], template: int) -> list[UnitGroup] | None:
    """The groups inside every unit, as they are inside one."""
    made: list[UnitGroup] = []
    taken = {group.name}
    for unit in range(group.size):
        known = {_first(one): one.name for one in inside[unit]}
        names: dict[str, str] = {}
        slot = 0
        for one in inside[template]:
            copy = _copied(one, group, template, unit)
            if copy is None:
                return None
            parent = one.parent
            if parent is None:
                parent, slot = Parent(group.name, unit, slot), slot + 1
            else:
                parent = dataclasses.replace(parent, group=names[parent.group])
            name = _free(known.get(_first(copy), f"{group.name}[{unit}] {one.name}"), taken)
            taken.add(name)
            names[one.name] = name
            made.append(dataclasses.replace(copy, name=name, parent=parent))
    return made


def _first(group: UnitGroup) -> tuple[object, ...]:
    """What tells groups inside one unit apart."""
    site = group.sites[0] if group.sites else None
    if site is None:
        return group.siblings[0].tensors
    return (site.tensor, site.dim, int(site.index.min()), *(int(positions.min()) for _, positions in site.within))


def _copied(one: UnitGroup, group: UnitGroup, template: int, unit: int) -> UnitGroup | None:
    """A group inside one unit, as it is inside another."""
    if unit == template:
        return one
    other = {row.tensors[template]: row.tensors[unit] for row in group.siblings}
    sites = []
    for site in one.sites:
        if site.tensor in other:
            sites.append(dataclasses.replace(site, tensor=other[site.tensor]))
            continue
        moves = {
            mine.dim: (mine.index[template], mine.index[unit]) for mine in group.sites if mine.tensor == site.tensor
        }
        index = _brought(site.index, moves.get(site.dim))
        within = tuple((axis, _brought(positions, moves.get(axis))) for axis, positions in site.within)
        if index is None or any(positions is None for _, positions in within):
            return None
        sites.append(dataclasses.replace(site, index=index, within=within))
    siblings = []
    for row in one.siblings:
        if not all(name in other for name in row.tensors):
            return None
        siblings.append(Siblings(tuple(other[name] for name in row.tensors), row.role))
    return dataclasses.replace(one, sites=tuple(sites), siblings=tuple(siblings))


def _brought(positions: Tensor, move: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """Positions of one unit as those of another; None if some are no unit's."""
    if move is None:
        return positions
    mine, theirs = move
    found = positions.reshape(-1, 1) == mine
    if not bool(found.any(dim=1).all()):
        return None
    return theirs[found.int().argmax(dim=1)].reshape(positions.shape)


def _free(name: str, taken: Mapping[str, object] | set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} #{number}", number + 1
    return candidate
