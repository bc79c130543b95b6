"""Remove the freedom of scale that ReLU networks have before their weights are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights

# Sweeps over the groups until no factor differs from 1. One is enough where groups come in the network's order; a chain
# in reverse order needs as many as it has layers.
_SWEEPS, _TOLERANCE = 100, 1e-9


def unit_scale(symmetry: Symmetry) -> Callable[[Weights], dict[str, Tensor]]:
    """A function that gives every unit of the scale groups incoming weights of unit length and pushes the length on.

    The network's function does not change. Units whose incoming weights are all zero stay as they are.

    Args:
        symmetry: with groups of kind ``scale``; sites of positive power are what comes in, those of negative power what
            goes out.

    Raises:
        SymmetryError: it has no scale groups.
    """
    groups = [group for group in symmetry.groups if group.kind == "scale"]
    if not groups:
        raise SymmetryError("removing scale needs a symmetry with groups of kind scale, got none")

    def normalise(weights: Weights) -> dict[str, Tensor]:
        symmetry.check(weights)
        touched = {site.tensor for group in groups for site in group.sites}
        exact = {name: weights[name].detach().double() for name in touched}
        for _ in range(_SWEEPS):
            factors = [_rescale(exact, group) for group in groups]
            if max(float((factor - 1).abs().max()) for factor in factors if len(factor)) < _TOLERANCE:
                break
        return {name: exact[name].to(tensor.dtype) if name in exact else tensor for name, tensor in weights.items()}

    return normalise


def _rescale(weights: dict[str, Tensor], group: UnitGroup) -> Float[Tensor, " units"]:
    """Multiply one group's tensors so that what comes in has unit length; the factors."""
    square = torch.zeros(group.size, dtype=torch.float64)
    for site in group.matched:
        if site.power > 0:
            square += _units(weights[site.tensor], site).square().sum(1).cpu()
    factors = torch.where(square > 0, square.rsqrt(), torch.ones_like(square))
    for site in group.sites:
        weights[site.tensor] = _multiplied(weights[site.tensor], site, factors**site.power)
    return factors


def _units(tensor: Tensor, site: Site) -> Float[Tensor, "units entries"]:
    """The entries of each unit at a site, one row for each."""
    for axis, positions in site.within:
        tensor = tensor.index_select(axis, positions.to(tensor.device))
    flat = site.index.reshape(-1).to(tensor.device)
    picked = tensor.index_select(site.dim, flat).movedim(site.dim, 0)
    return picked.reshape(site.index.shape[0], -1)


def _multiplied(tensor: Tensor, site: Site, factors: Float[Tensor, " units"]) -> Tensor:
    """The tensor with each unit's entries multiplied by its factor."""
    line = torch.ones(tensor.shape[site.dim], dtype=tensor.dtype)
    line[site.index.reshape(-1)] = factors.repeat_interleave(site.index.shape[1])
    shape = [1] * tensor.dim()
    shape[site.dim] = -1
    scaled = tensor * line.to(tensor.device).view(shape)
    if not site.within:
        return scaled
    mask = torch.ones((), dtype=torch.bool)
    for axis, positions in site.within:
        inside = torch.zeros(tensor.shape[axis], dtype=torch.bool)
        inside[positions] = True
        view = [1] * tensor.dim()
        view[axis] = -1
        mask = mask & inside.view(view)
    return torch.where(mask.to(tensor.device), scaled, tensor)
