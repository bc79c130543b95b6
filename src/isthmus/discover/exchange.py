"""Whole modules as units: equal parts of the graph are proposed, and those whose exchange changes nothing are kept."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.export import ExportedProgram

from isthmus.core.symmetry import Obstacle, Permutation, Role, Symmetry, UnitGroup
from isthmus.discover.branches import branches_of
from isthmus.discover.ledger import Ledger
from isthmus.discover.nesting import nested
from isthmus.discover.proving import call_of, graph_call
from isthmus.discover.rules import Rule
from isthmus.discover.tracing import Trace
from isthmus.discover.units import group_of_parts
from isthmus.discover.verify import difference, random_weights, redrawn

_TRIALS = 64  # exchanges of two units of a refused group; more would cost more than they find


def proposals(
    program: ExportedProgram,
    ledger: Ledger,
    *,
    rules: Mapping[str, Rule],
    roles: Mapping[str, Role],
    aliases: Mapping[str, Sequence[str]],
) -> list[UnitGroup]:
    """Groups of whole modules that may be exchangeable as far as the graph says, small ones first."""
    every = branches_of(program)
    if not every:
        return []
    trace = Trace(program, every, splits=ledger.splits, rules=rules)
    made = [group_of_parts(branches, trace, roles, aliases) for branches in every]
    return [group for group in made if group is not None]


def with_modules(
    symmetry: Symmetry, groups: Sequence[UnitGroup], holds: Callable[[Symmetry, Sequence[str]], bool]
) -> Symmetry:
    """The symmetry with those of the proposed groups whose permutations leave the outputs as they are.

    Args:
        symmetry: without them.
        groups: proposed ones, small ones first.
        holds: whether permutations of some groups of a symmetry leave the outputs as they are.
    """
    together, added = symmetry, []
    for group in groups:
        wider = nested(together, group)
        if wider is not None:
            together, added = wider, [*added, group]
    if added and holds(together, _new(symmetry, together)):
        return _freed(together, added)
    kept, refused = [], []
    result = symmetry
    for group in added:
        wider = nested(result, group)
        if wider is not None and holds(wider, _new(result, wider)):
            result, kept = wider, [*kept, group]
            continue
        refused.append(group)
        for part in _alike(result, group, holds):
            wider = nested(result, part)
            if wider is not None and holds(wider, _new(result, wider)):
                result, kept = wider, [*kept, part]
    reason = "does the same with other tensors, but to exchange these modules changes the outputs"
    obstacles = tuple(Obstacle("exchange", reason, group.tensors) for group in refused)
    return dataclasses.replace(_freed(result, kept), obstacles=(*result.obstacles, *obstacles))


def _alike(symmetry: Symmetry, group: UnitGroup, holds: Callable[[Symmetry, Sequence[str]], bool]) -> list[UnitGroup]:
    """Of a refused group the units that may be exchanged for each other, in parts of two units or more."""
    classes: list[list[int]] = []
    trials = 0
    for unit in range(group.size if group.size > 2 else 0):
        for members in classes:
            if trials == _TRIALS:
                return []
            trials += 1
            wider = nested(symmetry, _of_units(group, [members[0], unit]))
            if wider is not None and holds(wider, _new(symmetry, wider)):
                members.append(unit)
                break
        else:
            classes.append([unit])
    return [_of_units(group, members) for members in classes if len(members) > 1]


def _of_units(group: UnitGroup, units: Sequence[int]) -> UnitGroup:
    """A group of some of a group's units."""
    sites = tuple(dataclasses.replace(site, index=site.index[list(units)]) for site in group.sites)
    rows = tuple(dataclasses.replace(row, tensors=tuple(row.tensors[unit] for unit in units)) for row in group.siblings)
    return dataclasses.replace(group, size=len(units), sites=sites, siblings=rows)


def exchanged(
    symmetry: Symmetry,
    proposed: Sequence[UnitGroup],
    module: nn.Module,
    program: ExportedProgram,
    given: tuple[tuple[Any, ...], Mapping[str, Any]],
    *,
    generator: Generator,
    tolerance: float,
) -> Symmetry:
    """The symmetry with those proposed groups that computing confirms; ``given`` are the example's inputs."""
    if not proposed:
        return symmetry
    return with_modules(symmetry, proposed, _Unchanged(module, program, given, generator, tolerance))


def approved_by(narrow: Symmetry, wide: Symmetry, proposed: Sequence[UnitGroup]) -> Symmetry:
    """A wide network's symmetry with those proposed groups that were confirmed on a narrow copy."""
    known = {_form(group) for group in narrow.groups if group.siblings}
    confirmed = with_modules(wide, [group for group in proposed if _form(group) in known], lambda *_: True)
    return unproved(confirmed, [group for group in proposed if _form(group) not in known])


def unproved(symmetry: Symmetry, proposed: Sequence[UnitGroup]) -> Symmetry:
    """The symmetry without groups of modules that could not be tried, which are named."""
    reason = "does the same with other tensors, but whether these modules may be exchanged could not be computed"
    obstacles = tuple(Obstacle("exchange", reason, group.tensors) for group in proposed)
    return dataclasses.replace(symmetry, obstacles=(*symmetry.obstacles, *obstacles))


def _form(group: UnitGroup) -> frozenset[tuple[str, str]]:
    """A group's tensors without the units' numbers and their number."""
    own = {(re.sub(r"(?<=[.])\d+(?=[.])", "*", name), "own") for row in group.siblings for name in row.tensors}
    return frozenset(own | {(site.tensor, str(site.dim)) for site in group.sites})


class _Unchanged:
    """Whether permutations of some groups leave the outputs as they are, on two draws of weights and inputs."""

    def __init__(
        self,
        module: nn.Module,
        program: ExportedProgram,
        given: tuple[tuple[Any, ...], Mapping[str, Any]],
        generator: Generator,
        tolerance: float,
    ) -> None:
        self.generator, self.tolerance = generator, tolerance
        originals = dict(module.state_dict(keep_vars=True))
        example, keywords = given
        self.draws = []
        for _ in range(2):
            inputs = redrawn((example, dict(keywords)), generator, torch.float64, keep=False)
            self.draws.append((random_weights(originals, generator, torch.float64), *inputs))
        self.call = call_of(module, program)[0]
        try:
            self.before = [self.call(*draw) for draw in self.draws]
        except (RuntimeError, TypeError):  # the module refuses float64
            self.call = graph_call(program)
            self.before = [self.call(*draw) for draw in self.draws]

    def __call__(self, symmetry: Symmetry, names: Sequence[str]) -> bool:
        for turn, (weights, *inputs), before in zip((True, False), self.draws, self.before, strict=True):
            drawn = symmetry.random(self.generator, groups=names)
            moving = {name: _generator_of(symmetry.by_name[name].size, turn=turn) for name in names}
            own = {name: index for name, index in moving.items() if symmetry.by_name[name].siblings}
            moved = Permutation(symmetry, {**drawn.indices, **own}).apply(weights)
            if not difference(before, self.call(moved, *inputs)) <= self.tolerance:
                return False
        return True


def _generator_of(size: int, *, turn: bool) -> Tensor:
    """All units in turn, or the first two exchanged: from these two every permutation can be made."""
    if turn:
        return torch.arange(size).roll(1)
    return torch.tensor([1, 0, *range(2, size)])


def _new(before: Symmetry, after: Symmetry) -> list[str]:
    """The groups of a symmetry that are not in another, or lie elsewhere in it."""
    return [
        group.name
        for group in after.permutable
        if group.name not in before.by_name or before.by_name[group.name].parent != group.parent
    ]


def _freed(symmetry: Symmetry, added: Sequence[UnitGroup]) -> Symmetry:
    """Without obstacles about tensors whose units move now: what reads a router by an expert's number pins nothing."""
    moving = {name for group in added for name in group.tensors}
    kept = tuple(one for one in symmetry.obstacles if not one.tensors or not set(one.tensors) <= moving)
    return dataclasses.replace(symmetry, obstacles=kept)
