"""Three claims about sets of solutions, tested: do permutations connect pairs, whole trainings, or all at once?

Every claim is measured beside two controls: a random permutation (must not connect) and a planted one (a network
against its own permuted copy: must connect). Heights of barriers come from the caller, so that any path, convention
and treatment of running statistics can be used. Intervals are over networks.

Reference: Sharma et al., "Simultaneous linear connectivity of neural networks modulo permutation", arXiv 2404.06498.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.align.many import check_many, to_reference
from isthmus.align.match import Match, Matcher
from isthmus.align.trajectories import super_alignment
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks, over_pairs
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights, mean, stack

Height = Callable[[Weights, Weights], float]
"""How high the barrier between two solutions is, in the caller's convention."""
EPSILON = 0.02
"""A barrier up to this counts as none: 2 % error, as in Frankle et al., arXiv 1912.05671."""


@dataclasses.dataclass(frozen=True, eq=False)
class Heights(Record):
    """Barriers between all pairs of some networks, found in one way.

    Attributes:
        matrix: symmetric; NaN where nothing was measured, such as on the diagonal.
        interval: of the mean over pairs, over networks.
        connected: the share of pairs that are no higher than the threshold.
    """

    matrix: Float[Tensor, "networks networks"]
    interval: Interval
    connected: float


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


@dataclasses.dataclass(frozen=True, eq=False)
class SimultaneousClaim(Record):
    """Does one permutation serve all times of two trainings (or all levels of sparsity of two prunings)?

    Attributes:
        method: the matcher's name.
        threshold: heights up to this count as connected.
        labels: names of the times or levels.
        pairs: the pairs of trainings.
        heights: barrier at time t (last axis) with the permutation found at time s.
        naive: without permuting.
        random: with a random permutation, the same at all times (negative control).
        together: with the permutation found from all times at once; NaN where the matcher cannot do that.
        means: mean over pairs of ``heights``, one interval for each (s, t), over pairs that share no network.
    """

    method: str
    threshold: float
    labels: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    heights: Float[Tensor, "pairs times times"]
    naive: Float[Tensor, "pairs times"]
    random: Float[Tensor, "pairs times"]
    together: Float[Tensor, "pairs times"]
    means: tuple[tuple[Interval, ...], ...]

    @property
    def holds(self) -> bool:
        """Whether the last time's permutation connects every pair at every time."""
        return bool((self.heights[:, -1] <= self.threshold).all())


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
        naive_simplex: the same without permuting.
    """

    method: str
    threshold: float
    reference: int
    direct: Heights
    indirect: Heights
    random: Heights
    simplex: tuple[float, ...]
    naive_simplex: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether every indirect pair connects. A failure is no disproof: another permutation may exist."""
        return self.indirect.connected == 1.0


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
        naive=_heights(naive, threshold),
        aligned=_heights(aligned, threshold),
        random=_heights(random, threshold),
        planted=over_networks(planted),
        matches=tuple(matches),
    )


def simultaneous(
    symmetry: Symmetry,
    trainings: Sequence[Sequence[Weights]],
    matcher: Matcher,
    height: Height,
    *,
    labels: Sequence[str] | None = None,
    together: bool = True,
    threshold: float = EPSILON,
    generator: torch.Generator,
    progress: Progress = silent,
) -> SimultaneousClaim:
    """Test the simultaneous weak claim on disjoint pairs of trainings: the first two, the next two, and so on.

    Args:
        symmetry: of all solutions.
        trainings: for each network its checkpoints, the same times for all; or its levels of sparsity, with the weights
            that are pruned set to zero, so that a permutation moves the mask with them.
        matcher: finds the permutations.
        height: measures the barriers.
        labels: names of the times or levels; numbers by default.
        together: also match whole trainings at once (only for matchers by weights).
        threshold: heights up to this count as connected.
        generator: for the matcher and the control.
        progress: called after each time of each pair.

    Cost: for each pair and T times, T + 1 matches and T² + 3T barriers.
    """
    check_many(trainings)  # type: ignore[arg-type]
    lengths = {len(training) for training in trainings}
    if len(lengths) != 1:
        raise SettingError(f"all trainings must have the same times, got {sorted(lengths)} checkpoints")
    times = lengths.pop()
    pairs = [(i, i + 1) for i in range(0, len(trainings) - 1, 2)]
    heights = torch.full((len(pairs), times, times), float("nan"), dtype=torch.float64)
    naive, random, at_once = (torch.full((len(pairs), times), float("nan"), dtype=torch.float64) for _ in range(3))
    method = ""
    for place, (i, j) in enumerate(pairs):
        fixed, moving = trainings[i], trainings[j]

        def along(permutation: Permutation, fixed=fixed, moving=moving) -> Tensor:
            levels = [height(kept, permutation.apply(moved)) for kept, moved in zip(fixed, moving, strict=True)]
            return torch.tensor(levels, dtype=torch.float64)

        naive[place] = along(symmetry.identity())
        random[place] = along(symmetry.random(generator))
        for time in range(times):
            match = matcher(symmetry, moving[time], fixed[time], generator=generator)
            method = match.method
            heights[place, time] = along(match.permutation)
            progress(place * times + time + 1, len(pairs) * times, "times")
        if together:
            found = super_alignment(symmetry, stack(moving), stack(fixed), matcher, generator=generator)
            at_once[place] = along(found.permutation)
    return SimultaneousClaim(
        method=method,
        threshold=threshold,
        labels=tuple(labels) if labels is not None else tuple(str(time) for time in range(times)),
        pairs=tuple(pairs),
        heights=heights,
        naive=naive,
        random=random,
        together=at_once,
        means=tuple(tuple(over_networks(heights[:, s, t]) for t in range(times)) for s in range(times)),
    )


def strong(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher,
    height: Height,
    *,
    loss: Callable[[Weights], float] | None = None,
    reference: int = 0,
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
        loss: of one solution, for the means of aligned networks.
        reference: which network stays.
        threshold: heights up to this count as connected.
        generator: for the matcher and the control.
        progress: called after each pair.

    Cost: for n networks, n(n−1)/2 + n matches and 3(n−1)(n−2)/2 barriers.
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
    return StrongClaim(
        method=found.matches[0].method,
        threshold=threshold,
        reference=reference % n,
        direct=_heights(direct, threshold),
        indirect=_heights(indirect, threshold),
        random=_heights(random, threshold),
        simplex=tuple(loss(mean(framed[:k])) for k in range(1, n + 1)) if loss else (),
        naive_simplex=tuple(loss(mean(solutions[:k])) for k in range(1, n + 1)) if loss else (),
    )


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


def _heights(matrix: Float[Tensor, "networks networks"], threshold: float) -> Heights:
    """The summary of a matrix; networks that were never measured are left out of the interval."""
    measured = ~matrix.isnan().all(1)
    kept = matrix[measured][:, measured]
    rows, columns = torch.triu_indices(len(kept), len(kept), offset=1)
    values = kept[rows, columns]
    interval = over_pairs(kept) if len(kept) > 1 else over_networks(values)
    return Heights(matrix, interval, float((values <= threshold).double().mean()))
