"""Scales and signs: factors of single units that leave the function as it is.

How the outputs change as a unit's entries at each of its sites grow is a derivative; a combination of sites along
which all of these cancel is a scale symmetry. Its whole-number powers are then checked with large factors on all units
of all groups. Signs are tried on the combinations that scales, odd operations and norms suggest, and kept if they pass.

Units that cannot be exchanged (pairs of channels that a rotary embedding turns) may still be scaled, so candidates are
the innermost permutation groups and whatever other units the graph ties.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram

from isthmus.core.symmetry import Kind, Site, Symmetry, UnitGroup
from isthmus.discover.signs import sign_groups
from isthmus.discover.slopes import slopes
from isthmus.discover.trial import Probe, Trial, with_powers

_FLAT = 1e-9  # of rows with largest entry 1: derivatives in float64 cancel to about 1e-13
_LARGEST_POWER = 2
_FEW = 64  # entries of a unit in one tensor that are looked at one by one; more are places (a flattened image)


def factor_groups(  # noqa: D417
    symmetry: Symmetry,
    others: Sequence[UnitGroup],
    probe: Probe,
    kinds: Sequence[Kind],
    generator: torch.Generator,
) -> list[UnitGroup]:
    """Scale and sign groups of all innermost permutation groups, and of units that cannot be exchanged.

    Args:
        others: groups of units that are tied but not exchangeable; those that lie in permutation groups are left out.

    Raises:
        SymmetryError: the outputs have no derivatives.

    Cost: for scales a few forward and backward passes, however many groups there are; for signs a few network calls
    for each kind of layer.
    """
    candidates = _candidates(symmetry, others, probe)
    made = slopes(candidates, probe.flowing, probe.draw, generator)
    flat = [_combinations(group, rows) for group, rows in zip(candidates, made, strict=True)]
    trial = Trial(symmetry, probe, generator)
    found: list[UnitGroup] = []
    if "scale" in kinds:
        scales = [
            with_powers(group, powers, "scale", number, probe.aliases)
            for group, combinations in zip(candidates, flat, strict=True)
            for number, powers in enumerate(combinations)
        ]
        found += trial.passing(scales)
    if "sign" in kinds:
        found += sign_groups(symmetry, candidates, flat, trial)
    return found


def _candidates(symmetry: Symmetry, others: Sequence[UnitGroup], probe: Probe) -> list[UnitGroup]:
    """Innermost groups, each of their sites in the order in which the network uses them."""
    parents = {group.parent.group for group in symmetry.groups if group.parent is not None}
    own = [group for group in symmetry.permutable if group.name not in parents]
    above = {group.parent.group for group in others if group.parent is not None}
    covered = {place for group in own for unit in range(group.size) for place in _places(group, unit)}
    taken = {group.name for group in symmetry.groups}
    for group in others:
        left = [unit for unit in range(group.size) if not covered & set(_places(group, unit))]
        if group.name in above or not left:
            continue
        sites = tuple(dataclasses.replace(site, index=site.index[left]) for site in group.sites)
        name = group.name if group.name not in taken else f"{group.name} fixed"
        own.append(dataclasses.replace(group, name=name, size=len(left), sites=sites))
    late = len(probe.order)

    def ordered(group: UnitGroup) -> tuple[Site, ...]:
        once = _once(group, probe.aliases)
        return tuple(sorted(_apart(once), key=lambda site: probe.order.get(site.tensor, late)))

    return [dataclasses.replace(group, sites=ordered(group)) for group in own]


def _once(group: UnitGroup, aliases: Mapping[str, Sequence[str]]) -> UnitGroup:
    """The group without the further names of tied tensors."""
    further: set[str] = set()
    kept = []
    for site in group.sites:
        if site.tensor not in further:
            kept.append(site)
            further.update(aliases.get(site.tensor, ()))
    return dataclasses.replace(group, sites=tuple(kept))


def _places(group: UnitGroup, unit: int) -> Iterator[tuple[str, int, int, int]]:
    """Where a unit lies: tensor, axis, slice, position."""
    for site in group.sites:
        start = int(site.within[0][1][0]) if site.within else -1
        for position in site.index[unit].tolist():
            yield site.tensor, site.dim, start, position


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


def _combinations(group: UnitGroup, rows: Tensor) -> list[tuple[int, ...]]:
    """Whole-number powers of the sites along which a unit can grow without any change of the outputs."""
    read = rows.abs().amax(dim=0) > 0 if len(rows) else torch.zeros(len(group.sites), dtype=torch.bool)
    if not bool(read.any()):
        return []
    rows = rows[:, read]
    rows = torch.cat([rows, rows.new_zeros(max(0, rows.shape[1] - len(rows)), rows.shape[1])])
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    rank = int((values > _FLAT * values[0]).sum())
    result = []
    # From the last user backwards, so that a combination reaches no further than it must: gain and shift against
    # the next layer, and apart from these a kernel against its own norm.
    for row in _reduced(directions[rank:].flip(1)).flip(1):
        if (powers := _whole(row)) is not None:
            full = torch.zeros(len(read), dtype=torch.int64)
            full[read] = powers
            result.append(tuple(full.tolist()))
    return result


def _reduced(rows: Tensor) -> Tensor:
    """A basis of the same space, reduced row by row."""
    rows = rows.clone()
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
    return rows[:done]


def _whole(row: Tensor) -> Tensor | None:
    """The direction in small whole numbers; None if it has no such form."""
    for times in range(1, _LARGEST_POWER + 1):
        rounded = (times * row).round()
        if bool((times * row - rounded).abs().max() < 1e-5) and bool(rounded.abs().max() <= _LARGEST_POWER):
            return rounded.long()
    return None


def order_of_use(program: ExportedProgram) -> dict[str, int]:
    """For each tensor, by its state-dict name, how many operations come before the first that reads it."""
    graph = program.graph
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    place = {node: number for number, node in enumerate(graph.nodes)}
    return {
        names[node.name]: min((place[user] for user in node.users), default=len(place))
        for node in graph.nodes
        if node.op == "placeholder" and node.name in names
    }
