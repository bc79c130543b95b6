"""The symmetry of a network: groups of units that may be exchanged, and where each unit appears.

Groups can nest. A child group (the channels inside one attention head) acts inside one unit of its parent (the heads).
A permutation first permutes inside the units and then moves the units, so child indices refer to the unit's old place.
Where units are modules beside each other (the experts of a list), each has tensors of its own: siblings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.permutation import Permutation
from isthmus.core.record import Record, renderer
from isthmus.core.weights import Weights

Role = Literal["match", "carry"]
Kind = Literal["permutation", "scale", "sign"]


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """Where the units of a group appear in one tensor.

    Attributes:
        tensor: state-dict name.
        dim: the axis along which the units lie.
        index: positions along ``dim``; row u holds the entries of unit u, corresponding ones in the same column.
        role: ``match`` counts in an alignment's cost; ``carry`` only moves along (running statistics).
        within: restricts the site to some positions of other axes: pairs (axis, positions).
        power: for scale and sign groups, the tensor's entries are multiplied by factor**power.
    """

    tensor: str
    dim: int
    index: Int[Tensor, "units entries"]
    role: Role = "match"
    within: tuple[tuple[int, Int[Tensor, " positions"]], ...] = ()
    power: float = 1.0

    def moved(self, length: int, unit_index: Int[Tensor, " units"]) -> Int[Tensor, " length"]:
        """The gather along ``dim`` (of ``length`` positions) that a permutation of the units means."""
        gather = torch.arange(length)
        gather[self.index.reshape(-1)] = self.index[unit_index].reshape(-1)
        return gather


@dataclasses.dataclass(frozen=True)
class Siblings:
    """Tensors of one shape, one for each unit of a group: to exchange two units is to exchange their tensors.

    Attributes:
        tensors: state-dict names; that of unit u stands at place u.
        role: as for a site.
    """

    tensors: tuple[str, ...]
    role: Role = "match"


@dataclasses.dataclass(frozen=True)
class Parent:
    """The place of a nested group: in unit ``unit`` of ``group``; ``slot`` pairs it with its peers in other units."""

    group: str
    unit: int
    slot: int


@dataclasses.dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that may be exchanged for each other.

    Attributes:
        name: unique, readable, stable; usually the first tensor that writes the units.
        size: number of units.
        sites: every place where they appear.
        kind: ``permutation``; or one factor a unit: ``scale`` (positive) or ``sign`` (±1).
        parent: where the group is nested, if it is.
        siblings: whole tensors that are a unit's own, where units are modules beside each other (a list of experts).
    """

    name: str
    size: int
    sites: tuple[Site, ...]
    kind: Kind = "permutation"
    parent: Parent | None = None
    siblings: tuple[Siblings, ...] = ()

    def __repr__(self) -> str:
        return f"<UnitGroup {self.name}: {self.size} units ({self.kind}) in {len(self.tensors)} tensors>"

    @property
    def matched(self) -> tuple[Site, ...]:
        """The sites that count in an alignment."""
        return tuple(site for site in self.sites if site.role == "match")

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor that the group moves, once, those that hold all units first."""
        own = (name for row in self.siblings for name in row.tensors)
        return tuple(dict.fromkeys([*(site.tensor for site in self.sites), *own]))


@dataclasses.dataclass(frozen=True)
class Obstacle(Record):
    """Something that was pinned.

    Attributes:
        operation: by which.
        reason: why.
        tensors: whose units.
        where: in the module, if that is known.
    """

    operation: str
    reason: str
    tensors: tuple[str, ...] = ()
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Proof(Record):
    """How the symmetry was verified.

    Attributes:
        error: the largest relative change of the outputs over all draws.
        tolerance: up to which it is rounding.
        draws: random permutations, weights and buffers.
        dtype: the precision they were compared in.
        note: what the reader should know.
    """

    error: float
    tolerance: float
    draws: int
    dtype: str
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Symmetry:
    """All groups of exchangeable units of one architecture.

    Attributes:
        groups: permutation groups, and scale and sign groups where asked for.
        tensors: name and shape of every tensor of the architecture, so that bare checkpoints can be checked.
        obstacles: what was pinned, and why.
        proof: how it was verified; ``None`` if it was written by hand.
    """

    groups: tuple[UnitGroup, ...]
    tensors: Mapping[str, tuple[int, ...]]
    obstacles: tuple[Obstacle, ...] = ()
    proof: Proof | None = None

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        known = set(names)
        if len(known) < len(names):
            doubled = sorted(name for name in known if names.count(name) > 1)
            raise SymmetryError(f"groups must have different names; doubled: {listed(doubled)}")
        for group in self.groups:
            _check_group(group, self.tensors)
            _check_siblings(group, self.tensors)
            if group.parent is not None and group.parent.group not in known:
                raise SymmetryError(f"the parent of {group.name} must be a group, got {group.parent.group}")

    def __repr__(self) -> str:
        units = sum(group.size for group in self.groups)
        return f"<Symmetry: {len(self.groups)} groups of {units:,} units, {len(self.obstacles)} obstacles>"

    @functools.cached_property
    def by_name(self) -> Mapping[str, UnitGroup]:
        """The groups by their names."""
        return {group.name: group for group in self.groups}

    @functools.cached_property
    def permutable(self) -> tuple[UnitGroup, ...]:
        """The permutation groups, parents before children."""
        return tuple(sorted((g for g in self.groups if g.kind == "permutation"), key=self.depth))

    @functools.cached_property
    def _children(self) -> Mapping[tuple[str, int, int], str]:
        return {(g.parent.group, g.parent.unit, g.parent.slot): g.name for g in self.groups if g.parent is not None}

    def depth(self, group: UnitGroup) -> int:
        """How many groups lie around this one."""
        level = 0
        while group.parent is not None:
            group = self.by_name[group.parent.group]
            level += 1
        return level

    def child(self, group: str, unit: int, slot: int) -> str | None:
        """The group nested at a place, if there is one."""
        return self._children.get((group, unit, slot))

    def children(self, group: str, unit: int | None = None) -> tuple[UnitGroup, ...]:
        """Groups nested in a group, or in one unit of it."""
        return tuple(
            g for g in self.groups if g.parent is not None and g.parent.group == group and unit in (None, g.parent.unit)
        )

    @property
    def log10_size(self) -> float:
        """log10 of the number of equivalent permuted networks: Σ log10(n!), and log10(2) for every sign."""
        total = sum(math.lgamma(group.size + 1) for group in self.permutable)
        signs = sum(group.size for group in self.groups if group.kind == "sign")
        return (total + signs * math.log(2)) / math.log(10)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the groups; every index of every site would fill it."""
        draw = renderer("html")
        return None if draw is None else draw(self)

    def identity(self) -> Permutation:
        """The permutation that changes nothing."""
        return Permutation(self, {})

    def random(self, generator: torch.Generator, *, groups: Iterable[str] | None = None) -> Permutation:
        """A uniform random permutation of every group, or of some."""
        chosen = set(groups) if groups is not None else None
        indices = {
            group.name: torch.randperm(group.size, generator=generator)
            for group in self.permutable
            if chosen is None or group.name in chosen
        }
        return Permutation(self, indices)

    def canonical(self, weights: Weights) -> dict[str, Tensor]:
        """The standard form of all equivalent copies: scales, signs and orders fixed, as ``core.canonical`` says."""
        from isthmus.core.canonical import canonical

        self.check(weights)
        return canonical(self, weights)

    def check(self, weights: Weights) -> None:
        """Refuse weights that are not of this architecture.

        Raises:
            SymmetryError: names the tensors that are missing or of another shape.
        """
        if missing := [name for name in self.tensors if name not in weights]:
            raise SymmetryError(f"weights must hold every tensor of the symmetry; missing: {listed(missing)}")
        for name, shape in self.tensors.items():
            if tuple(weights[name].shape) != tuple(shape):
                shapes = f"{tuple(shape)} here, {tuple(weights[name].shape)} given"
                raise SymmetryError(f"weights must have the symmetry's shapes; {name} is {shapes}")


def _check_group(group: UnitGroup, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a group whose sites do not fit the tensors."""
    for site in group.sites:
        if site.tensor not in tensors:
            raise SymmetryError(f"sites of {group.name} must lie in tensors of the network; unknown: {site.tensor}")
        shape = tensors[site.tensor]
        if not 0 <= site.dim < len(shape):
            raise SymmetryError(
                f"the site of {group.name} in {site.tensor} must name an axis of {tuple(shape)}, got {site.dim}"
            )
        given = tuple(site.index.shape)
        if len(given) != 2 or given[0] != group.size:
            raise SymmetryError(
                f"the site of {group.name} in {site.tensor} must have one row for each unit, got {given}"
            )
        if site.index.numel() and not _different(site.index, shape[site.dim]):
            raise SymmetryError(f"positions of {group.name} in {site.tensor} must be different and within the axis")


def _check_siblings(group: UnitGroup, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse siblings that cannot stand for each other."""
    if group.siblings and group.kind != "permutation":
        raise SymmetryError(f"only permutation groups have siblings, but {group.name} is a {group.kind} group")
    names = [name for row in group.siblings for name in row.tensors]
    if unknown := [name for name in names if name not in tensors]:
        raise SymmetryError(f"siblings of {group.name} must be tensors of the network; unknown: {listed(unknown)}")
    if len(set(names)) < len(names) or {site.tensor for site in group.sites} & set(names):
        raise SymmetryError(f"each tensor must be one unit's own, but some of {group.name} are named more than once")
    for row in group.siblings:
        if len(row.tensors) != group.size:
            raise SymmetryError(f"siblings of {group.name} must be {group.size}, one a unit, got {len(row.tensors)}")
        if len({tuple(tensors[name]) for name in row.tensors}) > 1:
            raise SymmetryError(f"siblings of {group.name} must have one shape, but {listed(row.tensors)} differ")


def _different(index: Tensor, length: int) -> bool:
    """Whether positions are different and in 0 … length - 1; a network has many sites, most of them short."""
    try:
        times = np.bincount(index.reshape(-1).cpu().numpy())
    except ValueError:  # negative ones
        return False
    return len(times) <= length and int(times.max()) == 1


__all__ = ["Kind", "Obstacle", "Parent", "Permutation", "Proof", "Role", "Siblings", "Site", "Symmetry", "UnitGroup"]
