"""Positions along a path, and what a grid of them can have missed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError


def above_line(positions: Tensor, curve: Tensor) -> Tensor:
    """How far a curve lies above the straight line between its end values; exactly 0 at the ends."""
    above = curve - torch.lerp(curve[0], curve[-1], positions.to(curve))
    above[0], above[-1] = curve[0] - curve[0], curve[-1] - curve[-1]
    return above


def above_mean(curve: Tensor) -> Tensor:
    """How far a curve lies above the mean of its end values."""
    return curve - (curve[0] + curve[-1]) / 2


def gaps(positions: Tensor, curve: Tensor) -> Float[Tensor, " intervals"]:
    """For each interval, how far the curve may rise in it above the highest known point of the barrier's excess."""
    excess, step = above_line(positions, curve), positions.diff()
    slope = curve.diff() / step
    second = (slope.diff() / ((step[1:] + step[:-1]) / 2)).abs()
    # An interval touches the differences at its two ends; the outermost intervals have but one.
    bend = torch.maximum(torch.cat([second[:1], second]), torch.cat([second, second[-1:]]))
    left, right = excess[:-1], excess[1:]
    reach = 2.0 * bend * step.square() / 8
    # The top of the parabola over a chord that itself rises by d: (max + min)/2 + reach + d²/(16·reach), if it lies
    # inside.
    rise = (right - left).abs()
    inside = (left + right) / 2 + reach + rise.square() / (16 * reach.clamp_min(torch.finfo(reach.dtype).tiny))
    top = torch.where(rise < 4 * reach, inside, torch.maximum(left, right))
    return (top - excess.max()).clamp_min(0.0)


def uncertainty(positions: Tensor, curve: Tensor) -> float:
    """How much higher the barrier may be than the grid shows."""
    return float(gaps(positions, curve).max()) if bool(torch.isfinite(curve).all()) else math.nan


def grid_of(points: int, positions: Sequence[float] | None, adaptive: float | None) -> list[float]:
    """An even grid of ``points``, or the caller's own ``positions`` after checking them.

    Raises:
        SettingError: fewer than three points, not increasing from 0 to 1, or a bound that is not above 0.
    """
    if positions is None:
        if points < 3:
            raise SettingError(f"points must be at least 3 to see inside the path, got {points}")
        grid = [index / (points - 1) for index in range(points)]
    else:
        grid = [float(t) for t in positions]
        if len(grid) < 3:
            raise SettingError(f"positions must be at least 3 to see inside the path, got {len(grid)}")
        if grid[0] != 0.0 or grid[-1] != 1.0 or any(a >= b for a, b in itertools.pairwise(grid)):
            raise SettingError(f"positions must increase from 0 to 1, got {grid[0]:g} … {grid[-1]:g}")
    if adaptive is not None and not adaptive > 0.0:
        raise SettingError(f"the bound of an adaptive grid must be above 0, got {adaptive}")
    return grid
