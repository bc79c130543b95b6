"""Similarity matrices kept between visits: after a neighbour's move only the features that it moved are redone.

Late in an ascent a neighbour moves a few units, so most columns of a product stay as they were. What a tensor looked
like before the move is read off the tensor as it is now: a permutation only moves features among the places that it
changes.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.align.landscape import Landscape
from isthmus.align.layout import rows
from isthmus.align.trees import Tree
from isthmus.core.symmetry import Permutation, Site
from isthmus.core.weights import Weights

_BYTES = 200_000_000
"""The most that kept matrices may take: with the two networks and one copy, what the project allows itself."""
_REDO = 16
"""Updates after which a product is made anew, so that rounding does not pile up."""
_WORTH = 0.6
"""An update costs two products on the changed features; above this share of changed features, redo everything."""


@dataclasses.dataclass
class _Kept:
    """The similarity of one tree's units, and what has moved along other axes of its tensors since it was made."""

    matrix: Float[Tensor, "units units"]
    since: dict[str, dict[int, Int[Tensor, " positions"]]]
    updates: int = 0
    stale: bool = False


class Costs:
    """The similarity matrices of one climb. Mutable, and private to it.

    Only for trees with nothing nested inside that touch each tensor along one axis; the others are computed every time.
    """

    def __init__(self, landscape: Landscape) -> None:
        self._landscape = landscape
        self._kept: dict[str, _Kept] = {}
        self._reserved: set[str] = set()
        self._room = _BYTES

    def similarity(self, tree: Tree, current: Weights) -> Float[Tensor, "units units"]:
        """How alike the units of a flat tree are now."""
        self.reserve(tree)
        kept = self._kept.get(tree.name)
        if kept is None or kept.stale or kept.updates >= _REDO or not self._update(tree, kept, current):
            matrix = self._landscape.similarity(current)([tree.root], [tree.root])[0, 0]
            self._keep(tree, matrix)
            return matrix
        return kept.matrix

    def moved(self, tree: Tree, step: Permutation, *, alone: bool) -> None:
        """Note a step: of a flat tree's own units (``alone``), or of anything in a tree."""
        own = self._kept.get(tree.name)
        if own is not None:
            own.matrix = own.matrix[:, step[tree.name].to(own.matrix.device)]
            own.stale = own.stale or not alone
        for name in self._landscape.tensors[tree.name]:
            for other in self._landscape.trees_on[name]:
                if other != tree.name and other in self._kept:
                    _note(self._kept[other], name, step)

    def reserve(self, tree: Tree) -> None:
        """Set room aside for a tree, if there is some left; before several trees are looked at in threads."""
        size = tree.root.size**2 * self._landscape.element_size
        flat = not tree.nested and tree.name not in self._landscape.quadratic
        if flat and tree.name not in self._reserved and size <= self._room:
            self._room -= size
            self._reserved.add(tree.name)

    def _keep(self, tree: Tree, matrix: Tensor) -> None:
        if tree.name in self._reserved:
            self._kept[tree.name] = _Kept(matrix, {})

    def _update(self, tree: Tree, kept: _Kept, current: Weights) -> bool:
        """Bring a kept matrix up to date; say whether that was worth it."""
        work = 0.0
        total = sum(math.prod(self._landscape.symmetry.tensors[name]) for name in self._landscape.tensors[tree.name])
        # Moved places of an axis that a site is limited to cannot be told apart by their number: count anew.
        if any(axis in kept.since.get(site.tensor, {}) for site in tree.root.sites for axis, _ in site.within):
            return False
        for name, axes in kept.since.items():
            if len(axes) > 1:
                return False
            for gather in axes.values():
                share = float((gather != torch.arange(len(gather))).double().mean())
                work += share * math.prod(self._landscape.symmetry.tensors[name])
        if work > _WORTH * total:
            return False
        for site in tree.root.sites:
            for axis, gather in kept.since.get(site.tensor, {}).items():
                if axis == site.dim:  # other units of that axis; this group's stayed where they were
                    continue
                kept.matrix = kept.matrix + self._change(site, current[site.tensor], axis, gather)
        kept.updates += bool(kept.since)
        kept.since = {}
        return True

    def _change(self, site: Site, tensor: Tensor, axis: int, gather: Tensor) -> Float[Tensor, "units units"]:
        """What moving features along another axis did to one site's product."""
        places = (gather != torch.arange(len(gather))).nonzero()[:, 0]
        before = gather.argsort()[places].to(tensor.device)
        places = places.to(tensor.device)
        difference = tensor.index_select(axis, places) - tensor.index_select(axis, before)
        fixed = self._landscape.fixed[site.tensor].index_select(axis, places)
        return rows(fixed, site) @ rows(difference, site).T


def _note(kept: _Kept, name: str, step: Permutation) -> None:
    """Add the moves along one tensor's axes to what has happened since a matrix was made."""
    for axis, gather, within in step.gathers(name):
        if within:
            kept.stale = True
            return
        earlier = kept.since.setdefault(name, {}).get(axis)
        kept.since[name][axis] = gather if earlier is None else earlier[gather]
