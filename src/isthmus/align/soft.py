"""Soft permutations: one doubly stochastic matrix a group, applied to weights so that gradients flow."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.align.assignment import assign
from isthmus.core.symmetry import Permutation, Site, Symmetry
from isthmus.core.weights import Weights

Soft = Mapping[str, Float[Tensor, "units units"]]
"""Group → matrix; row = place in the result, column = unit of the source. Hard ones are rows of the unit matrix."""


def hard(permutation: Permutation, like: Tensor) -> dict[str, Tensor]:
    """A permutation as matrices, on the device and in the precision of ``like``."""
    return {
        name: torch.eye(len(index), dtype=like.dtype, device=like.device)[index.to(like.device)]
        for name, index in permutation.indices.items()
    }


def nearest(symmetry: Symmetry, soft: Soft) -> Permutation:
    """The permutation with the largest inner product with soft matrices, group by group."""
    return Permutation(symmetry, {name: assign(matrix.detach()) for name, matrix in soft.items()})


def apply(symmetry: Symmetry, soft: Soft, weights: Weights) -> dict[str, Tensor]:
    """Weights whose units are mixed by soft matrices; for hard ones the same as :meth:`Permutation.apply`.

    Args:
        symmetry: of the weights; tensors that ``weights`` lacks are left out.
        soft: a matrix for every permutation group that mixes; the others stay.
        weights: floating tensors.
    """
    result = dict(weights)
    for group in reversed(symmetry.permutable):
        if group.name in soft:
            for site in group.sites:
                if site.tensor in result and result[site.tensor].is_floating_point():
                    result[site.tensor] = _mixed(result[site.tensor], site, soft[group.name])
            for row in group.siblings:
                if all(name in result and result[name].is_floating_point() for name in row.tensors):
                    units = torch.stack([result[name] for name in row.tensors])
                    mixed = torch.tensordot(soft[group.name].to(units.dtype), units, dims=1)
                    result |= dict(zip(row.tensors, mixed.unbind(0), strict=True))
    return result


def sinkhorn(logits: Float[Tensor, "units units"], *, iterations: int = 20) -> Float[Tensor, "units units"]:
    """The doubly stochastic matrix that alternate normalising of rows and columns of exp(logits) leads to.

    Reference: Mena et al., "Learning latent permutations with Gumbel-Sinkhorn networks", arXiv 1802.08665, equation 1.
    """
    for _ in range(iterations):
        logits = logits - logits.logsumexp(1, keepdim=True)
        logits = logits - logits.logsumexp(0, keepdim=True)
    return logits.exp()


def _mixed(tensor: Tensor, site: Site, matrix: Tensor) -> Tensor:
    """One tensor with the units of one site mixed."""
    flat = site.index.reshape(-1).to(tensor.device)
    region = tensor
    places = [torch.arange(size, device=tensor.device) for size in tensor.shape]
    for axis, kept in site.within:
        places[axis] = kept.to(tensor.device)
        region = region.index_select(axis, places[axis])
    places[site.dim] = flat
    moved = region.index_select(site.dim, flat).movedim(site.dim, 0)
    units = moved.reshape(*site.index.shape, *moved.shape[1:])
    mixed = torch.tensordot(matrix.to(units.dtype), units, dims=1).reshape(moved.shape).movedim(0, site.dim)
    if not site.within and len(flat) == tensor.shape[site.dim]:
        return mixed.index_select(site.dim, flat.argsort())
    return tensor.index_put(tuple(torch.meshgrid(*places, indexing="ij")), mixed)
