"""One standard form for all copies of a network that its symmetry makes equivalent, and scalings and flips of units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isthmus.core.errors import SymmetryError
from isthmus.core.weights import Weights

if TYPE_CHECKING:
    from isthmus.core.symmetry import Site, Symmetry, UnitGroup

_SWEEPS = 20  # scales reach their fixed point in one sweep along a chain; more are needed where layers feed back


def scaled(weights: Weights, group: UnitGroup, factors: Tensor) -> dict[str, Tensor]:
    """Multiply each unit of a scale or sign group by its factor: entries at a site by factor**power.

    Raises:
        SymmetryError: the group is of another kind, or a factor is not of this kind (positive; ±1).
    """
    if group.kind == "permutation":
        raise SymmetryError(
            f"only units of scale and sign groups have factors, but {group.name} is a permutation group"
        )
    if factors.shape != (group.size,):
        raise SymmetryError(f"{group.name} must get one factor for each of its {group.size} units, got {len(factors)}")
    allowed = factors > 0 if group.kind == "scale" else factors.abs() == 1
    if not bool(allowed.all()):
        must = "positive" if group.kind == "scale" else "1 or -1"
        raise SymmetryError(f"factors of the {group.kind} group {group.name} must be {must}")
    result = dict(weights)
    for site in group.sites:
        result[site.tensor] = _multiplied(result[site.tensor], site, factors)
    return result


def canonical(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    """The standard form: scales, then signs, then orders of units fixed, each from the units' own entries.

    Every unit of a scale group gets incoming entries of norm 1; every unit of a sign group a positive sum of incoming
    entries; units of permutation groups are sorted by the norm of their incoming entries, inner groups first. Two
    networks
    that are copies of each other have the same standard form as long as no two such numbers are equal.

    Cost: a few passes over the weights.
    """
    result = dict(weights)
    scales = [group for group in symmetry.groups if group.kind == "scale"]
    for _ in range(_SWEEPS if scales else 0):
        change = 0.0
        for group in scales:
            factors = 1 / _moment(result, group, 2).sqrt().clamp_min(1e-30)
            factors[~factors.isfinite() | (factors > 1e29)] = 1.0
            result = scaled(result, group, factors)
            change = max(change, float((factors - 1).abs().max()))
        if change < 1e-12:
            break
    signs = [group for group in symmetry.groups if group.kind == "sign"]
    for _ in range(_SWEEPS if signs else 0):
        flipped = False
        for group in signs:
            factors = torch.where(_moment(result, group, 1) < 0, -1.0, 1.0)
            if bool((factors < 0).any()):
                result, flipped = scaled(result, group, factors), True
        if not flipped:
            break
    return _sorted(symmetry, result)


def _sorted(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    from isthmus.core.symmetry import Permutation

    indices: Mapping[str, Tensor] = {
        group.name: _moment(weights, group, 2, signed=False).argsort() for group in symmetry.permutable
    }
    return Permutation(symmetry, indices).apply(weights)


def _moment(weights: Weights, group: UnitGroup, power: int, *, signed: bool = True) -> Tensor:
    """Sums of powers of each unit's entries in the first tensor that writes it (everywhere, if ``signed`` is off).

    Sums are blind to the order of other units; a single tensor is blind to what other groups' factors do elsewhere.
    """
    own = [site for site in group.sites if site.role == "match" and (not signed or site.power > 0)]
    first = [site for site in own if site.dim == 0] or own
    total = torch.zeros(group.size, dtype=torch.float64)
    for site in [site for site in first if site.tensor == first[0].tensor] if signed else own:
        part = _part(weights[site.tensor], site).double().cpu()
        lines = part.movedim(site.dim, 0).reshape(part.shape[site.dim], -1).pow(power).sum(dim=1)
        total += lines[site.index].sum(dim=1)
    return total


def _part(tensor: Tensor, site: Site) -> Tensor:
    for axis, positions in site.within:
        tensor = tensor.index_select(axis, positions.to(tensor.device))
    return tensor


def _multiplied(tensor: Tensor, site: Site, factors: Tensor) -> Tensor:
    line = torch.ones(tensor.shape[site.dim], dtype=torch.float64)
    line[site.index] = (factors.double().cpu() ** site.power)[:, None].expand(site.index.shape)
    layout = [1] * tensor.dim()
    layout[site.dim] = -1
    wide = line.reshape(layout).expand(tensor.shape)
    if site.within:
        inside = torch.ones(tensor.shape, dtype=torch.bool)
        for axis, positions in site.within:
            mask = torch.zeros(tensor.shape[axis], dtype=torch.bool)
            mask[positions] = True
            shape = [1] * tensor.dim()
            shape[axis] = -1
            inside &= mask.reshape(shape)
        wide = torch.where(inside, wide, 1.0)
    return tensor * wide.to(tensor.device, tensor.dtype)
