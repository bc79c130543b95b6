"""Taking out the scale that a network does not see: ReLU(c·x) = c·ReLU(x), so a unit's weights have no own length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights

_SWEEPS = (
    100  # one sweep settles one layer if the groups come in the worst order; deeper networks are refused, not cut short
)


def rescaled(weights: Weights, symmetry: Symmetry, factors: Mapping[str, Float[Tensor, " units"]]) -> dict[str, Tensor]:
    """Multiply every unit's entries by its factor to the power that each site names; the function stays what it was.

    Args:
        weights: of the symmetry's architecture.
        symmetry: holds the groups of kind ``scale``.
        factors: group name → one positive factor for each unit; groups without an entry stay.

    Raises:
        SymmetryError: an unknown group, a group of another kind, factors that are not positive or not one for each
            unit.

    Example:
        >>> one = UnitGroup("h", 1, (Site("in", 0, torch.tensor([[0]])),
        ...                          Site("out", 1, torch.tensor([[0]]), power=-1.0)), kind="scale")
        >>> symmetry = Symmetry((one,), {"in": (1, 2), "out": (3, 1)})
        >>> weights = {"in": torch.ones(1, 2), "out": torch.ones(3, 1)}
        >>> rescaled(weights, symmetry, {"h": torch.tensor([4.0])})["out"].flatten().tolist()
        [0.25, 0.25, 0.25]
    """
    symmetry.check(weights)
    groups = {group.name: group for group in _scales(symmetry)}
    if unknown := [name for name in factors if name not in groups]:
        raise SymmetryError(f"factors must name scale groups of the symmetry; unknown: {listed(unknown)}")
    result = dict(weights)
    for name, factor in factors.items():
        group = groups[name]
        if factor.shape != (group.size,) or not bool((factor > 0).all()):
            raise SymmetryError(f"factors of {name} must be {group.size} positive numbers, got {tuple(factor.shape)}")
        for site in group.sites:
            result[site.tensor] = _multiplied(result[site.tensor], site, factor)
    return result


def normalised(weights: Weights, symmetry: Symmetry) -> dict[str, Tensor]:
    """The equivalent weights whose scaled units have incoming vectors of length one, the lengths pushed on.

    The incoming vector of a unit is everything at its matched sites with a positive power: its weights and its bias.
    Units without incoming weights stay. Take out the scale before overlaps, perturbations and eigenvalues are compared
    between networks; without it they can be made any size (Dinh et al. 2017).

    Args:
        weights: of the symmetry's architecture; combined in float64 and rounded once.
        symmetry: holds the groups of kind ``scale``.

    Raises:
        SymmetryError: no scale groups, a group whose incoming sites have different powers, or lengths that do not
            settle.

    Reference: Pittorino et al., "Deep networks on toroids", arXiv 2202.03038, section 3.
    """
    groups = _scales(symmetry)
    if not groups:
        raise SymmetryError("taking out the scale needs a symmetry with groups of kind 'scale'; this one has none")
    symmetry.check(weights)
    working = {name: t.double() if t.is_floating_point() else t for name, t in weights.items()}
    for _ in range(_SWEEPS):
        largest = 0.0
        for group in groups:
            factor = _unit_length(working, group)
            largest = max(largest, float(factor.log().abs().max()))
            working = rescaled(working, symmetry, {group.name: factor})
        if largest < 1e-12:
            return {name: tensor.to(weights[name].dtype) for name, tensor in working.items()}
    raise SymmetryError(f"lengths must settle within {_SWEEPS} sweeps; the scale groups feed each other in a circle")


def _scales(symmetry: Symmetry) -> list[UnitGroup]:
    return [group for group in symmetry.groups if group.kind == "scale"]


def _unit_length(weights: Weights, group: UnitGroup) -> Float[Tensor, " units"]:
    """The factors that bring the incoming vectors of a group to length one."""
    incoming = [site for site in group.matched if site.power > 0]
    powers = {site.power for site in incoming}
    if len(powers) != 1:
        raise SymmetryError(f"incoming sites of {group.name} must share one positive power, got {sorted(powers)}")
    square = torch.zeros(group.size, dtype=torch.float64)
    for site in incoming:
        tensor = weights[site.tensor]
        for axis, positions in site.within:
            tensor = tensor.index_select(axis, positions.to(tensor.device))
        rows = tensor.double().square().movedim(site.dim, 0).reshape(tensor.shape[site.dim], -1).sum(1).cpu()
        square += rows[site.index].sum(1)
    return torch.where(square > 0, square, 1.0) ** (-0.5 / powers.pop())


def _multiplied(tensor: Tensor, site: Site, factor: Tensor) -> Tensor:
    """A tensor with the entries at a site multiplied by factor**power, in at least float32."""
    working = torch.promote_types(tensor.dtype, torch.float32)
    along = torch.ones(tensor.shape[site.dim], dtype=working, device=tensor.device)
    scale = (factor.to(along.device, torch.float64) ** site.power).to(working)
    along[site.index.reshape(-1).to(along.device)] = scale.repeat_interleave(site.index.shape[1])
    multiplier = along.view([-1 if axis == site.dim else 1 for axis in range(tensor.dim())])
    for axis, positions in site.within:
        inside = torch.zeros(tensor.shape[axis], dtype=torch.bool, device=tensor.device)
        inside[positions.to(tensor.device)] = True
        shape = [-1 if other == axis else 1 for other in range(tensor.dim())]
        multiplier = torch.where(inside.view(shape), multiplier, 1.0)
    return (tensor.to(working) * multiplier).to(tensor.dtype)
