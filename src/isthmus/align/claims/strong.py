"""The strong claim: one permutation for each network, such that all pairs connect."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch

from isthmus.align.claims.heights import EPSILON, Height, Heights, heights_of
from isthmus.align.many import to_reference
from isthmus.align.match import Matcher
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights, combine, mean


@dataclasses.dataclass(frozen=True, eq=False)
class StrongClaim(Record):
    """Is there one permutation a network, such that all pairs connect?

    Attributes:
        method: the matcher's name.
        threshold: heights up to this count as connected.
        reference: the network that the others are matched to.
        direct: each pair matched to each other.
        indirect: both matched to the reference; pairs with the reference are left out.
        random: a random permutation for each network (negative control).
        simplex: loss at the mean of the first k aligned networks, from k = 1 on; empty without a loss.
        simplex_highest: the highest loss found at the mean and at random points of the simplex of the first k.
        naive_simplex: loss at the means without permuting.
    """

    method: str
    threshold: float
    reference: int
    direct: Heights
    indirect: Heights
    random: Heights
    simplex: tuple[float, ...]
    simplex_highest: tuple[float, ...]
    naive_simplex: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether every indirect pair connects. A failure is no disproof: another permutation may exist."""
        return self.indirect.connected == 1.0


def strong(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher,
    height: Height,
    *,
    loss: Callable[[Weights], float] | None = None,
    reference: int = 0,
    inside: int = 5,
    threshold: float = EPSILON,
    generator: torch.Generator,
    progress: Progress = silent,
) -> StrongClaim:
    """Test the strong claim: match all to one, measure the pairs among the others.

    Args:
        symmetry: of all solutions.
        solutions: at least three, trained apart.
        matcher: finds the permutations.
        height: measures the barriers.
        loss: of one solution, for the simplex of aligned networks.
        reference: which network stays.
        inside: random points, uniform in the simplex of the first k networks, at which the loss is looked at, too.
        threshold: heights up to this count as connected.
        generator: for the matcher and the control.
        progress: called after each pair.

    Raises:
        SettingError: fewer than three solutions.

    Cost: for n networks, n(n−1)/2 + n matches, 3(n−1)(n−2)/2 barriers and n·(inside + 2) losses.
    """
    if len(solutions) < 3:
        raise SettingError(f"an indirect barrier needs at least three solutions, got {len(solutions)}")
    found = to_reference(symmetry, solutions, matcher, reference=reference, generator=generator)
    framed = found.aligned(solutions)
    shuffled = [symmetry.random(generator).apply(solution) for solution in solutions]
    n = len(solutions)
    direct, indirect, random = (torch.full((n, n), float("nan"), dtype=torch.float64) for _ in range(3))
    pairs = [pair for pair in itertools.combinations(range(n), 2) if reference % n not in pair]
    for done, (i, j) in enumerate(pairs):
        match = matcher(symmetry, solutions[j], solutions[i], generator=generator)
        direct[i, j] = direct[j, i] = height(solutions[i], match.aligned(solutions[j]))
        indirect[i, j] = indirect[j, i] = height(framed[i], framed[j])
        random[i, j] = random[j, i] = height(shuffled[i], shuffled[j])
        progress(done + 1, len(pairs), "pairs")
    means = tuple(loss(mean(framed[:k])) for k in range(1, n + 1)) if loss else ()
    highest = tuple(
        max([middle, *(loss(_random_point(framed[:k], generator)) for _ in range(inside if k > 1 else 0))])
        for k, middle in enumerate(means, start=1)
        if loss
    )
    return StrongClaim(
        method=found.matches[0].method,
        threshold=threshold,
        reference=reference % n,
        direct=heights_of(direct, threshold),
        indirect=heights_of(indirect, threshold),
        random=heights_of(random, threshold),
        simplex=means,
        simplex_highest=highest,
        naive_simplex=tuple(loss(mean(solutions[:k])) for k in range(1, n + 1)) if loss else (),
    )


def _random_point(solutions: Sequence[Weights], generator: torch.Generator) -> Weights:
    """A point drawn uniformly from the simplex that solutions span."""
    draws = -torch.rand(len(solutions), generator=generator).clamp_min(1e-12).log()
    return combine(solutions, (draws / draws.sum()).tolist())
