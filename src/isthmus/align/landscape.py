"""The similarity of two solutions as a function of a permutation, one tree of groups at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.align.held import Made, fits, working
from isthmus.align.layout import counted, rows, touching
from isthmus.align.trees import Similarity, Tree, trees_of, uncovered
from isthmus.core.siblings import Stacked, stacked
from isthmus.core.symmetry import Permutation, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights

Kernel = str
_PART = 1 << 17
"""Entries that are converted to double precision at a time: few enough to stay in the processor's cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """f(π) = Σ ⟨π(moving), fixed⟩ over the counted tensors, by trees of groups.

    Units that are modules of their own are looked at as slices of stacks, so that nothing here knows of siblings.

    Attributes:
        symmetry: whose permutations are searched; of stacked weights.
        names: the tensors that count.
        moving: their values in the moving solution, in working precision.
        fixed: and in the fixed one.
        stacking: between the solutions' own tensors and these.
    """

    symmetry: Symmetry
    names: tuple[str, ...]
    moving: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    stacking: Stacked

    @classmethod
    def of(
        cls, symmetry: Symmetry, moving: Weights, fixed: Weights, *, kernel: Kernel = "linear", biases: bool = True
    ) -> Landscape:
        """The landscape of two solutions.

        Args:
            symmetry: of both.
            moving: the solution that is permuted.
            fixed: the one that stays.
            kernel: ``linear``: inner products; ``cosine``: every unit's slice along a tensor's first permuted axis is
                first scaled to length one (one-dimensional tensors as a whole), so that all units weigh alike.
            biases: whether one-dimensional tensors count.
        """
        symmetry.check(moving)
        symmetry.check(fixed)
        stacking = stacked(symmetry)
        symmetry, moving, fixed = stacking.symmetry, stacking.weights(moving), stacking.weights(fixed)
        names = counted(symmetry, fixed, biases=biases)
        if not biases:
            names = tuple(name for name in names if name not in stacking.stacks or len(symmetry.tensors[name]) > 2)
        device = fixed[names[0]].device if names else torch.device("cpu")
        keep = fits(symmetry, names)
        own, other = (working(weights, names, device=device, keep=keep) for weights in (moving, fixed))
        if kernel == "cosine":
            own, other = _unit_length(symmetry, own), _unit_length(symmetry, other)
        return cls(symmetry, names, own, other, stacking)

    @functools.cached_property
    def trees(self) -> tuple[Tree, ...]:
        """What is solved at once."""
        return trees_of(self.symmetry)

    @functools.cached_property
    def tensors(self) -> Mapping[str, tuple[str, ...]]:
        """Tree → the counted tensors that it moves."""
        return {
            tree.name: tuple(
                dict.fromkeys(s.tensor for g in tree.members for s in g.sites if s.tensor in self._counted)
            )
            for tree in self.trees
        }

    @functools.cached_property
    def trees_on(self) -> Mapping[str, tuple[str, ...]]:
        """Counted tensor → the trees that move it."""
        return {name: tuple(dict.fromkeys(self.root[g.name] for g in groups)) for name, groups in self.touching.items()}

    @functools.cached_property
    def norms(self) -> Mapping[str, float]:
        """Tree → ‖moving‖·‖fixed‖ over the tensors that it moves."""
        return {tree: self._lengths(names) for tree, names in self.tensors.items()}

    @functools.cached_property
    def neighbours(self) -> Mapping[str, frozenset[str]]:
        """Tree → the other trees whose best answer depends on it."""
        sets = {name: set(tensors) for name, tensors in self.tensors.items()}
        return {
            name: frozenset(other for other in sets if other != name and sets[other] & tensors)
            for name, tensors in sets.items()
        }

    @functools.cached_property
    def quadratic(self) -> frozenset[str]:
        """Trees that touch one tensor on two axes: a step then changes its own similarities."""
        found = set()
        for tree in self.trees:
            axes: dict[str, set[int]] = {}
            for group in tree.members:
                for site in group.sites:
                    axes.setdefault(site.tensor, set()).add(site.dim)
            if any(len(dims) > 1 for name, dims in axes.items() if name in self._counted):
                found.add(tree.name)
        return frozenset(found)

    @functools.cached_property
    def separable(self) -> bool:
        """Whether one assignment for each tree is the optimum, as with one hidden layer: none depends on another."""
        return not self.quadratic and not any(tree.nested or self.neighbours[tree.name] for tree in self.trees)

    @functools.cached_property
    def root(self) -> Mapping[str, str]:
        """Group → the tree that it is in."""
        return {group.name: tree.name for tree in self.trees for group in tree.members}

    @functools.cached_property
    def touching(self) -> Mapping[str, tuple[UnitGroup, ...]]:
        """Counted tensor → the groups that move it."""
        return touching(self.symmetry, self.names)

    def objective(self, current: Weights) -> float:
        """Σ ⟨current, fixed⟩ in float64."""
        return math.fsum(self.part(current, name) for name in self.names)

    def part(self, current: Weights, name: str) -> float:
        """One tensor's share of the objective, in float64."""
        return _dot(current[name], self.fixed[name])

    def similarity(
        self, current: Weights, *, usable: Callable[[Site], bool] = lambda _: True, invariant: bool = False
    ) -> Similarity:
        """How alike the units are when everything else stays as it is in ``current``.

        Args:
            current: the moving solution as it is permuted now.
            usable: which sites count.
            invariant: compare only what no permutation of other groups changes: length and sum of each unit's slice.
        """

        def compare(fixed: Sequence[UnitGroup], moving: Sequence[UnitGroup]) -> Tensor:
            units = fixed[0].size
            total = torch.zeros(len(fixed) * units, len(moving) * units, dtype=self._dtype, device=self._device)
            for place, site in enumerate(fixed[0].sites):
                if site.tensor in self._counted and usable(site):
                    left = _joined([self._rows(self.fixed, group, place) for group in fixed])
                    right = _joined([self._rows(current, group, place) for group in moving])
                    if invariant:
                        left, right = _invariants(left), _invariants(right)
                    if left.shape[1]:
                        total.addmm_(left, right.T) if left.dtype == total.dtype else total.add_(left @ right.T)
            return total.reshape(len(fixed), units, len(moving), units).permute(0, 2, 1, 3)

        return compare

    def gain(self, current: Weights, step: Permutation, names: Sequence[str]) -> float:
        """How much a step that moves some tensors changes the objective, in float64."""
        total = 0.0
        for name in names:
            if step.gathers(name):
                moved = step.moved(name, current[name])
                total += _dot(moved, self.fixed[name]) - _dot(current[name], self.fixed[name])
        return total

    @functools.cached_property
    def scale(self) -> float:
        """‖moving‖·‖fixed‖ over the counted tensors: no objective is larger."""
        return self._lengths(self.names)

    def _lengths(self, names: Sequence[str]) -> float:
        return math.sqrt(math.prod(math.fsum(square[name] for name in names) for square in self._squares))

    @functools.cached_property
    def _squares(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        moving, fixed = ({n: float(side[n].norm()) ** 2 for n in self.names} for side in (self.moving, self.fixed))
        return moving, fixed

    @functools.cached_property
    def _counted(self) -> frozenset[str]:
        return frozenset(self.names)

    @functools.cached_property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if any(self.fixed[n].dtype == torch.float64 for n in self.names) else torch.float32

    @property
    def element_size(self) -> int:
        """Bytes of one similarity."""
        return self._dtype.itemsize

    @functools.cached_property
    def _device(self) -> torch.device:
        return next(iter(self.fixed.values())).device if self.names else torch.device("cpu")

    def _rows(self, weights: Weights, group: UnitGroup, place: int) -> Float[Tensor, "units features"]:
        site = group.sites[place]
        index = self._free.get((group.name, place))
        return rows(weights[site.tensor], site, index).to(device=self._device, dtype=self._dtype)

    @functools.cached_property
    def _free(self) -> Mapping[tuple[str, int], Tensor]:
        """For sites of groups with something nested inside: the part of the index that no nested group has."""
        outer = [group for tree in self.trees for group in tree.members if self.symmetry.children(group.name)]
        return {(g.name, n): uncovered(self.symmetry, g, site) for g in outer for n, site in enumerate(g.sites)}


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _invariants(features: Tensor) -> Float[Tensor, "units invariants"]:
    """The length of each row, and its sum in the scale of a length."""
    if not features.shape[1]:
        return features
    return torch.stack([features.norm(dim=1), features.sum(1) / math.sqrt(features.shape[1])], 1)


def _dot(first: Tensor, second: Tensor) -> float:
    """Inner product in float64, a part at a time: converting a large embedding whole would take gigabytes."""
    parts = zip(first.reshape(-1).split(_PART), second.reshape(-1).split(_PART), strict=True)
    return math.fsum(float(torch.dot(left.double(), right.double())) for left, right in parts)


def _unit_length(symmetry: Symmetry, weights: Weights) -> Mapping[str, Tensor]:
    """Weights whose slices along each tensor's first permuted axis have length one; vectors as a whole."""
    axes: dict[str, int] = {}
    for group in symmetry.permutable:
        for site in group.sites:
            axes[site.tensor] = min(site.dim, axes.get(site.tensor, site.dim))

    def scaled(name: str) -> Tensor:
        tensor = weights[name]
        others = [axis for axis in range(tensor.dim()) if axis != axes[name] or tensor.dim() == 1]
        length = torch.linalg.vector_norm(tensor, dim=others, keepdim=True)
        return tensor / torch.where(length > 0, length, torch.ones_like(length))

    if isinstance(weights, Made):
        return Made(tuple(weights), scaled)
    return {name: scaled(name) for name in weights}
