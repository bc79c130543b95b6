"""P(q): how overlaps are distributed over pairs, and whether their spread is more than chance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.cluster.hierarchy import clouds
from isthmus.cluster.overlap import Overlaps
from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_pairs, student_quantile


@dataclasses.dataclass(frozen=True)
class OverlapDistribution(Record):
    """The distribution of overlaps over pairs, with intervals over networks.

    Attributes:
        edges: of the histogram's bins.
        density: of each bin; the histogram has area 1.
        low: lower end of each bin's density, percentile bootstrap over networks.
        high: upper end.
        null: density for structureless Gaussian points with the same moments.
        mean: mean overlap.
        spread: standard deviation of the overlaps over pairs.
        chance: the spread that independent Gaussian points in ``entries`` dimensions would have, around a common one
            that gives them the same mean overlap q: (1 − q)·√(1 + 2q − q²) / √entries. The part of ``spread`` that only
            says that networks are finite.
        entries: how many numbers each overlap is over.
        level: nominal coverage of the intervals.
    """

    edges: Float[Tensor, " edges"]
    density: Float[Tensor, " bins"]
    low: Float[Tensor, " bins"]
    high: Float[Tensor, " bins"]
    null: Float[Tensor, " bins"]
    mean: Interval
    spread: Interval
    chance: float
    entries: int
    level: float

    @property
    def excess(self) -> float:
        """Spread over chance: near 1 where the overlaps differ no more than finite size makes them."""
        return self.spread.estimate / self.chance


def distribution(
    overlaps: Overlaps,
    *,
    generator: torch.Generator,
    bins: int = 20,
    limits: tuple[float, float] | None = None,
    level: float = 0.95,
    draws: int = 500,
) -> OverlapDistribution:
    """P(q) over the pairs of a set of solutions.

    Args:
        overlaps: of at least three solutions.
        generator: draws networks for the bootstrap and points for the null.
        bins: of the histogram.
        limits: its ends; by default just around the overlaps.
        level: nominal coverage.
        draws: bootstrap samples and null draws.

    Raises:
        SettingError: fewer than three solutions, or no bins.
    """
    networks = len(overlaps.names)
    if networks < 3:
        raise SettingError(f"a distribution of overlaps needs at least 3 solutions, got {networks}")
    if bins < 1:
        raise SettingError(f"bins must be at least 1, got {bins}")
    rows, columns = np.triu_indices(networks, 1)
    q = overlaps.q.numpy()
    values = q[rows, columns]
    edges = np.linspace(*(limits or _around(values)), bins + 1)
    density = _density(values, edges)
    resampled = np.stack([_resampled(q, edges, generator) for _ in range(draws)])
    low, high = np.nanquantile(resampled, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    if networks >= 4:
        cloud = 1 - clouds(overlaps.q, draws, generator=generator)[:, rows, columns] ** 2 / 2
        null = _density(cloud.ravel(), edges)
    else:
        null = np.full(bins, np.nan)
    mean = over_pairs(overlaps.q, level=level, signed=True)
    return OverlapDistribution(
        edges=torch.from_numpy(edges),
        density=torch.from_numpy(density),
        low=torch.from_numpy(low),
        high=torch.from_numpy(high),
        null=torch.from_numpy(null),
        mean=mean,
        spread=_spread(q, level),
        chance=_chance(max(mean.estimate, 0.0), overlaps.entries),
        entries=overlaps.entries,
        level=level,
    )


@dataclasses.dataclass(frozen=True)
class FiniteSize(Record):
    """How the spread of overlaps changes with the size of the networks.

    Attributes:
        entries: numbers in each network.
        spread: of the overlaps at each size.
        exponent: of spread ≈ entries^exponent: −½ where overlaps differ only because networks are finite; 0 where P(q)
            stays broad, as in a glass. The interval takes the sizes' own intervals as errors.
    """

    entries: tuple[int, ...]
    spread: tuple[Interval, ...]
    exponent: Interval


def finite_size(sets: Sequence[Overlaps], *, level: float = 0.95) -> FiniteSize:
    """Control for finite size: the same kind of solutions at three or more sizes.

    Raises:
        SettingError: fewer than two sizes, or fewer than four solutions at one of them.
    """
    sets = sorted(sets, key=lambda each: each.entries)
    if len({each.entries for each in sets}) < 2:
        raise SettingError(f"finite_size needs networks of at least 2 sizes, got {len({e.entries for e in sets})}")
    if few := [len(each.names) for each in sets if len(each.names) < 4]:
        raise SettingError(f"finite_size needs at least 4 solutions at each size, got {few[0]}")
    spreads = tuple(_spread(each.q.numpy(), level) for each in sets)
    x = np.log([each.entries for each in sets])
    y = np.log([spread.estimate for spread in spreads])
    z = student_quantile(0.5 + level / 2, 1e6)
    errors = np.array([(s.high - s.estimate) / student_quantile(0.5 + level / 2, s.networks - 1) for s in spreads])
    weights = (np.exp(y) / np.maximum(errors, 1e-12)) ** 2
    centred = x - (weights * x).sum() / weights.sum()
    slope = float((weights * centred * y).sum() / (weights * centred**2).sum())
    reach = z / math.sqrt(float((weights * centred**2).sum()))
    networks = min(len(each.names) for each in sets)
    exponent = Interval(slope, slope - reach, slope + reach, level, networks, "weighted least squares over sizes")
    return FiniteSize(tuple(each.entries for each in sets), spreads, exponent)


def _chance(q: float, entries: int) -> float:
    """The first-order spread over pairs of cosines between points √q·c + √(1 − q)·g, with c common and g their own.

    Of the variance (1 − q)²/N, one part comes from g_a·g_b, 2q(1 − q) from c·g_a and c·g_b, q² from the points' own
    lengths; that c has a length of its own shifts all pairs alike.
    """
    return (1 - q) * math.sqrt(1 + 2 * q - q * q) / math.sqrt(entries)


def _around(values: np.ndarray) -> tuple[float, float]:
    """Limits a little outside the overlaps, within [−1, 1] up to that little."""
    low, high = float(values.min()), float(values.max())
    margin = 0.02 * (high - low) or 1e-3
    return low - margin, high + margin


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram(values, edges)[0]
    return counts / (max(len(values), 1) * np.diff(edges))


def _resampled(q: np.ndarray, edges: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The histogram of networks drawn with replacement; pairs of a network with itself are left out."""
    drawn = torch.randint(len(q), (len(q),), generator=generator).numpy()
    rows, columns = np.triu_indices(len(q), 1)
    rows, columns = drawn[rows], drawn[columns]
    other = rows != columns
    if not other.any():
        return np.full(len(edges) - 1, np.nan)
    return _density(q[rows[other], columns[other]], edges)


def _spread(q: np.ndarray, level: float) -> Interval:
    """Standard deviation over pairs with a delete-one-network jackknife interval."""
    n = len(q)
    rows, columns = np.triu_indices(n, 1)
    values = q[rows, columns]
    estimate = float(values.std(ddof=1))
    if n < 4:
        return Interval(
            estimate, math.nan, math.nan, level, n, "none: an interval over pairs needs at least 4 networks"
        )
    parts = np.array([values[(rows != gone) & (columns != gone)].std(ddof=1) for gone in range(n)])
    error = math.sqrt((n - 1) / n * float(((parts - parts.mean()) ** 2).sum()))
    reach = student_quantile(0.5 + level / 2, n - 1) * error
    return Interval(
        estimate, max(estimate - reach, 0.0), estimate + reach, level, n, "jackknife over networks, Student's t"
    )
