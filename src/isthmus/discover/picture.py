"""Which layers share which group: the data of a picture of a symmetry."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry, UnitGroup


@dataclasses.dataclass(frozen=True)
class LayerGroup(Record):
    """One cell of the picture: a layer in which the units of a group appear.

    Attributes:
        layer: the module that holds the tensors.
        group: the group's name.
        size: number of units.
        depth: 0 for a group of its own, 1 for one inside units of another, and so on.
        writes: the layer makes the units (they lie along the first axis of a tensor), or is one as a whole.
        reads: the layer takes them in (they lie along another axis).
        carries: only tensors that move along (running statistics) hold them here.
        copies: how many nested groups of this kind the cell stands for (one for each unit around them).
    """

    layer: str
    group: str
    size: int
    depth: int
    writes: bool
    reads: bool
    carries: bool
    copies: int = 1


@dataclasses.dataclass(frozen=True)
class LayerMap(Record):
    """The picture's data: layers in the network's order, groups in the symmetry's, and where they meet."""

    layers: tuple[str, ...]
    groups: tuple[str, ...]
    cells: tuple[LayerGroup, ...]


def layer_map(symmetry: Symmetry, *, nested: bool = True) -> LayerMap:  # noqa: D417
    """Which layers share which group.

    Args:
        nested: also show groups inside units; peers in different units are drawn as one row, with their number.
    """
    tops = [group for group in symmetry.permutable if nested or group.parent is None]
    rows: dict[tuple[str, int], list[UnitGroup]] = {}
    for group in tops:
        key = (group.name, -1) if group.parent is None else (_root(symmetry, group), group.parent.slot)
        rows.setdefault(key, []).append(group)
    cells: list[LayerGroup] = []
    names = []
    for members in rows.values():
        first = members[0]
        names.append(first.name)
        cells += _cells(members, symmetry.depth(first))
    layers = tuple(dict.fromkeys(layer_of(name) for name in symmetry.tensors))
    touched = {cell.layer for cell in cells}
    return LayerMap(tuple(layer for layer in layers if layer in touched), tuple(names), tuple(cells))


def layer_of(tensor: str) -> str:
    """The module to which a tensor belongs; a free-standing parameter is its own layer."""
    stem = tensor.partition(".parametrizations.")[0]
    head, _, tail = stem.rpartition(".")
    return stem if stem != tensor else (head or tail)


def _root(symmetry: Symmetry, group: UnitGroup) -> str:
    """The path of slots from the outermost group, without which unit: peers share it."""
    path = []
    while group.parent is not None:
        path.append(str(group.parent.slot))
        group = symmetry.by_name[group.parent.group]
    return "/".join([group.name, *reversed(path)])


def _cells(peers: Sequence[UnitGroup], depth: int) -> list[LayerGroup]:
    """The layers of a group and of its peers in other units, which may lie in the same layers or in others."""
    layers: dict[str, list[bool]] = {}
    copies: Counter[str] = Counter()
    for group in peers:
        own = [(site.tensor, site.dim == 0, site.role) for site in group.sites]
        own += [(name, True, row.role) for row in group.siblings for name in row.tensors]
        for name, first, role in own:
            flags = layers.setdefault(layer_of(name), [False, False, True])
            flags[0] |= first and role == "match"
            flags[1] |= not first
            flags[2] &= role == "carry"
        copies.update({layer_of(name) for name, _, _ in own})
    return [
        LayerGroup(layer, peers[0].name, peers[0].size, depth, writes, reads, carries, copies[layer])
        for layer, (writes, reads, carries) in layers.items()
    ]
