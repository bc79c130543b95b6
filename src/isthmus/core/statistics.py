"""Intervals whose unit is the network, not the pair.

Pairwise numbers of n networks are n(n−1)/2, but only n of them are independent: a bootstrap over pairs that claims 95 %
covers about half. The intervals here resample or leave out whole networks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.record import Record


@dataclasses.dataclass(frozen=True)
class Interval(Record):
    """An estimate with a confidence interval.

    Attributes:
        estimate: the statistic on all data.
        low: lower end; NaN where too few networks allow none.
        high: upper end.
        level: nominal coverage, between 0 and 1.
        networks: the number of independent units.
        method: how the interval was made.
    """

    estimate: float
    low: float
    high: float
    level: float
    networks: int
    method: str

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def ranks(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Ranks from 1; equal values share the mean of theirs.

    Example:
        >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, ties at their mean rank; NaN where one side does not vary."""
    one, other = (ranks(np.asarray(values, dtype=float)) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    lengths = math.sqrt(float((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / lengths if lengths > 0 else math.nan


def over_pairs(values: Float[Tensor, "networks networks"], *, level: float = 0.95, signed: bool = False) -> Interval:
    """Mean over the pairs of one set of networks, with an interval over networks.

    Delete-one-network jackknife with Student's t (n − 1 degrees of freedom). Values that are never negative, such as
    barriers and distances, are skewed: there the interval is made on the logarithm of the mean, or on its square root
    where one network rules the mean so much that a logarithm would reach over more than a factor of twelve.

    True coverage of a nominal 95 %, by simulation at 6, 10 and 20 networks (``tests/statistics``): random effects
    .95, .95, .95; log-normal .94, .93, .93; squared distances .96, .95, .94. A percentile bootstrap over networks
    covers .78 to .93 there, a bootstrap over pairs .28 to .63.

    Args:
        values: symmetric; only the upper triangle is read.
        level: nominal coverage.
        signed: values can have either sign, such as differences and overlaps, even if all that were seen are positive.
            Those of few networks often are by chance: four networks without a difference would be called different in
            13 % of cases.

    Raises:
        SettingError: not square.

    Reference: Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40 (1969).
    """
    matrix = torch.as_tensor(values, dtype=torch.float64)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise SettingError(
            f"pairwise values must be a square matrix of at least two networks, got {tuple(matrix.shape)}"
        )
    n = len(matrix)
    upper = torch.triu(matrix, diagonal=1)
    total, each = upper.sum(), upper.sum(0) + upper.sum(1)
    estimate = float(total / (n * (n - 1) / 2))
    if n < 4 or not math.isfinite(estimate):
        why = "at least 4 networks" if n < 4 else "finite values"
        return Interval(estimate, math.nan, math.nan, level, n, f"none: an interval over pairs needs {why}")
    left_out = (total - each) / ((n - 1) * (n - 2) / 2)
    quantile = student_quantile(0.5 + level / 2, n - 1)
    if signed or float(upper.min()) < 0.0:
        reach = quantile * _jackknife_error(left_out)
        return Interval(estimate, estimate - reach, estimate + reach, level, n, "jackknife over networks, Student's t")
    left_out = left_out.clamp_min(0.0)  # Leaving out what was added leaves rounding behind.
    if float(left_out.min()) > 1e-12 * estimate:
        reach = quantile * _jackknife_error(left_out.log())
        if reach <= _LONGEST_LOG_REACH:
            low, high = estimate * math.exp(-reach), estimate * math.exp(reach)
            return Interval(estimate, low, high, level, n, "jackknife over networks of the log mean, Student's t")
    reach = quantile * _jackknife_error(left_out.sqrt())
    low, high = max(math.sqrt(estimate) - reach, 0.0) ** 2, (math.sqrt(estimate) + reach) ** 2
    return Interval(estimate, low, high, level, n, "jackknife over networks of the root mean, Student's t")


# exp(2.5) is about 12. Beyond, coverage no longer gains by the logarithm while the interval grows without bound.
_LONGEST_LOG_REACH = 2.5


def _jackknife_error(left_out: Float[Tensor, " networks"]) -> float:
    """Standard error of a statistic from its values with one network left out at a time."""
    n = len(left_out)
    return float(((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt())


def over_networks(values: Sequence[float] | Tensor, *, level: float = 0.95) -> Interval:
    """Mean of one independent number for each network (or each disjoint pair), with Student's interval.

    Raises:
        SettingError: no values.
    """
    sample = torch.as_tensor(values, dtype=torch.float64).flatten()
    n = len(sample)
    if n == 0:
        raise SettingError("a mean needs at least one value, got none")
    estimate = float(sample.mean())
    if n < 2:
        return Interval(estimate, math.nan, math.nan, level, n, "none: an interval needs at least 2 networks")
    reach = student_quantile(0.5 + level / 2, n - 1) * float(sample.std()) / math.sqrt(n)
    return Interval(estimate, estimate - reach, estimate + reach, level, n, "Student's t over networks")


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    networks: int,
    *,
    generator: torch.Generator,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Percentile bootstrap over networks for a statistic of any form.

    Args:
        statistic: takes the indices of the drawn networks (repeats included) and returns a number. A statistic over
            pairs must leave out pairs of a network with itself.
        networks: how many there are.
        generator: draws the resamples.
        level: nominal coverage; for few networks the true coverage is lower (.83 at 6, .94 at 20 for mean barriers).
        draws: resamples.
    """
    estimate = float(statistic(np.arange(networks)))
    drawn = torch.randint(networks, (draws, networks), generator=generator).numpy()
    values = np.array([statistic(row) for row in drawn], dtype=float)
    values = values[np.isfinite(values)]
    if networks < 3 or len(values) < draws // 2:
        return Interval(estimate, math.nan, math.nan, level, networks, "none: too few networks to resample")
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(estimate, float(low), float(high), level, networks, "percentile bootstrap over networks")


def student_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
