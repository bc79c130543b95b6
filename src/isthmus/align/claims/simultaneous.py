"""The simultaneous weak claim: one permutation serves all times of two trainings, or all levels of two prunings."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.align.claims.heights import EPSILON, Height
from isthmus.align.many import check_many
from isthmus.align.match import Match, Matcher
from isthmus.align.trajectories import super_alignment
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent, within
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights, stack


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


def simultaneous(
    symmetry: Symmetry,
    trainings: Sequence[Sequence[Weights]],
    matcher: Matcher,
    height: Height,
    *,
    labels: Sequence[str] | None = None,
    together: bool = True,
    threshold: float = EPSILON,
    threads: int = 1,
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
        threads: how many matches are made at once; the matcher must allow it.
        generator: for the matcher and the control; each match draws from a generator of its own.
        progress: called after each match, and after each time of each pair.

    Raises:
        WeightsError: fewer than two trainings.
        SettingError: trainings of different lengths.

    Cost: for each pair and T times, T + 1 matches and T² + 3T barriers.
    """
    times = _times(trainings)
    pairs = [(i, i + 1) for i in range(0, len(trainings) - 1, 2)]
    found = _matches(
        symmetry,
        [(trainings[j], trainings[i]) for i, j in pairs],
        matcher,
        times=[*range(times), *([None] if together else [])],
        threads=threads,
        generator=generator,
        progress=within(progress, 0, 2),
    )
    measured = within(progress, 1, 2)
    heights = torch.full((len(pairs), times, times), float("nan"), dtype=torch.float64)
    naive, random, at_once = (torch.full((len(pairs), times), float("nan"), dtype=torch.float64) for _ in range(3))
    for place, (i, j) in enumerate(pairs):
        along = functools.partial(_along, height, trainings[i], trainings[j])
        naive[place] = along(symmetry.identity())
        random[place] = along(symmetry.random(generator))
        for time in range(times):
            heights[place, time] = along(found[place, time].permutation)
            measured(place * times + time + 1, len(pairs) * times, "times")
        if together:
            at_once[place] = along(found[place, None].permutation)
    return SimultaneousClaim(
        method=found[0, 0].method,
        threshold=threshold,
        labels=tuple(labels) if labels is not None else tuple(str(time) for time in range(times)),
        pairs=tuple(pairs),
        heights=heights,
        naive=naive,
        random=random,
        together=at_once,
        means=tuple(tuple(over_networks(heights[:, s, t]) for t in range(times)) for s in range(times)),
    )


def _times(trainings: Sequence[Sequence[Weights]]) -> int:
    """How many times all trainings have."""
    check_many(trainings)  # type: ignore[arg-type]
    lengths = {len(training) for training in trainings}
    if len(lengths) != 1:
        raise SettingError(f"all trainings must have the same times, got {sorted(lengths)} checkpoints")
    return lengths.pop()


def _along(
    height: Height, fixed: Sequence[Weights], moving: Sequence[Weights], permutation: Permutation
) -> Float[Tensor, " times"]:
    """The barrier at each time of two trainings, the second moved by one permutation throughout."""
    levels = [height(kept, permutation.apply(moved)) for kept, moved in zip(fixed, moving, strict=True)]
    return torch.tensor(levels, dtype=torch.float64)


def _matches(
    symmetry: Symmetry,
    pairs: Sequence[tuple[Sequence[Weights], Sequence[Weights]]],
    matcher: Matcher,
    *,
    times: Sequence[int | None],
    threads: int,
    generator: torch.Generator,
    progress: Progress,
) -> dict[tuple[int, int | None], Match]:
    """The match of each pair (moving, fixed) at each time, and at all times together where the time is None."""
    jobs = list(itertools.product(range(len(pairs)), times))
    seeds = dict(zip(jobs, torch.randint(1 << 62, (len(jobs),), generator=generator).tolist(), strict=True))

    def match(job: tuple[int, int | None]) -> Match:
        (moving, fixed), time = pairs[job[0]], job[1]
        own = torch.Generator().manual_seed(seeds[job])
        if time is None:
            return super_alignment(symmetry, stack(moving), stack(fixed), matcher, generator=own)
        return matcher(symmetry, moving[time], fixed[time], generator=own)

    made = in_threads(match, jobs, threads=threads, progress=progress, label="matching")
    return dict(zip(jobs, made, strict=True))
