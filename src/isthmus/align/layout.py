"""Tensors as matrices of units by features, as a site sees them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights


def rows(
    tensor: Tensor, site: Site, index: Int[Tensor, "units entries"] | None = None
) -> Float[Tensor, "units features"]:
    """What belongs to each unit of a site, one unit a row; a view where the layout allows it.

    Args:
        tensor: the site's tensor.
        site: where to look.
        index: a part of the site's index, if only some entries are meant.
    """
    positions = site.index if index is None else index
    for axis, kept in site.within:
        tensor = tensor.index_select(axis, kept.to(tensor.device))
    if not _is_whole(positions, tensor.shape[site.dim]):
        tensor = tensor.index_select(site.dim, positions.reshape(-1).to(tensor.device))
    return tensor.movedim(site.dim, 0).reshape(positions.shape[0], -1)


def counted(symmetry: Symmetry, weights: Weights, *, biases: bool = True) -> tuple[str, ...]:
    """The tensors that an alignment by weights compares: those with a site to match, of floating type.

    Args:
        symmetry: whose sites decide.
        weights: whose types decide.
        biases: whether one-dimensional tensors count, too.
    """
    matched = {site.tensor for group in symmetry.permutable for site in group.matched}
    chosen = [name for name in symmetry.tensors if name in matched and weights[name].is_floating_point()]
    return tuple(name for name in chosen if biases or len(symmetry.tensors[name]) > 1)


def touching(symmetry: Symmetry, names: tuple[str, ...]) -> Mapping[str, tuple[UnitGroup, ...]]:
    """Tensor name → the permutation groups that move it, for the named tensors."""
    found: dict[str, list[UnitGroup]] = {name: [] for name in names}
    for group in symmetry.permutable:
        for name in dict.fromkeys(site.tensor for site in group.sites):
            if name in found:
                found[name].append(group)
    return {name: tuple(groups) for name, groups in found.items()}


def _is_whole(positions: Tensor, length: int) -> bool:
    return positions.shape == (length, 1) and bool((positions[:, 0] == torch.arange(length)).all())
