"""Flips of single units: tried on the combinations that scales, odd operations and norms suggest."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence

from isthmus.core.symmetry import Symmetry, UnitGroup
from isthmus.discover.trial import Trial, with_powers

_GATES = (3, 4)  # of a GRU, of an LSTM


def sign_groups(
    symmetry: Symmetry, candidates: Sequence[UnitGroup], flat: Sequence[Sequence[tuple[int, ...]]], trial: Trial
) -> list[UnitGroup]:
    """Flips that pass, each only once. Layers built alike are tried together."""
    classes: dict[Hashable, list[tuple[int, tuple[int, ...]]]] = {}
    for number, (group, combinations) in enumerate(zip(candidates, flat, strict=True)):
        for powers in dict.fromkeys([*combinations, *_flips(group, symmetry.tensors)]):
            if any(power % 2 for power in powers):
                classes.setdefault(_likeness(group, powers), []).append((number, powers))
    passed: dict[int, list[tuple[int, ...]]] = {}
    for members in classes.values():
        made = [with_powers(candidates[number], powers, "sign", 0, trial.probe.aliases) for number, powers in members]
        for (number, powers), good in zip(members, _judged(made, trial), strict=True):
            if good:
                passed.setdefault(number, []).append(powers)
    found = []
    for number in sorted(passed):
        kept = _independent(passed[number])
        found += [with_powers(candidates[number], p, "sign", k, trial.probe.aliases) for k, p in enumerate(kept)]
    return trial.passing(found)


def _likeness(group: UnitGroup, powers: Sequence[int]) -> Hashable:
    """What layers and heads that are built alike have in common: everything but numbers in names."""
    sites = tuple(
        (re.sub(r"\d+", "#", site.tensor), site.dim, site.index.shape[1], power % 2)
        for site, power in zip(group.sites, powers, strict=True)
    )
    return sites, group.parent is None


def _judged(groups: Sequence[UnitGroup], trial: Trial) -> list[bool]:
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
    """Flips that odd operations, norms and gates allow.

    Of every site; of all but gains and variances of single units; where a unit has a row for each of several gates,
    of one gate's rows and all that is no gate's: the state of an LSTM or a GRU goes through tanh on its way in.
    """
    every = tuple(1 for _ in group.sites)
    stretching = [
        len(shapes[site.tensor]) == 1 and site.tensor.endswith(("weight", "running_var")) for site in group.sites
    ]
    return list(dict.fromkeys([every, tuple(int(not gain) for gain in stretching), *_one_gate(group)]))


def _one_gate(group: UnitGroup) -> Iterator[tuple[int, ...]]:
    """For each gate the flip of its rows and of what belongs to no gate, if all tensors with gates have as many."""
    rows: dict[Hashable, list[int]] = {}
    for number, site in enumerate(group.sites):
        start = int(site.within[0][1][0]) if site.within else -1
        rows.setdefault((site.tensor, site.dim, start), []).append(number)
    gates = {len(numbers) for numbers in rows.values()} - {1}
    if len(gates) != 1 or (count := gates.pop()) not in _GATES:
        return
    for gate in range(count):
        flipped = {
            number for numbers in rows.values() for number in (numbers if len(numbers) == 1 else [numbers[gate]])
        }
        yield tuple(int(number in flipped) for number in range(len(group.sites)))
