"""From equal parts to one group of units: the parts' own tensors, and what moves with them in tensors they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from isthmus.core.symmetry import Role, Siblings, Site, UnitGroup
from isthmus.discover.branches import Branches
from isthmus.discover.classes import Classes
from isthmus.discover.families import Family
from isthmus.discover.tracing import Trace

_SHOWN = 3  # names of modules that a group's name tells; more are left out
_Place = tuple[str, int, tuple[tuple[int, int, int], ...]]


def group_of_parts(  # noqa: D417
    branches: Branches, trace: Trace, roles: Mapping[str, Role], aliases: Mapping[str, Sequence[str]]
) -> UnitGroup | None:
    """The parts as units; None if what moves with them cannot be told.

    Args:
        roles: what each tensor's sites count as.
        aliases: further state-dict names of tied tensors.
    """
    own = {name for row in branches.siblings for name in row}
    found: dict[_Place, list[list[int]]] = {}
    before = trace.before(branches)
    for nodes in branches.reads:
        if any(nodes[0].args[0] in pairing.to for pairing in branches.pairings):
            return None  # parts that read different positions of what is their own
        if (labels := trace.read(nodes)) is not None:
            _collect(trace, own, before, labels, found)
    inside = [*trace.entered(branches), *_own_labels(branches, trace)]
    for labels in inside:
        _collect(trace, own, trace.everywhere, labels, found)
    if inside:
        _collect_around(trace, own, [np.concatenate(unit) for unit in zip(*inside, strict=True)], found)
    sites = _sites(found, roles, aliases)
    if sites is None:
        return None
    return UnitGroup(_title(branches.siblings), branches.number, tuple(sites), siblings=_rows(branches, roles, aliases))


def _own_labels(branches: Branches, trace: Trace) -> list[list[np.ndarray]]:
    """The labels of the parts' own tensors, corresponding ones at one place."""
    families: dict[str, list[Family]] = {}
    for family in trace.ledger.families:
        if family.tensor is not None:
            families.setdefault(family.tensor, []).append(family)
    result = []
    for row in branches.siblings:
        for peers in zip(*(families.get(name, ()) for name in row), strict=False):
            if len({family.stop - family.start for family in peers}) == 1:
                result.append([np.arange(family.start, family.stop) for family in peers])
    return result


def _collect(
    trace: Trace, own: set[str], classes: Classes, labels: Sequence[np.ndarray], found: dict[_Place, list[list[int]]]
) -> None:
    """Add the positions in shared tensors that are tied to each part's labels."""
    units = classes.of[np.stack(labels)]
    units = units[:, classes.holding(trace.outside(own))[units].any(axis=0)]
    _, first = np.unique(units[0], return_index=True)
    for column in units[:, np.sort(first)].T.tolist():
        if len(set(column)) == len(column):
            _add([_shared(trace, own, classes.labels(one)) for one in column], found)


def _collect_around(
    trace: Trace, own: set[str], units: Sequence[np.ndarray], found: dict[_Place, list[list[int]]]
) -> None:
    """Add what lies around the units' own labels: rows of a router that weigh whole parts side by side."""
    classes = trace.everywhere
    around = classes.around(units)
    if len({len(one) for one in around}) == 1:
        for row in zip(*around, strict=True):
            _add([_shared(trace, own, classes.labels(one)) for one in row], found)


def _add(rows: Sequence[dict[_Place, list[int]]], found: dict[_Place, list[list[int]]]) -> None:
    """Add the places of corresponding labels of all parts, where they are in the same tensors as often.

    What is tied to one part alone is pinned or a mistake of the tracing; computing tells which.
    """
    for place in rows[0]:
        if len({len(row.get(place, ())) for row in rows}) > 1:
            continue
        into = found.setdefault(place, [[] for _ in rows])
        for unit, row in enumerate(rows):
            into[unit] += [position for position in row[place] if position not in into[unit]]


def _shared(trace: Trace, own: set[str], labels: np.ndarray) -> dict[_Place, list[int]]:
    """The positions of labels in tensors that are no part's own."""
    result: dict[_Place, list[int]] = {}
    for family, label in zip(trace.families(labels), labels.tolist(), strict=True):
        if family.tensor is None or family.tensor in own or family.positions is None:
            continue
        within: tuple[tuple[int, int, int], ...] = ()
        if family.slices is not None:
            axis, starts = family.slices
            within = ((axis, int(starts[label - family.start]), family.cuts[1]),)
        place = (family.tensor, family.dim, within)
        result.setdefault(place, []).append(int(family.positions[label - family.start]))
    return result


def _sites(
    found: Mapping[_Place, Sequence[Sequence[int]]], roles: Mapping[str, Role], aliases: Mapping[str, Sequence[str]]
) -> list[Site] | None:
    sites = []
    for (tensor, dim, slices), rows in found.items():
        if len({len(row) for row in rows}) > 1 or len({p for row in rows for p in row}) < sum(map(len, rows)):
            return None
        index = torch.tensor(rows)
        within = tuple((axis, torch.arange(start, start + length)) for axis, start, length in slices)
        sites.append(Site(tensor, dim, index, roles.get(tensor, "match"), within))
        sites += [Site(alias, dim, index, "carry", within) for alias in aliases.get(tensor, ())]
    return sites


def _rows(branches: Branches, roles: Mapping[str, Role], aliases: Mapping[str, Sequence[str]]) -> tuple[Siblings, ...]:
    """The parts' own tensors, with their further names, and what their layers hold and never read (counters)."""
    rows = []
    known = {name for row in branches.siblings for name in row}
    for row in branches.siblings:
        counted = all(roles.get(name, "match") == "match" for name in row)
        rows.append(Siblings(row, "match" if counted else "carry"))
        further = [aliases.get(name, ()) for name in row]
        rows += [Siblings(names, "carry") for names in zip(*further, strict=False)]
        known |= {name for names in further for name in names}
    for layer in dict.fromkeys(tuple(name.rpartition(".")[0] for name in row) for row in branches.siblings):
        counters = tuple(f"{one}.num_batches_tracked" for one in layer)
        if len(set(counters)) == len(counters) and all(name in roles for name in counters):
            rows.append(Siblings(counters, "carry"))
    return tuple(rows)


def _title(rows: Sequence[Sequence[str]]) -> str:
    """What the names of the first siblings have in common, with a star for what tells the units apart."""
    parts = [name.split(".") for name in rows[0]]
    common = next((n for n, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), 0)
    if common:
        return ".".join([*parts[0][:common], "*"])
    first = list(dict.fromkeys(part[0] for part in parts))
    return "|".join(first[:_SHOWN] + ["…"] * (len(first) > _SHOWN))
