"""How many equal copies a network has, and how many of them its weights can still tell apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.errors import SettingError, SymmetryError, listed
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry, UnitGroup
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True)
class GroupRedundancy(Record):
    """The copies that one group of units gives.

    Attributes:
        name: the group.
        size: its units.
        symmetry: ``permutation`` (size! copies), ``sign`` (2^size) or ``scale`` (a continuum of ``size`` dimensions).
        log10_copies: 0 for scales.
    """

    name: str
    size: int
    symmetry: str
    log10_copies: float


@dataclasses.dataclass(frozen=True)
class Redundancy(Record):
    """How many equal copies an architecture has.

    Attributes:
        groups: by group of units, in the symmetry's order.
        log10_copies: permutations and signs of all groups together.
        log10_floored: the same with every group's power rounded down, as published counts are.
        scale_dimensions: continuous dimensions of rescaling, which come on top.
    """

    groups: tuple[GroupRedundancy, ...]
    log10_copies: float
    log10_floored: int
    scale_dimensions: int


@dataclasses.dataclass(frozen=True)
class GroupIdentity(Record):
    """What training left of one group's copies.

    Attributes:
        name: the group.
        size: its units.
        dead: units that hear nothing, are heard by nobody or are silent on the data.
        silent: those that are silent on the data; 0 if none were given.
        duplicates: units beyond the first of every set that cannot be told apart; dead ones count as one such set.
        log10_copies: log10(size!).
        log10_distinct: log10 of the copies that differ: size! over the product of the sets' own factorials.
    """

    name: str
    size: int
    dead: int
    silent: int
    duplicates: int
    log10_copies: float
    log10_distinct: float


@dataclasses.dataclass(frozen=True)
class EffectiveRedundancy(Record):
    """How many of an architecture's copies are different networks at these weights.

    Attributes:
        groups: by permutation group.
        log10_copies: of the architecture.
        log10_distinct: of these weights.
        share: the second over the first, between 0 and 1; 1 where there is nothing to permute.
    """

    groups: tuple[GroupIdentity, ...]
    log10_copies: float
    log10_distinct: float
    share: float


def redundancy(symmetry: Symmetry) -> Redundancy:
    """Count the copies of an architecture from its symmetry.

    Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008;
        floored counts as in Ainsworth et al., "Git Re-Basin", table 1 (3498 for an MLP of three layers of 512).

    Example:
        >>> from isthmus.core.symmetry import Site
        >>> site = Site("w", 0, torch.arange(4)[:, None])
        >>> round(redundancy(Symmetry((UnitGroup("w", 4, (site,)),), {"w": (4, 2)})).log10_copies, 2)
        1.38
    """
    groups = tuple(
        GroupRedundancy(group.name, group.size, group.kind, _log10_copies(group)) for group in symmetry.groups
    )
    total = sum(group.log10_copies for group in groups)
    floored = sum(math.floor(group.log10_copies + 1e-9) for group in groups)
    scales = sum(group.size for group in groups if group.symmetry == "scale")
    return Redundancy(groups, total, floored, scales)


def effective_redundancy(
    symmetry: Symmetry,
    weights: Weights,
    *,
    noise: float | Mapping[str, float] = 0.0,
    silent: Mapping[str, Bool[Tensor, " units"]] | None = None,
    writes: Mapping[str, int | None] | None = None,
) -> EffectiveRedundancy:
    """Count the copies that these weights can tell apart.

    Exchanging two units that are equal changes nothing, so m equal units take a factor m! from the copies. Two units
    count as equal if their entries differ by no more than noise would make them differ: the sum of squared differences
    over twice the noise variance stays below the mean of its χ² law plus three standard deviations. Sets are joined
    step by step.

    A unit is dead if everything that writes it is within the noise of zero, or everything that reads it, or if
    ``silent`` says so. Of tensors of two or more axes one axis writes and the others read; where ``writes`` cannot
    tell, the tensor counts as both, and a unit is not called dead before it is zero there, too. Nested groups are
    counted one by one, as they stand inside their parents.

    Args:
        symmetry: the groups.
        weights: of its architecture.
        noise: standard deviation of a weight, one number or one for each tensor, such as that of SGD's stationary law
            or of replicas after alignment. With 0 only exact equality counts.
        silent: group → units that are known to be dead from data (:func:`isthmus.noise.silent_units`).
        writes: tensor → the axis along which it makes units, None where that is unknown
            (:func:`isthmus.noise.writing_axes`); axis 0 for tensors that are not named, as in linear layers and
            convolutions.

    Raises:
        SymmetryError: weights of another architecture, or a group that is not there.
        SettingError: a negative noise.

    Cost: distances between all units of a group.
    """
    symmetry.check(weights)
    if min([noise] if isinstance(noise, int | float) else [*noise.values(), 0.0]) < 0:
        raise SettingError("noise must be a standard deviation, zero or more; got a negative one")
    if unknown := [name for name in silent or {} if name not in symmetry.by_name]:
        raise SymmetryError(f"silent units must be of groups of the symmetry; unknown: {listed(unknown)}")
    groups = tuple(
        _identity(group, weights, noise, None if silent is None else silent.get(group.name), writes or {})
        for group in symmetry.permutable
    )
    copies, distinct = (sum(getattr(group, field) for group in groups) for field in ("log10_copies", "log10_distinct"))
    return EffectiveRedundancy(groups, copies, distinct, distinct / copies if copies else 1.0)


def _log10_copies(group: UnitGroup) -> float:
    return {"permutation": _log10_factorial(group.size), "sign": group.size * math.log10(2), "scale": 0.0}[group.kind]


def _log10_factorial(count: int) -> float:
    return math.lgamma(count + 1) / math.log(10)


def _identity(
    group: UnitGroup,
    weights: Weights,
    noise: float | Mapping[str, float],
    silent: Tensor | None,
    writes: Mapping[str, int | None],
) -> GroupIdentity:
    from scipy.sparse.csgraph import connected_components

    sites = [(site, writes.get(site.tensor, 0), *_scaled(site, weights, noise)) for site in group.matched]
    # Vectors (biases, gains) only go with what a tensor of more axes makes.
    written = [rows for site, axis, rows, axes in sites if axes >= 2 and axis in (site.dim, None)]
    read = [rows for site, axis, rows, axes in sites if axes >= 2 and axis != site.dim]
    quiet = torch.zeros(group.size, dtype=torch.bool) if silent is None else silent.cpu().bool()
    dead = quiet
    for rows in (written, read):
        if rows:
            joined = torch.cat(rows, 1)
            dead = dead | (joined.square().sum(1) <= _reach(joined.shape[1]))
    own = [_whole(row.tensors, weights, noise) for row in group.siblings if row.role == "match"]
    features = torch.cat([*(rows for _, _, rows, _ in sites), *own], 1)
    # A difference of two noisy entries has twice the variance of one.
    same = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    equal = same <= _reach(features.shape[1])
    equal |= dead[:, None] & dead
    _, sets = connected_components(equal.numpy(), directed=False)
    sizes = torch.bincount(torch.from_numpy(sets).long()).tolist()
    copies = _log10_factorial(group.size)
    distinct = copies - sum(_log10_factorial(size) for size in sizes)
    return GroupIdentity(
        group.name, group.size, int(dead.sum()), int(quiet.sum()), group.size - len(sizes), copies, distinct
    )


def _scaled(site, weights: Weights, noise: float | Mapping[str, float]) -> tuple[Float[Tensor, "units entries"], int]:
    """A site's entries by unit, in units of their noise; without noise so large that only equality is within it."""
    tensor = weights[site.tensor].detach().double().cpu()
    axes = tensor.dim()
    for axis, positions in site.within:
        tensor = tensor.index_select(axis, positions)
    rows = tensor.movedim(site.dim, 0).reshape(tensor.shape[site.dim], -1)
    deviation = noise if isinstance(noise, int | float) else noise.get(site.tensor, 0.0)
    return rows[site.index].flatten(1) / max(deviation, 1e-150), axes


def _whole(
    names: Sequence[str], weights: Weights, noise: float | Mapping[str, float]
) -> Float[Tensor, "units entries"]:
    """Each unit's own tensor in units of its noise, as ``_scaled`` has them."""
    deviations = [noise if isinstance(noise, int | float) else noise.get(name, 0.0) for name in names]
    rows = [weights[name].detach().double().cpu().flatten() for name in names]
    return torch.stack([row / max(one, 1e-150) for row, one in zip(rows, deviations, strict=True)])


def _reach(degrees: int) -> float:
    """The mean of χ² and three of its standard deviations."""
    return degrees + 3 * math.sqrt(2 * degrees)
