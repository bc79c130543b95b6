"""Permutations composed along paths through several networks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.align.claims.heights import Height
from isthmus.align.match import Match, Matcher
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Cycles(Record):
    """What becomes of permutations that are composed along paths through several networks.

    Attributes:
        method: the matcher's name.
        lengths: steps of the paths.
        heights: barrier between the start, permuted along the path, and its end; one for each path.
        fixed_share: share of units that come back to their place when the path is closed; one for each path.
        random: heights with a random permutation instead (negative control).
    """

    method: str
    lengths: tuple[int, ...]
    heights: Float[Tensor, "lengths paths"]
    fixed_share: Float[Tensor, "lengths paths"]
    random: Float[Tensor, "lengths paths"]


def cycles(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher,
    height: Height,
    *,
    lengths: Sequence[int] = (1, 2, 3),
    paths: int = 5,
    generator: torch.Generator,
    progress: Progress = silent,
) -> Cycles:
    """Compose pairwise permutations along random paths through different networks.

    Args:
        symmetry: of all solutions.
        solutions: more than the longest path has steps.
        matcher: finds the permutations; each ordered pair is matched at most once.
        height: measures the barriers.
        lengths: steps of the paths.
        paths: how many of each length.
        generator: draws the paths, and serves the matcher.
        progress: called after each path.

    Raises:
        SettingError: a path has no step, or more steps than there are other networks.
    """
    if not lengths or min(lengths) < 1 or max(lengths) >= len(solutions):
        given = f"{list(lengths)} and {len(solutions)} solutions"
        raise SettingError(f"lengths must lie between 1 and the number of solutions − 1, got {given}")
    known: dict[tuple[int, int], Match] = {}

    def between(moving: int, fixed: int) -> Permutation:
        if (moving, fixed) not in known:
            known[moving, fixed] = matcher(symmetry, solutions[moving], solutions[fixed], generator=generator)
        return known[moving, fixed].permutation

    shape = (len(lengths), paths)
    heights, fixed_share, random = (torch.full(shape, float("nan"), dtype=torch.float64) for _ in range(3))
    for row, length in enumerate(lengths):
        for column in range(paths):
            stops = torch.randperm(len(solutions), generator=generator)[: length + 1].tolist()
            total = symmetry.identity()
            for moving, fixed in itertools.pairwise(stops):
                total = between(moving, fixed).after(total)
            start, end = solutions[stops[0]], solutions[stops[-1]]
            heights[row, column] = height(end, total.apply(start))
            fixed_share[row, column] = between(stops[-1], stops[0]).after(total).fixed_share
            random[row, column] = height(end, symmetry.random(generator).apply(start))
            progress(row * paths + column + 1, len(lengths) * paths, "paths")
    method = next(iter(known.values())).method
    return Cycles(method, tuple(lengths), heights, fixed_share, random)
