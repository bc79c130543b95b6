"""Permutations of a symmetry's units, and what they do to weights.

Convention: a permutation *gathers*. Unit u of the result is unit ``indices[group][u]`` of the source.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.weights import Weights

if TYPE_CHECKING:
    from isthmus.core.symmetry import Symmetry

Gather = tuple[int, Tensor, tuple[tuple[int, Tensor], ...]]
"""Positions along an axis, inside a slice of other axes: (axis, positions, within)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Permutation:
    """One permutation for every group of a symmetry (gather convention); groups that are not named stay.

    Attributes:
        symmetry: whose units are permuted.
        indices: group name → index vector; unit u of the result is unit ``indices[u]`` of the source.
    """

    symmetry: Symmetry
    indices: Mapping[str, Int[Tensor, " units"]]

    def __post_init__(self) -> None:
        known = {group.name: group.size for group in self.symmetry.permutable}
        if unknown := [name for name in self.indices if name not in known]:
            raise SymmetryError(f"a permutation must name groups of its symmetry; unknown: {listed(unknown)}")
        full = {}
        for name, size in known.items():
            index = torch.as_tensor(self.indices.get(name, torch.arange(size)), dtype=torch.int64).cpu()
            if index.shape != (size,) or not torch.equal(index.sort().values, torch.arange(size)):
                given = f"{len(index.unique())} different units in shape {tuple(index.shape)}"
                raise SymmetryError(f"the index of {name} must be a permutation of 0 … {size - 1}, got {given}")
            full[name] = index
        object.__setattr__(self, "indices", full)

    def __repr__(self) -> str:
        moved = sum(int((index != torch.arange(len(index))).sum()) for index in self.indices.values())
        units = sum(map(len, self.indices.values()))
        return f"<Permutation of {len(self.indices)} groups: {moved} of {units} units move>"

    def __getitem__(self, group: str) -> Tensor:
        return self.indices[group]

    def apply(self, weights: Weights, *, stacked: bool = False) -> dict[str, Tensor]:
        """The permuted weights. Tensors that nothing moves are handed on as they are; none is written to.

        Args:
            weights: at least the tensors of the symmetry; further ones (optimiser state, …) are handed on.
            stacked: the tensors have a leading solution axis, and all solutions are permuted alike.

        Raises:
            SymmetryError: a tensor is missing or of another shape.
        """
        if not stacked:
            self.symmetry.check(weights)
        result = dict(weights)
        for name in self._steps:
            result[name] = self.moved(name, weights[self.source(name)], stacked=stacked)
        return result

    def source(self, name: str) -> str:
        """The tensor whose entries come to lie in a tensor: itself, or where siblings are exchanged a sibling."""
        return self._steps[name][0] if name in self._steps else name

    def moved(self, name: str, tensor: Tensor, *, stacked: bool = False) -> Tensor:
        """One tensor of the permuted weights; for checkpoints that are read one tensor at a time.

        Args:
            name: of the result.
            tensor: the one that :meth:`source` names for it, as it is before.
            stacked: the tensor has a leading solution axis.
        """
        for dim, gather, within in self.gathers(name):
            tensor = _gather(tensor, dim + stacked, gather.to(tensor.device), within, shift=int(stacked))
        return tensor

    def gathers(self, tensor: str) -> tuple[Gather, ...]:
        """The gathers along axes by which :meth:`source` becomes a tensor, in order: (axis, positions, within)."""
        return self._steps[tensor][1] if tensor in self._steps else ()

    def after(self, first: Permutation) -> Permutation:
        """The one permutation that does ``first`` and then this: ``self.apply(first.apply(w))``.

        Raises:
            SymmetryError: the two are of different symmetries.
        """
        sizes = [{group.name: group.size for group in p.symmetry.permutable} for p in (first, self)]
        if sizes[0] != sizes[1]:
            raise SymmetryError("permutations must be of one symmetry to follow each other; these have other groups")
        return Permutation(
            self.symmetry,
            {name: index[self.indices[first._image(name)]] for name, index in first.indices.items()},
        )

    def inverse(self) -> Permutation:
        """The permutation that undoes this one."""
        return Permutation(self.symmetry, {self._image(name): index.argsort() for name, index in self.indices.items()})

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return all(torch.equal(index, torch.arange(len(index))) for index in self.indices.values())

    @property
    def fixed_share(self) -> float:
        """The share of units that stay in place, in [0, 1]."""
        total = sum(len(index) for index in self.indices.values())
        fixed = sum(int((index == torch.arange(len(index))).sum()) for index in self.indices.values())
        return fixed / total if total else 1.0

    def same_as(self, other: Permutation) -> bool:
        """Whether both move every unit alike."""
        return self.indices.keys() == other.indices.keys() and all(
            torch.equal(index, other.indices[name]) for name, index in self.indices.items()
        )

    def _image(self, name: str) -> str:
        """The group at whose place the units of group ``name`` come to lie: nested groups move with their parents."""
        parent = self.symmetry.by_name[name].parent
        if parent is None or parent.group not in self.indices:
            return name
        place = int((self.indices[parent.group] == parent.unit).nonzero())
        image = self.symmetry.child(self._image(parent.group), place, parent.slot)
        if image is None:
            raise SymmetryError(f"units of {parent.group} must hold the same nested groups; {name} has no peer")
        return image

    @functools.cached_property
    def _steps(self) -> dict[str, tuple[str, tuple[Gather, ...]]]:
        """For each tensor that changes: its source and gathers, children before parents, neighbours composed."""
        steps: dict[str, tuple[str, list[Gather]]] = {}
        for group in reversed(self.symmetry.permutable):
            index = self.indices[group.name]
            if torch.equal(index, torch.arange(group.size)):
                continue
            for site in group.sites:
                gather = site.moved(self.symmetry.tensors[site.tensor][site.dim], index)
                done = steps.setdefault(site.tensor, (site.tensor, []))[1]
                place = None if site.within else _joinable(done, site.dim)
                if place is None:
                    done.append((site.dim, gather, site.within))
                else:
                    done[place] = (site.dim, done[place][1][gather], ())
            for row in group.siblings:
                before = [steps.pop(name, (name, [])) for name in row.tensors]
                steps |= {name: before[place] for name, place in zip(row.tensors, index.tolist(), strict=True)}
        return {name: (source, tuple(gathers)) for name, (source, gathers) in steps.items()}


def _joinable(steps: list[Gather], dim: int) -> int | None:
    """The earlier gather along ``dim`` that a further one may be joined to.

    Whole-axis gathers along different axes commute; a gather that is limited to a slice is a barrier between them.
    """
    for place in range(len(steps) - 1, -1, -1):
        axis, _, within = steps[place]
        if within:
            return None
        if axis == dim:
            return place
    return None


def _gather(tensor: Tensor, dim: int, gather: Tensor, within: tuple[tuple[int, Tensor], ...], *, shift: int) -> Tensor:
    """``tensor`` with positions gathered along ``dim``, only inside the slice that ``within`` names."""
    if not within:
        return tensor.index_select(dim, gather)
    slices = {axis + shift: positions.to(tensor.device) for axis, positions in within}
    axes = [slices.get(axis, torch.arange(size, device=tensor.device)) for axis, size in enumerate(tensor.shape)]
    target = torch.meshgrid(*axes, indexing="ij")
    axes[dim] = gather
    result = tensor.clone()
    result[target] = tensor[torch.meshgrid(*axes, indexing="ij")]
    return result
