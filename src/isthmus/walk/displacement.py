"""How the distance from the start grows with the number of steps."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, student_quantile
from isthmus.walk.walk import Walk


@dataclasses.dataclass(frozen=True)
class Displacement(Record):
    """Mean-square displacement ≈ factor · steps^exponent.

    Attributes:
        steps: where it was measured.
        square: mean over walkers of the squared distance from the start.
        exponent: 1 for free diffusion, below 1 for a walker that is held back, 2 for straight motion; the interval is
            over walkers.
        factor: the fitted displacement at one step.
    """

    steps: Int[Tensor, " looks"]
    square: Float[Tensor, " looks"]
    exponent: Interval
    factor: float


def displacement(walk: Walk, *, first: int = 1, last: int | None = None, level: float = 0.95) -> Displacement:
    """The exponent of the mean-square displacement between two numbers of steps.

    A straight line is fitted to the logarithms at looks that are evenly spaced on a logarithmic scale, so that late
    looks do not outnumber early ones. On a sphere the displacement saturates: fit where the overlap is still high.

    Args:
        walk: with looks at three or more numbers of steps in the range.
        first: smallest number of steps.
        last: largest; by default the whole walk.
        level: nominal coverage of the interval.

    Raises:
        SettingError: too few looks, or a walker that never moved.
    """
    steps = walk.steps
    inside = (steps >= max(first, 1)) & (steps <= (int(steps[-1]) if last is None else last))
    steps = steps[inside]
    if len(steps) < 3:
        raise SettingError(f"displacement needs looks at three or more numbers of steps, got {len(steps)}")
    chosen = torch.logspace(0, math.log10(float(steps[-1]) / float(steps[0])), 24, dtype=torch.float64) * steps[0]
    places = torch.searchsorted(steps.double(), chosen - 1e-9).clamp_max(len(steps) - 1).unique()
    square = walk.distance[:, inside].double().square()
    square = square[torch.isfinite(square).all(1)]
    if not len(square) or not bool((square.mean(0) > 0).all()):
        raise SettingError("displacement needs walkers that moved and stayed finite, got none")
    logs = steps[places].double().log()
    slope, offset = _line(logs, square.mean(0)[places].log())
    walkers = len(square)
    if walkers < 3:
        missing = "none: an interval over walkers needs at least 3"
        exponent = Interval(slope, math.nan, math.nan, level, walkers, missing)
    else:
        rest = (square.sum(0) - square)[:, places] / (walkers - 1)
        slopes = torch.tensor([_line(logs, row.log())[0] for row in rest], dtype=torch.float64)
        error = float(((walkers - 1) / walkers * (slopes - slopes.mean()).square().sum()).sqrt())
        reach = student_quantile(0.5 + level / 2, walkers - 1) * error
        method = "jackknife over walkers, Student's t"
        exponent = Interval(slope, slope - reach, slope + reach, level, walkers, method)
    return Displacement(steps, square.mean(0), exponent, math.exp(offset))


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and offset of the least-squares line."""
    centred = x - x.mean()
    slope = float((centred * y).sum() / centred.square().sum())
    return slope, float(y.mean()) - slope * float(x.mean())
