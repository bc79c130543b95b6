"""What scales and flips of single units do to weights, and one standard form for all copies of a network.

This is the one place that multiplies entries at sites: whoever needs networks without the scale that they do not see
(overlaps, flatness, matching) asks here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.weights import Weights

if TYPE_CHECKING:
    from isthmus.core.symmetry import Site, Symmetry, UnitGroup

_SWEEPS = 100  # one sweep settles groups in the network's order, a layer each in the worst order
_SETTLED = 1e-12  # of a factor's distance from 1; rounding alone leaves about 1e-15


def scaled(weights: Weights, group: UnitGroup, factors: Float[Tensor, " units"]) -> dict[str, Tensor]:
    """Multiply each unit of a scale or sign group by its factor: entries at a site by factor**power.

    The function of the network stays as it is. Products are taken in at least float32 and rounded once.

    Raises:
        SymmetryError: the group is of another kind, or a factor is not of this kind (positive; ±1).
    """
    return _all_scaled(weights, [(group, factors)])


def rescaled(symmetry: Symmetry, weights: Weights, factors: Mapping[str, Float[Tensor, " units"]]) -> dict[str, Tensor]:
    """Factors for several scale and sign groups of a symmetry at once, by the groups' names; others stay.

    Products are taken in at least float32 and every tensor is rounded once, however many groups touch it.

    Raises:
        SymmetryError: a name is not a scale or sign group, a factor is not of its kind, or the weights do not fit.
    """
    symmetry.check(weights)
    groups = {group.name: group for group in symmetry.groups if group.kind != "permutation"}
    if unknown := [name for name in factors if name not in groups]:
        raise SymmetryError(f"factors must name scale or sign groups of the symmetry; unknown: {listed(unknown)}")
    return _all_scaled(weights, [(groups[name], values) for name, values in factors.items()])


def unit_scale(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    """The equivalent weights in which every unit of every scale group has incoming entries of norm 1.

    ReLU(c·x) = c·ReLU(x): a unit's weights have no length of their own, and what is left out of it here is pushed on to
    whoever reads the unit, so the function stays as it is. Two networks that differ by scales alone come out alike.

    A unit's *incoming entries* are its entries at the group's first matched site of positive power (sites come in the
    order in which the network uses them) and in vectors beside it in the same module: a layer's row and bias, a norm's
    gain and shift. Further tensors that write the unit (residual branches) do not count, since theirs depend on the
    unit's own scale, and demands on all of them may have no solution. Units without incoming entries stay.

    Args:
        symmetry: its groups of kind ``scale`` are used; without any the weights come back as they are.
        weights: of the symmetry's architecture; combined in float64 and rounded once.

    Raises:
        SymmetryError: lengths that do not settle, because scale groups feed each other in a circle; incoming sites of
            different powers.

    Cost: about two passes over the tensors that scale groups touch, in float64; more where groups come in an order
    that is not the network's.

    Reference: Pittorino et al., "Deep networks on toroids", arXiv 2202.03038, section 3; there all networks are chains.

    Example:
        >>> from isthmus.core.symmetry import Site, Symmetry, UnitGroup
        >>> one = torch.tensor([[0]])
        >>> sites = (Site("in.weight", 0, one), Site("out.weight", 1, one, power=-1.0))
        >>> shapes = {"in.weight": (1, 2), "out.weight": (3, 1)}
        >>> symmetry = Symmetry((UnitGroup("h", 1, sites, "scale"),), shapes)
        >>> weights = {"in.weight": torch.tensor([[3.0, 4.0]]), "out.weight": torch.ones(3, 1)}
        >>> unit_scale(symmetry, weights)["out.weight"].flatten().tolist()
        [5.0, 5.0, 5.0]
    """
    groups = [group for group in symmetry.groups if group.kind == "scale"]
    if not groups:
        return dict(weights)
    symmetry.check(weights)
    working = _copies(weights, groups)
    for _ in range(_SWEEPS):
        largest = 0.0
        for group in groups:
            sites = _incoming(group)
            powers = {site.power for site in sites}
            if len(powers) > 1:
                raise SymmetryError(f"incoming sites of {group.name} must share one positive power, got {powers}")
            square = _moment(working, group.size, sites, 2)
            factors = torch.where(square > 0, square, 1.0) ** (-0.5 / next(iter(powers), 1.0))
            largest = max(largest, float(factors.log().abs().max()) if len(factors) else 0.0)
            _multiply(working, group, factors)
        if largest < _SETTLED:
            return _rounded(weights, working)
    raise SymmetryError(
        f"lengths must settle within {_SWEEPS} sweeps, but the scale groups feed each other in a circle"
    )


def canonical(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    """The standard form: scales, then signs, then orders of units fixed, each from the units' own entries.

    Every unit of a scale group gets incoming entries of norm 1, as :func:`unit_scale` says; every unit of a sign group
    a positive sum of incoming entries; units of permutation groups are sorted by the norm of all their entries, inner
    groups first. Two networks that are copies of each other have the same standard form as long as no two such numbers
    are equal.

    Raises:
        SymmetryError: as :func:`unit_scale`; signs that do not settle.

    Cost: a few passes over the weights.
    """
    return _sorted(symmetry, _unsigned(symmetry, unit_scale(symmetry, weights)))


def _unsigned(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    """Every unit of a sign group with a positive sum of incoming entries."""
    groups = [group for group in symmetry.groups if group.kind == "sign"]
    working = _copies(weights, groups)
    for _ in range(_SWEEPS):
        flipped = False
        for group in groups:
            factors = torch.where(_moment(working, group.size, _incoming(group), 1) < 0, -1.0, 1.0).double()
            if bool((factors < 0).any()):
                _multiply(working, group, factors)
                flipped = True
        if not flipped:
            return _rounded(weights, working)
    raise SymmetryError(f"signs must settle within {_SWEEPS} sweeps, but the sign groups feed each other in a circle")


def _sorted(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    from isthmus.core.symmetry import Permutation

    indices: Mapping[str, Tensor] = {
        group.name: (_moment(weights, group.size, group.matched, 2) + _own_moment(weights, group)).argsort()
        for group in symmetry.permutable
    }
    return Permutation(symmetry, indices).apply(weights)


def _incoming(group: UnitGroup) -> list[Site]:
    """The sites whose entries say how long a unit is: its first writer, and vectors beside it in the same module."""
    own = [site for site in group.matched if site.power > 0]
    if not own:
        return []
    first = own[0]
    module = first.tensor.rpartition(".")[0]

    def beside(site: Site) -> bool:
        around, _, name = site.tensor.rpartition(".")
        return around == module and "bias" in name and site.dim == 0 and site.power == first.power

    return [site for site in own if site.tensor == first.tensor or beside(site)]


def _moment(weights: Weights, size: int, sites: Sequence[Site], power: int) -> Float[Tensor, " units"]:
    """Sums of powers of each unit's entries at some sites: blind to the order of other units."""
    total = torch.zeros(size, dtype=torch.float64)
    for site in sites:
        part = weights[site.tensor].detach()
        for axis, positions in site.within:
            part = part.index_select(axis, positions.to(part.device))
        lines = part.double().movedim(site.dim, 0).reshape(part.shape[site.dim], -1).pow(power).sum(dim=1).cpu()
        total += lines[site.index].sum(dim=1)
    return total


def _own_moment(weights: Weights, group: UnitGroup) -> Float[Tensor, " units"]:
    """Sums of squares of the tensors that are each unit's own."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for row in group.siblings:
        if row.role == "match":
            total += torch.stack([weights[name].detach().double().square().sum().cpu() for name in row.tensors])
    return total


def _all_scaled(weights: Weights, work: Sequence[tuple[UnitGroup, Tensor]]) -> dict[str, Tensor]:
    for group, factors in work:
        _check_factors(group, factors)
    working = {
        site.tensor: weights[site.tensor].to(torch.promote_types(weights[site.tensor].dtype, torch.float32), copy=True)
        for group, _ in work
        for site in group.sites
    }
    for group, factors in work:
        _multiply(working, group, factors)
    return _rounded(weights, working)


def _check_factors(group: UnitGroup, factors: Tensor) -> None:
    if group.kind == "permutation":
        raise SymmetryError(
            f"only units of scale and sign groups have factors, but {group.name} is a permutation group"
        )
    if factors.shape != (group.size,):
        given = tuple(factors.shape)
        raise SymmetryError(f"{group.name} must get one factor for each of its {group.size} units, got shape {given}")
    allowed = (factors > 0) & factors.isfinite() if group.kind == "scale" else factors.abs() == 1
    if not bool(allowed.all()):
        must = "positive" if group.kind == "scale" else "1 or -1"
        wrong = factors[~allowed].flatten()[0]
        raise SymmetryError(f"factors of the {group.kind} group {group.name} must be {must}, got {float(wrong):g}")


def _copies(weights: Weights, groups: Sequence[UnitGroup]) -> dict[str, Tensor]:
    names = {site.tensor for group in groups for site in group.sites}
    return {name: weights[name].detach().to(torch.float64, copy=True) for name in names}


def _rounded(weights: Weights, working: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: working[name].to(tensor.dtype) if name in working else tensor for name, tensor in weights.items()}


def _multiply(working: dict[str, Tensor], group: UnitGroup, factors: Tensor) -> None:
    """Multiply the entries of a group's units in place, in tensors that belong to the caller."""
    for site in group.sites:
        tensor = working[site.tensor]
        flat = site.index.reshape(-1).to(tensor.device)
        line = (factors.detach().double().cpu() ** site.power).repeat_interleave(site.index.shape[1])
        layout = [-1 if axis == site.dim else 1 for axis in range(tensor.dim())]
        line = line.to(tensor.device, tensor.dtype).reshape(layout)
        if not site.within:
            tensor.index_copy_(site.dim, flat, tensor.index_select(site.dim, flat) * line)
            continue
        chosen = {axis: positions.to(tensor.device) for axis, positions in site.within} | {site.dim: flat}
        axes = [chosen.get(axis, torch.arange(size, device=tensor.device)) for axis, size in enumerate(tensor.shape)]
        place = tuple(
            axis.reshape([-1 if other == number else 1 for other in range(tensor.dim())])
            for number, axis in enumerate(axes)
        )
        tensor[place] = tensor[place] * line
