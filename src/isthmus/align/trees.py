"""Unit groups as they are solved: a group and all that is nested in it make one tree, inside first, then outside.

The value of putting unit u where unit v is, is the value of the best arrangement of what is inside of it. Similarities
come from the caller, so weights and activations share this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.align.assignment import assign, assign_many
from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Site, Symmetry, UnitGroup

Similarity = Callable[[Sequence[UnitGroup], Sequence[UnitGroup]], Float[Tensor, "fixed moving units units"]]
"""Peers of the fixed network, peers of the moving one → unit by unit, without what is nested inside the units."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """A permutation group that is nested in no other, and all groups nested in it.

    Attributes:
        root: the outermost group.
        members: the root and everything nested in it, outside first.
    """

    root: UnitGroup
    members: tuple[UnitGroup, ...]

    @property
    def name(self) -> str:
        """The root's name."""
        return self.root.name

    @property
    def nested(self) -> bool:
        """Whether there is anything inside the root."""
        return len(self.members) > 1


def trees_of(symmetry: Symmetry) -> tuple[Tree, ...]:
    """The permutation groups of a symmetry by their outermost group."""
    members: dict[str, list[UnitGroup]] = {g.name: [g] for g in symmetry.permutable if g.parent is None}
    roots = {name: name for name in members}
    for group in symmetry.permutable:
        if group.parent is not None:
            roots[group.name] = roots[group.parent.group]
            members[roots[group.name]].append(group)
    return tuple(Tree(groups[0], tuple(groups)) for groups in members.values())


def slots(symmetry: Symmetry, group: UnitGroup) -> tuple[int, ...]:
    """The slots that nested groups take in every unit of a group.

    Raises:
        SymmetryError: units that hold different nested groups.
    """
    found = sorted({child.parent.slot for child in symmetry.children(group.name) if child.parent is not None})
    for slot in found:
        if any(symmetry.child(group.name, unit, slot) is None for unit in range(group.size)):
            raise SymmetryError(f"every unit of {group.name} must hold the same nested groups; slot {slot} has gaps")
    return tuple(found)


def solve(symmetry: Symmetry, tree: Tree, similarity: Similarity) -> dict[str, Int[Tensor, " units"]]:
    """The best permutation of a whole tree for given similarities: inner assignments first, then outer ones.

    Exact when the nested groups of one unit do not share entries of a tensor; else each is arranged for the others as
    they are now.

    Returns:
        Group name → index, in the convention of :class:`Permutation` (a nested group is named by its old place). Only
        the groups that move.
    """
    inner: dict[tuple[str, str], Tensor] = {}
    total = _values(symmetry, [tree.root], [tree.root], similarity, inner)[0, 0]
    indices: dict[str, Tensor] = {}
    _place(symmetry, (tree.root, tree.root), assign(total), inner, indices)
    return {name: index for name, index in indices.items() if not torch.equal(index, torch.arange(len(index)))}


def _values(
    symmetry: Symmetry,
    fixed: Sequence[UnitGroup],
    moving: Sequence[UnitGroup],
    similarity: Similarity,
    inner: dict[tuple[str, str], Tensor],
) -> Float[Tensor, "fixed moving units units"]:
    """Similarities of all units of some peers with all units of others, nested groups at their best arrangement."""
    total = similarity(fixed, moving)
    units = fixed[0].size
    for slot in slots(symmetry, fixed[0]):
        below = [[_child(symmetry, g, unit, slot) for g in peers for unit in range(units)] for peers in (fixed, moving)]
        values = _values(symmetry, below[0], below[1], similarity, inner)
        size = values.shape[-1]
        best = assign_many(values.reshape(-1, size, size)).reshape(*values.shape[:2], size)
        for row, kept in enumerate(below[0]):
            for column, moved in enumerate(below[1]):
                inner[kept.name, moved.name] = best[row, column]
        gathered = values.gather(-1, best.to(values.device).unsqueeze(-1)).sum((-1, -2))
        total = total + gathered.reshape(len(fixed), units, len(moving), units).permute(0, 2, 1, 3)
    return total


def _place(
    symmetry: Symmetry,
    pair: tuple[UnitGroup, UnitGroup],
    index: Tensor,
    inner: dict[tuple[str, str], Tensor],
    indices: dict[str, Tensor],
) -> None:
    """Write down a group's index and those of all that is nested in the units that it moves."""
    fixed, moving = pair
    indices[moving.name] = index
    for slot in slots(symmetry, moving):
        for unit, source in enumerate(index.tolist()):
            below = (_child(symmetry, fixed, unit, slot), _child(symmetry, moving, source, slot))
            _place(symmetry, below, inner[below[0].name, below[1].name], inner, indices)


def _child(symmetry: Symmetry, group: UnitGroup, unit: int, slot: int) -> UnitGroup:
    name = symmetry.child(group.name, unit, slot)
    if name is None:
        raise SymmetryError(f"every unit of {group.name} must hold the same nested groups; slot {slot} has gaps")
    return symmetry.by_name[name]


def uncovered(symmetry: Symmetry, group: UnitGroup, site: Site) -> Int[Tensor, "units entries"]:
    """The columns of a site's index that belong to no nested group: their entries keep their places in the units."""
    covered: set[int] = set()
    for child in symmetry.children(group.name, 0):
        for other in child.sites:
            if other.tensor == site.tensor:
                everywhere = torch.arange(symmetry.tensors[site.tensor][site.dim])
                within = dict(other.within).get(site.dim, everywhere)
                covered |= set((other.index.reshape(-1) if other.dim == site.dim else within).tolist())
    free = [column for column, position in enumerate(site.index[0].tolist()) if position not in covered]
    return site.index[:, free]
