"""The weak claim: for every pair there is a permutation that connects it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch

from isthmus.align.claims.heights import EPSILON, Height, Heights, heights_of
from isthmus.align.many import check_many
from isthmus.align.match import Match, Matcher
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class WeakClaim(Record):
    """Is there, for every pair, a permutation that connects it?

    Attributes:
        method: the matcher's name.
        threshold: heights up to this count as connected.
        naive: without permuting.
        aligned: after matching the second of each pair to the first.
        random: after a random permutation (negative control).
        planted: each network against its own randomly permuted copy, after matching (positive control).
        matches: of the pairs i < j, in their order.
    """

    method: str
    threshold: float
    naive: Heights
    aligned: Heights
    random: Heights
    planted: Interval
    matches: tuple[Match, ...]

    @property
    def holds(self) -> bool:
        """Whether every pair was connected by the permutation that was found."""
        return self.aligned.connected == 1.0


def weak(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher,
    height: Height,
    *,
    threshold: float = EPSILON,
    generator: torch.Generator,
    progress: Progress = silent,
) -> WeakClaim:
    """Test the weak claim on all pairs.

    Args:
        symmetry: of all solutions.
        solutions: trained apart.
        matcher: finds the permutations.
        height: measures the barriers.
        threshold: heights up to this count as connected.
        generator: for the matcher and the controls.
        progress: called after each pair.

    Cost: for n networks, n(n−1)/2 + n matches and 3n(n−1)/2 + n barriers.
    """
    check_many(solutions)
    n = len(solutions)
    naive, aligned, random = (torch.full((n, n), float("nan"), dtype=torch.float64) for _ in range(3))
    matches = []
    for done, (i, j) in enumerate(itertools.combinations(range(n), 2)):
        matches.append(matcher(symmetry, solutions[j], solutions[i], generator=generator))
        naive[i, j] = naive[j, i] = height(solutions[i], solutions[j])
        aligned[i, j] = aligned[j, i] = height(solutions[i], matches[-1].aligned(solutions[j]))
        random[i, j] = random[j, i] = height(solutions[i], symmetry.random(generator).apply(solutions[j]))
        progress(done + 1, n * (n - 1) / 2, "pairs")
    planted = []
    for solution in solutions:
        copy = symmetry.random(generator).apply(solution)
        planted.append(height(solution, matcher(symmetry, copy, solution, generator=generator).aligned(copy)))
    return WeakClaim(
        method=matches[0].method,
        threshold=threshold,
        naive=heights_of(naive, threshold),
        aligned=heights_of(aligned, threshold),
        random=heights_of(random, threshold),
        planted=over_networks(planted),
        matches=tuple(matches),
    )
