"""Factors on all units of candidate groups at once, and whether the network computes what it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.core.canonical import rescaled
from isthmus.core.symmetry import Kind, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights
from isthmus.discover.verify import Call, difference


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


class Trial:
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


def with_powers(
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
