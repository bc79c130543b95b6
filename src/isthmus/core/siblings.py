"""Siblings as slices of one tensor: the same symmetry where units that are modules of their own lie along an axis.

What compares units (matching, bounds, costs) knows units as positions along axes. Stacked, the experts of a list are
what batched experts are, and groups keep their names, sizes and nesting, so that indices hold for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from isthmus.core.errors import SymmetryError
from isthmus.core.permutation import Permutation
from isthmus.core.symmetry import Siblings, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """A symmetry without siblings, and how its tensors are made.

    Attributes:
        symmetry: of the stacked weights.
        original: of the weights as they are.
        stacks: a stack's name → the tensors along its first axis, in order; those may be stacks themselves.
    """

    symmetry: Symmetry
    original: Symmetry
    stacks: Mapping[str, tuple[str, ...]]

    def weights(self, weights: Weights) -> Weights:
        """Weights with stacks in place of siblings, made when they are asked for."""
        return _StackedWeights(weights, self.symmetry.tensors, self.stacks) if self.stacks else weights

    def permutation(self, permutation: Permutation) -> Permutation:
        """A permutation of the weights as they are, as one of the stacked weights."""
        return Permutation(self.symmetry, permutation.indices) if self.stacks else permutation

    def back(self, permutation: Permutation) -> Permutation:
        """A permutation of the stacked weights, as one of the weights as they are."""
        return Permutation(self.original, permutation.indices) if self.stacks else permutation


def stacked(symmetry: Symmetry) -> Stacked:
    """The symmetry with every row of siblings as one tensor, units along its first axis.

    Raises:
        SymmetryError: a group that lies outside the units has other places in one sibling than in another.

    Example:
        >>> from isthmus.core.symmetry import Siblings
        >>> group = UnitGroup("experts", 2, (), siblings=(Siblings(("experts.0.w", "experts.1.w")),))
        >>> made = stacked(Symmetry((group,), {"experts.0.w": (3,), "experts.1.w": (3,)}))
        >>> [(site.tensor, site.dim) for site in made.symmetry.groups[0].sites], made.symmetry.tensors
        ([('experts.*.w', 0)], {'experts.*.w': (2, 3)})
    """
    groups = {group.name: group for group in symmetry.groups}
    tensors = {name: tuple(shape) for name, shape in symmetry.tensors.items()}
    stacks: dict[str, tuple[str, ...]] = {}
    for outer in reversed(symmetry.permutable):
        group = groups[outer.name]
        if not group.siblings:
            continue
        places: dict[str, tuple[str, int]] = {}
        own = []
        for row in group.siblings:
            name = _title(row.tensors, tensors)
            stacks[name] = row.tensors
            places |= {tensor: (name, unit) for unit, tensor in enumerate(row.tensors)}
            own.append(Site(name, 0, torch.arange(group.size)[:, None], row.role))
            tensors = _with_stack(tensors, name, row.tensors)
        inside = _units_around(symmetry, group)
        groups[group.name] = dataclasses.replace(group, sites=(*group.sites, *own), siblings=())
        groups = {name: _on_stacks(one, group, places, inside.get(name)) for name, one in groups.items()}
    made = Symmetry(tuple(groups.values()), tensors, symmetry.obstacles, symmetry.proof) if stacks else symmetry
    return Stacked(made, symmetry, stacks)


class _StackedWeights(Mapping[str, Tensor]):
    """Weights whose siblings are stacked when they are asked for."""

    def __init__(self, weights: Weights, names: Mapping[str, object], stacks: Mapping[str, tuple[str, ...]]) -> None:
        self._weights, self._names, self._stacks = weights, names, stacks

    def __getitem__(self, name: str) -> Tensor:
        if name in self._stacks:
            return torch.stack([self[part] for part in self._stacks[name]])
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _title(names: tuple[str, ...], taken: Mapping[str, object]) -> str:
    """The siblings' common name, a star where they differ."""
    parts = [name.split(".") for name in names]
    if len({len(part) for part in parts}) > 1:
        parts = [[name] for name in names]
    title = ".".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*parts, strict=True))
    number, made = 2, title
    while made in taken:
        made, number = f"{title} #{number}", number + 1
    return made


def _with_stack(
    tensors: Mapping[str, tuple[int, ...]], name: str, siblings: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """The tensors' shapes with a stack in the place of its first sibling."""
    result: dict[str, tuple[int, ...]] = {}
    gone = set(siblings)
    for tensor, shape in tensors.items():
        if tensor == siblings[0]:
            result[name] = (len(siblings), *shape)
        elif tensor not in gone:
            result[tensor] = shape
    return result


def _units_around(symmetry: Symmetry, group: UnitGroup) -> dict[str, int]:
    """For each group inside the units of a group: which unit it is in."""
    inside: dict[str, int] = {}
    for other in symmetry.permutable:  # parents before children
        if other.parent is None:
            continue
        if other.parent.group == group.name:
            inside[other.name] = other.parent.unit
        elif other.parent.group in inside:
            inside[other.name] = inside[other.parent.group]
    return inside


def _on_stacks(
    group: UnitGroup, owner: UnitGroup, places: Mapping[str, tuple[str, int]], unit: int | None
) -> UnitGroup:
    """A group's places in stacks instead of siblings.

    What is inside one unit lies in one slice; what is outside lies alike in all slices. Factors of single units
    (scales, signs) are never exchanged, so each keeps its own slice.
    """
    rows = tuple(dict.fromkeys(_renamed(row, places) for row in group.siblings))
    if not any(site.tensor in places for site in group.sites):
        return dataclasses.replace(group, siblings=rows) if rows != group.siblings else group
    sites: list[Site] = []
    outside: dict[tuple[object, ...], set[int]] = {}
    for site in group.sites:
        if site.tensor not in places:
            sites.append(site)
            continue
        name, at = places[site.tensor]
        within = tuple((axis + 1, positions) for axis, positions in site.within)
        made = dataclasses.replace(site, tensor=name, dim=site.dim + 1, within=within)
        if unit is not None or group.kind != "permutation":
            sites.append(dataclasses.replace(made, within=((0, torch.tensor([at])), *within)))
            continue
        key = (name, made.dim, _table(made.index), tuple((axis, _table(positions)) for axis, positions in within))
        if key not in outside:
            sites.append(made)
        outside.setdefault(key, set()).add(at)
    if any(len(units) < owner.size for units in outside.values()):
        raise SymmetryError(f"{group.name} must have the same places in all units of {owner.name}, or lie inside one")
    return dataclasses.replace(group, sites=tuple(sites), siblings=rows)


def _renamed(row: Siblings, places: Mapping[str, tuple[str, int]]) -> Siblings:
    names = tuple(places[name][0] if name in places else name for name in row.tensors)
    return dataclasses.replace(row, tensors=names)


def _table(positions: Tensor) -> tuple[object, ...]:
    return (tuple(positions.shape), positions.cpu().numpy().tobytes())
