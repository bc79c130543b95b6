"""Scales and signs: factors of single units that leave the function as it is.

How the outputs change as a unit's entries at each of its sites grow is a derivative; a combination of sites along
which all of these cancel is a scale symmetry. Its whole-number powers are then checked with large factors on all units
of all groups. Signs are tried on the combinations that scales, odd operations and norms suggest, and kept if they pass.

Units that cannot be exchanged (pairs of channels that a rotary embedding turns) may still be scaled, so candidates are
the innermost permutation groups and whatever other units the graph ties.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from isthmus.core.canonical import rescaled
from isthmus.core.symmetry import Kind, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights
from isthmus.discover.slopes import slopes
from isthmus.discover.verify import Call, difference

_FLAT = 1e-9  # of rows with largest entry 1: derivatives in float64 cancel to about 1e-13
_LARGEST_POWER = 2
_FEW = 64  # entries of a unit in one tensor that are looked at one by one; more are places (a flattened image)


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A network, and how to draw weights and inputs for it.

    Attributes:
        call: outputs without gradients.
        flowing: outputs with gradients.
        draw: weights and inputs at random.
        order: for each tensor when the network first uses it.
        aliases: for each tensor its further state-dict names.
    """

    call: Call
    flowing: Call
    draw: Callable[[], tuple[Weights, tuple[Any, ...], Mapping[str, Any]]]
    order: Mapping[str, int]
    aliases: Mapping[str, Sequence[str]]
    tolerance: float


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
    trial = _Trial(symmetry, probe, generator)
    found: list[UnitGroup] = []
    if "scale" in kinds:
        scales = [
            _with_powers(group, powers, "scale", number, probe.aliases)
            for group, combinations in zip(candidates, flat, strict=True)
            for number, powers in enumerate(combinations)
        ]
        found += trial.passing(scales)
    if "sign" in kinds:
        found += _signs(symmetry, candidates, flat, trial)
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


class _Trial:
    """Tries candidates with large random factors on weights and inputs of its own."""

    def __init__(self, symmetry: Symmetry, probe: Probe, generator: torch.Generator) -> None:
        self.symmetry, self.probe, self.generator = symmetry, probe, generator
        self.draws = [probe.draw() for _ in range(2)]
        self.before = [probe.call(*draw) for draw in self.draws]

    def holds(self, groups: Sequence[UnitGroup], *, draws: int | None = None) -> bool:
        """Whether factors on all units of all these groups leave the outputs as they are, for some or all draws."""
        if not groups:
            return True
        named = [dataclasses.replace(group, name=str(number)) for number, group in enumerate(groups)]
        both = Symmetry(tuple(named), self.symmetry.tensors)
        factors = {group.name: self._factors(group) for group in named}
        for (weights, example, keywords), before in list(zip(self.draws, self.before, strict=True))[:draws]:
            after = self.probe.call(_retied(rescaled(both, weights, factors), weights), example, keywords)
            if not difference(before, after) <= self.probe.tolerance:
                return False
        return True

    def passing(self, groups: Sequence[UnitGroup]) -> list[UnitGroup]:
        """Those that pass on their own, found by halving."""
        if self.holds(groups):
            return list(groups)
        if len(groups) == 1:
            return []
        half = len(groups) // 2
        return [*self.passing(groups[:half]), *self.passing(groups[half:])]

    def _factors(self, group: UnitGroup) -> Tensor:
        draw = torch.rand(group.size, generator=self.generator, dtype=torch.float64)
        if group.kind == "scale":
            return (2 * draw - 1).exp()
        factors = torch.where(draw < 0.5, -1.0, 1.0).double()
        factors[0] = -1.0
        return factors


def _retied(moved: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """Names of one tensor hold one tensor again, where they are still equal."""
    first: dict[int, str] = {}
    result = dict(moved)
    for name, tensor in weights.items():
        other = first.setdefault(id(tensor), name)
        if other != name and torch.equal(result[name], result[other]):
            result[name] = result[other]
    return result


def _signs(
    symmetry: Symmetry, candidates: Sequence[UnitGroup], flat: Sequence[Sequence[tuple[int, ...]]], trial: _Trial
) -> list[UnitGroup]:
    """Flips that pass, each only once. Layers built alike are tried together."""
    classes: dict[Hashable, list[tuple[int, tuple[int, ...]]]] = {}
    for number, (group, combinations) in enumerate(zip(candidates, flat, strict=True)):
        for powers in dict.fromkeys([*combinations, *_flips(group, symmetry.tensors)]):
            if any(power % 2 for power in powers):
                classes.setdefault(_likeness(group, powers), []).append((number, powers))
    passed: dict[int, list[tuple[int, ...]]] = {}
    for members in classes.values():
        made = [_with_powers(candidates[number], powers, "sign", 0, trial.probe.aliases) for number, powers in members]
        for (number, powers), good in zip(members, _judged(made, trial), strict=True):
            if good:
                passed.setdefault(number, []).append(powers)
    found = []
    for number in sorted(passed):
        kept = _independent(passed[number])
        found += [_with_powers(candidates[number], p, "sign", k, trial.probe.aliases) for k, p in enumerate(kept)]
    return trial.passing(found)


def _likeness(group: UnitGroup, powers: Sequence[int]) -> Hashable:
    """What layers and heads that are built alike have in common: everything but numbers in names."""
    sites = tuple(
        (re.sub(r"\d+", "#", site.tensor), site.dim, site.index.shape[1], power % 2)
        for site, power in zip(group.sites, powers, strict=True)
    )
    return sites, group.parent is None


def _judged(groups: Sequence[UnitGroup], trial: _Trial) -> list[bool]:
    """Which pass: all or, if both the first and the last one fail, none; otherwise each on its own."""
    if trial.holds(groups, draws=1):
        return [True] * len(groups)
    ends = [trial.holds([group], draws=1) for group in (groups[0], groups[-1])] if len(groups) > 1 else [False, False]
    if not any(ends):
        return [False] * len(groups)
    return [ends[0], *(trial.holds([group], draws=1) for group in groups[1:-1]), ends[1]]


def _independent(flips: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The flips that those before them do not make up."""
    seen: list[int] = []
    kept = []
    for powers in flips:
        bits = sum(1 << place for place, power in enumerate(powers) if power % 2)
        for other in seen:
            if bits >> (other.bit_length() - 1) & 1:
                bits ^= other
        if bits:
            seen.append(bits)
            kept.append(powers)
    return kept


def _flips(group: UnitGroup, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Flips that odd operations and norms allow: of every site, or of all but gains and variances of single units."""
    every = tuple(1 for _ in group.sites)
    stretching = [
        len(shapes[site.tensor]) == 1 and site.tensor.endswith(("weight", "running_var")) for site in group.sites
    ]
    return list(dict.fromkeys([every, tuple(int(not gain) for gain in stretching)]))


def _with_powers(
    group: UnitGroup, powers: Sequence[int], kind: Kind, number: int, aliases: Mapping[str, Sequence[str]]
) -> UnitGroup:
    """The group's sites with powers, those of power 0 left out, those of one tensor and power put together again.

    The first tensor that the network uses gets a positive power: it writes the unit.
    """
    sign = -1 if next((power for power in powers if power), 1) < 0 else 1
    together: dict[tuple[str, int, int, int], Site] = {}
    for place, (site, power) in enumerate(zip(group.sites, powers, strict=True)):
        if not power or (kind == "sign" and power % 2 == 0):
            continue
        start = int(site.within[0][1][0]) if site.within else -1
        key = (site.tensor, site.dim, power, start if len(site.within) < 2 else -2 - place)
        made = dataclasses.replace(site, power=1.0 if kind == "sign" else float(sign * power))
        if key in together:
            made = dataclasses.replace(made, index=torch.cat([together[key].index, made.index], dim=1))
        together[key] = made
    sites = [
        part
        for site in together.values()
        for part in (
            site,
            *(dataclasses.replace(site, tensor=name, role="carry") for name in aliases.get(site.tensor, ())),
        )
    ]
    name = f"{group.name} {kind}{f' #{number + 1}' if number else ''}"
    return UnitGroup(name, group.size, tuple(sites), kind)


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
