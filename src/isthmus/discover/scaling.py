"""Scales and signs: factors of single units that leave the function as it is.

For each innermost group, how the outputs change when one unit's entries at each of its sites grow is measured; a
combination
of sites along which nothing changes is a scale symmetry, and its whole-number powers are checked with large factors
on all
units. Signs are tried on the combinations that units of odd and linear operations allow, and kept if they pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.core.canonical import scaled
from isthmus.core.symmetry import Kind, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights
from isthmus.discover.verify import Call, difference

_STEP = 1e-5  # of a logarithm: central differences in float64 are then good to about 1e-10
_FLAT = 1e-7  # relative to the largest change: below, a combination of sites changes nothing
_LARGEST_POWER = 2
_TRIED = 16  # units looked at until one is alive for the probe's inputs
_FEW = 4  # entries of a unit in one tensor; more are places (a flattened image), which scale together


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A network at random weights and several draws of inputs, on which combinations are tried."""

    call: Call
    weights: Weights
    inputs: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]
    tolerance: float

    def outputs(self, weights: Weights) -> list[Tensor]:
        """The outputs at other weights, for all inputs."""
        return [output for example, keywords in self.inputs for output in self.call(weights, example, keywords)]


def factor_groups(
    symmetry: Symmetry, probe: Probe, kinds: Sequence[Kind], generator: torch.Generator
) -> list[UnitGroup]:
    """Scale and sign groups of all innermost permutation groups.

    Cost: about two network calls for each site of each group.
    """
    parents = {group.parent.group for group in symmetry.groups if group.parent is not None}
    before = probe.outputs(probe.weights)
    found: list[UnitGroup] = []
    for group in symmetry.permutable:
        if group.name in parents:
            continue
        group = dataclasses.replace(group, sites=_apart(group))  # noqa: PLW2901
        flat = _flat_combinations(group, probe)
        if "scale" in kinds:
            found += _kept(group, flat, "scale", probe, before, generator)
        if "sign" in kinds:
            found += _kept(group, [*flat, *_sign_candidates(group, symmetry.tensors)], "sign", probe, before, generator)
    return found


def _apart(group: UnitGroup) -> tuple[Site, ...]:
    """Sites with few entries a unit taken apart: the query and the key row of a channel may lie in one tensor."""
    return tuple(
        part
        for site in group.sites
        for part in (
            [dataclasses.replace(site, index=site.index[:, k : k + 1]) for k in range(site.index.shape[1])]
            if 1 < site.index.shape[1] <= _FEW
            else [site]
        )
    )


def _flat_combinations(group: UnitGroup, probe: Probe) -> list[tuple[int, ...]]:
    """Whole-number powers of the sites along which a unit can grow without any change of the outputs."""
    for unit in range(min(group.size, _TRIED)):
        changes = _changes(group, probe, unit)
        if changes is None:
            return []
        if float(changes.abs().max()) > 0:  # a dead unit says nothing
            break
    else:
        return []
    largest = changes.abs().max()
    _, values, directions = torch.linalg.svd(changes / largest, full_matrices=True)
    rank = int((values > _FLAT).sum())
    return _whole(directions[rank:])


def _changes(group: UnitGroup, probe: Probe, unit: int) -> Tensor | None:
    """How the outputs change, by site, as one unit's entries there grow; None if they are not finite."""
    columns = []
    for number in range(len(group.sites)):
        ends = []
        for step in (_STEP, -_STEP):
            factors = torch.ones(group.size, dtype=torch.float64)
            factors[unit] = torch.tensor(step, dtype=torch.float64).exp()
            powers = tuple(int(k == number) for k in range(len(group.sites)))
            moved = scaled(probe.weights, _with_powers(group, powers, "scale"), factors)
            ends.append(torch.cat([o.reshape(-1).double() for o in probe.outputs(moved) if o.is_floating_point()]))
        columns.append((ends[0] - ends[1]) / (2 * _STEP))
    changes = torch.stack(columns, dim=1)
    return changes if bool(changes.isfinite().all()) else None


def _whole(directions: Tensor) -> list[tuple[int, ...]]:
    """A basis of a space of directions in small whole numbers, as reduced row by row; what is not whole is left out."""
    rows = directions.clone()
    done = 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        pivot = done + int(rows[done:, column].abs().argmax())
        if rows[pivot, column].abs() < 1e-6:
            continue
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] /= rows[done, column].clone()
        for other in range(len(rows)):
            if other != done:
                rows[other] -= rows[other, column].clone() * rows[done]
        done += 1
    rounded = rows[:done].round()
    good = ((rows[:done] - rounded).abs() < 1e-4).all(dim=1) & (rounded.abs() <= _LARGEST_POWER).all(dim=1)
    return [tuple(int(power) for power in row) for row in rounded[good]]


def _sign_candidates(group: UnitGroup, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Flips that odd operations and norms allow: of every site, or of all but gains and variances of single units."""
    every = tuple(1 for _ in group.sites)
    stretching = [
        len(shapes[site.tensor]) == 1 and site.tensor.endswith(("weight", "running_var")) for site in group.sites
    ]
    return list(dict.fromkeys([every, tuple(int(not gain) for gain in stretching)]))


def _kept(  # noqa: PLR0917
    group: UnitGroup,
    candidates: Sequence[tuple[int, ...]],
    kind: Kind,
    probe: Probe,
    before: Sequence[Tensor],
    generator: torch.Generator,
) -> list[UnitGroup]:
    """The combinations that leave the outputs as they are, with large factors on all units; each only once."""
    kept: list[UnitGroup] = []
    seen: list[int] = []
    for powers in candidates:
        odd = _independent(sum(1 << k for k, power in enumerate(powers) if power % 2), seen)
        if kind == "sign" and not odd:
            continue
        made = _with_powers(group, powers, kind)
        draw = torch.rand(group.size, generator=generator, dtype=torch.float64)
        factors = (2 * draw - 1).exp() if kind == "scale" else torch.where(draw < 0.5, -1.0, 1.0).double()
        if kind == "sign":
            factors[0] = -1.0
        if difference(before, probe.outputs(scaled(probe.weights, made, factors))) <= probe.tolerance:
            seen.append(odd)
            number = f" #{len(kept) + 1}" if kept else ""
            kept.append(dataclasses.replace(made, name=f"{group.name} {kind}{number}"))
    return kept


def _independent(bits: int, seen: Sequence[int]) -> int:
    """What is left of a flip after the flips already found; 0 if they make it up."""
    for other in seen:
        if other and bits >> (other.bit_length() - 1) & 1:
            bits ^= other
    return bits


def _with_powers(group: UnitGroup, powers: Sequence[int], kind: Kind) -> UnitGroup:
    """The group's sites with powers, those of power 0 left out."""
    written = [power for site, power in zip(group.sites, powers, strict=True) if power and site.dim == 0]
    sign = -1 if (written or [power for power in powers if power] or [1])[0] < 0 else 1
    sites = tuple(
        dataclasses.replace(site, power=float(sign * power))
        for site, power in zip(group.sites, powers, strict=True)
        if power
    )
    return UnitGroup(group.name, group.size, sites, kind)
