"""An upper bound on what any permutation can reach, cheap enough to come with every match."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.align.assignment import assign, value
from isthmus.align.landscape import Landscape
from isthmus.align.layout import rows
from isthmus.core.symmetry import Site

_EXACT = 128
"""Units up to which the bound's assignments are solved: beyond, they would take longer than the match itself."""


def upper_bound(landscape: Landscape) -> float:
    """The sum of unconstrained assignments: every tensor is arranged as if the others did not care.

    For each counted tensor, each group that moves it gives a bound: its units are assigned freely, and whatever other
    groups could do inside a unit is bounded by the units' lengths (Cauchy and Schwarz); the smallest bound counts.
    Tensors that one group alone moves are compared exactly and assigned together, so that they must agree.

    The bound is met by a planted permutation: there, an objective that equals it proves the match to be optimal.
    """
    total, together = 0.0, {}
    for name in landscape.names:
        groups = landscape.touching[name]
        sites = [site for group in groups for site in group.sites if site.tensor == name]
        if len(sites) == 1 and groups[0].parent is None and _covers(landscape, sites[0]):
            fixed, moving = (rows(side[name], sites[0]) for side in (landscape.fixed, landscape.moving))
            product = fixed @ moving.T
            together[groups[0].name] = together.get(groups[0].name, 0) + product
        else:
            total += min(
                [_by_lengths(landscape, name, s) for s in sites if _covers(landscape, s)] or [_whole(landscape, name)]
            )
    for similarity in together.values():
        total += _assignment(similarity)
    return total


def _assignment(similarity: Tensor) -> float:
    """The largest sum of an assignment; for many units a dual solution, which is never below it and much cheaper."""
    if len(similarity) <= _EXACT:
        return value(similarity, assign(similarity))
    columns = torch.zeros(similarity.shape[1], dtype=similarity.dtype, device=similarity.device)
    best = float("inf")
    for _ in range(5):
        by_row = (similarity - columns).amax(1)
        columns = (similarity - by_row.unsqueeze(1)).amax(0)
        best = min(best, float(by_row.double().sum() + columns.double().sum()))
    return best


def _by_lengths(landscape: Landscape, name: str, site: Site) -> float:
    """Σ of products of the sorted lengths of units: the best assignment when only lengths are known."""
    lengths = []
    for side in (landscape.fixed, landscape.moving):
        tensor = side[name]
        others = [axis for axis in range(tensor.dim()) if axis != site.dim]
        along = torch.linalg.vector_norm(tensor, dim=others) if others else tensor.abs()
        lengths.append(along[site.index.to(along.device)].norm(dim=1).double().sort().values)
    return float(torch.dot(*lengths))


def _whole(landscape: Landscape, name: str) -> float:
    """The product of the lengths of the whole tensors."""
    tensors: list[Tensor] = [side[name].double() for side in (landscape.fixed, landscape.moving)]
    return float(tensors[0].norm() * tensors[1].norm())


def _covers(landscape: Landscape, site: Site) -> bool:
    """Whether a site holds every entry of its tensor."""
    return not site.within and site.index.numel() == landscape.symmetry.tensors[site.tensor][site.dim]
