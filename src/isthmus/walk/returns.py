"""Descend from where a walk has come to: does one fall back into the basin that one left?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.weights import Weights, cosine, lerp, pick
from isthmus.walk.descent import Descent
from isthmus.walk.walk import Refresh, Walk, Walker

Descend = Callable[[Weights], Weights]
Barrier = Callable[[Weights, Weights], float]


@dataclasses.dataclass(frozen=True)
class Returns(Record):
    """How often walkers that descend come back to the basin of the start.

    Attributes:
        steps: how far the walkers had gone before they descended.
        rate: share of walkers that came back; those whose descent was cut off outside count as not come back.
        low: lower end of Wilson's interval for the rate, over walkers.
        high: upper end.
        level: nominal coverage.
        returned: each walker's verdict.
        undecided: whose descent was cut off, the loss still falling, before a walker was back: no verdict for these.
            Known for a :class:`Descent`; elsewhere whoever descends has to see to it, and none counts as undecided.
        barrier: between the descended start and each descended walker.
        loss: after the descent.
        overlap: cosine between the descended start and each descended walker.
        tolerance: the highest barrier inside one basin.
        walk: what the walkers saw before they descended.
        notes: what a reader has to know to trust the numbers.
    """

    steps: tuple[int, ...]
    rate: Float[Tensor, " times"]
    low: Float[Tensor, " times"]
    high: Float[Tensor, " times"]
    level: float
    returned: Bool[Tensor, "times walkers"]
    undecided: Bool[Tensor, "times walkers"]
    barrier: Float[Tensor, "times walkers"]
    loss: Float[Tensor, "times walkers"]
    overlap: Float[Tensor, "times walkers"]
    tolerance: float
    walk: Walk
    notes: tuple[str, ...] = ()


def returns(
    walker: Walker,
    objective: Objective,
    start: Weights,
    *,
    times: Sequence[int],
    descend: Descend,
    generator: torch.Generator,
    walkers: int = 8,
    steps: int | None = None,
    every: int | None = None,
    barrier: Barrier | None = None,
    tolerance: float = 0.02,
    level: float = 0.95,
    refresh: Refresh | None = None,
    progress: Progress = silent,
) -> Returns:
    """Walk, descend after each of some numbers of steps, and see whether the walkers fell back into the same basin.

    Args:
        walker: how to walk.
        objective: its loss is what one descends on and what the default barrier is made of.
        start: where to begin, usually a minimum; it is descended from too, so that an unfinished training does not
            count as another basin.
        times: numbers of steps after which to descend.
        descend: weights → the minimum below them, such as a training without noise.
        generator: for the walk.
        walkers: how many.
        steps: of the whole walk; by default the largest of ``times``.
        every: steps between two looks of the walk; by default about 50 looks.
        barrier: (start, end) → height of the way between two minima; by default the largest error above the straight
            line between the ends' errors, at 11 points of the segment.
        tolerance: two minima with a barrier up to this lie in one basin; .02 of error is Frankle et al.'s stability.
        level: nominal coverage of the interval for the rate.
        refresh: as for walkers.
        progress: hears of every descent.

    Cost: one descent and one barrier for each walker and time.

    Raises:
        SettingError: no times, times after the walk's end, or the default barrier without a measured error.
    """
    if not times or min(times) < 1:
        raise SettingError(f"times must name one or more numbers of steps, each at least 1, got {list(times)}")
    if barrier is None:
        if "error" not in objective.metrics:
            raise SettingError("barrier must be given for an objective that measures no error")
        barrier = _error_barrier(objective, refresh)
    steps = max(times) if steps is None else steps
    every = every or max(1, steps // 50)
    walk = walker(
        objective, start, steps=steps, generator=generator, walkers=walkers, every=every, keep=times, refresh=refresh
    )
    settle = descend.settle if isinstance(descend, Descent) else lambda weights: (descend(weights), True)
    home, home_settled = settle(start)
    names = objective.network.parameter_names
    shape = (len(times), walkers)
    heights, losses, overlaps = (torch.empty(shape, dtype=torch.float64) for _ in range(3))
    settled = torch.empty(shape, dtype=torch.bool)
    for row, time in enumerate(times):
        for column in range(walkers):
            below, settled[row, column] = settle(pick(walk.kept[time], column))
            heights[row, column] = float(barrier(home, below))
            losses[row, column] = objective(below).loss
            overlaps[row, column] = cosine(home, below, tensors=names)
            progress(row * walkers + column + 1, len(times) * walkers, f"descending after {time} steps")
    returned = heights <= tolerance
    undecided = ~returned & ~(settled & home_settled)
    low, high = _wilson(returned.sum(1).double(), walkers, level)
    rate = returned.double().mean(1)
    return Returns(
        steps=tuple(times), rate=rate, low=low, high=high, level=level, returned=returned, undecided=undecided,
        barrier=heights, loss=losses, overlap=overlaps, tolerance=tolerance, walk=walk,
        notes=_notes(undecided, descend),
    )  # fmt: skip


def _notes(undecided: Tensor, descend: Descend) -> tuple[str, ...]:
    if not undecided.any():
        return ()
    open_, all_ = int(undecided.sum()), undecided.numel()
    most = f" after {descend.steps} gradients" if isinstance(descend, Descent) else ""
    return (
        f"{open_} of {all_} descents were cut off{most}, outside the start's basin and with the loss still falling: "
        "whether those walkers come back is open, and the share is a lower bound; allow more gradients",
    )


def _error_barrier(objective: Objective, refresh: Refresh | None, points: int = 11) -> Barrier:
    positions = torch.linspace(0, 1, points, dtype=torch.float64)

    def barrier(start: Weights, end: Weights) -> float:
        errors = []
        for position in positions.tolist():
            between = lerp(start, end, position)
            errors.append(objective(between if refresh is None else refresh(between)).error)
        curve = torch.tensor(errors, dtype=torch.float64)
        return float((curve - ((1 - positions) * curve[0] + positions * curve[-1])).max())

    return barrier


def _wilson(successes: Tensor, trials: int, level: float) -> tuple[Tensor, Tensor]:
    """Wilson's interval for a share; holds its level where few or all succeed."""
    z = float(torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)))
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials**2)).sqrt()
    return (middle - reach).clamp_min(0), (middle + reach).clamp_max(1)
