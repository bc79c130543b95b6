"""Intervals over examples: heights of paths, means, shares. Two checkpoints allow none over networks."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.statistics import Interval, student_quantile

DRAWS = 1000  # resamples of the examples; the ends of a 95 % interval then rest on 25 draws each


def above_ends(
    values: Float[Tensor, "points examples"], t: Float[Tensor, " points"]
) -> Float[Tensor, "points examples"]:
    """Every example's value above the line between its ends' values."""
    return values - (1 - t)[:, None] * values[0] - t[:, None] * values[-1]


def height(excess: Float[Tensor, "points examples"], *, generator: torch.Generator, level: float = 0.95) -> Interval:
    """The highest mean over examples among points, with a bootstrap over examples.

    All points share each draw of examples, so what the ends and the points have in common cancels. A maximum of noisy
    means lies too high rather than too low. So the estimate and the upper end (a percentile of the resampled maxima)
    err on the side of a barrier, and the lower end must not: it is the estimate less what the largest of all points'
    errors exceeds in (1 − level)/2 of the resamples, and at least 0 where the points hold an end of the path.

    True coverage of a nominal 95 %, by simulation with 50 to 5,000 examples on 11 points and barriers of 0 to .33: .94
    to 1.00. A percentile for the lower end would put it above the barrier in 10 to 65 % of cases.

    With non-finite losses the interval has no ends.
    """
    means = excess.mean(1)
    estimate = float(means.max())
    examples = excess.shape[1]
    how = f"bootstrap over {examples} examples, the lower end for all points at once"
    if not math.isfinite(estimate):
        return Interval(estimate, math.nan, math.nan, level, 2, "none: values must be finite")
    drawn = torch.cat([_resampled(excess, size, generator) for size in _chunks(DRAWS, examples)])
    high, off = (float(part.quantile(0.5 + level / 2)) for part in (drawn.amax(1), (drawn - means).amax(1)))
    low = estimate - off
    if not bool(excess[0].any()):  # at the path's start nothing lies above the line
        low = max(low, 0.0)
    return Interval(estimate, min(low, estimate), max(high, estimate), level, 2, how)


def height_of_errors(
    loss: Float[Tensor, "points examples"],
    wrong: Float[Tensor, "points examples"],
    t: Float[Tensor, " points"],
    *,
    generator: torch.Generator,
    level: float,
) -> Interval:
    """The height of the errors; its upper end lets examples be disturbed that were not among those that were seen.

    No resample holds what the sample has not: of 50 examples that all stay right a bootstrap would say that nothing can
    go wrong, which it says of one in five paths whose barrier is .03. So wherever the path is not flat, each point's
    share of disturbed examples may be as high as Wilson's interval says, and each of them adds up to 1.
    """
    excess = above_ends(wrong, t)
    found = height(excess, generator=generator, level=level)
    if not math.isfinite(found.high) or torch.allclose(loss, loss[:1].expand_as(loss), rtol=1e-6, atol=1e-6):
        return found
    disturbed = (excess > 0).double()
    unseen = torch.tensor([share(row, level=level).high - float(row.mean()) for row in disturbed]).double()
    high = min(1.0, max(found.high, float((excess.mean(1) + unseen).max())))
    how = f"{found.method}, the upper no lower than Wilson's allows"
    return dataclasses.replace(found, high=high, method=how)


def least_examples(threshold: float, *, level: float = 0.95) -> int:
    """The fewest examples with which :func:`height_of_errors` of a path that is not flat can stay below a threshold.

    With none of n examples disturbed Wilson's upper end is z²/(n + z²).

    Example:
        >>> least_examples(0.02)
        189
    """
    z = student_quantile(0.5 + level / 2, math.inf)
    return math.ceil(z * z * (1 - threshold) / threshold)


def _chunks(draws: int, examples: int) -> list[int]:
    """Draws at once, so that their counts hold at most four million numbers."""
    size = max(1, min(draws, 4_000_000 // max(1, examples)))
    return [min(size, draws - done) for done in range(0, draws, size)]


def _resampled(
    values: Float[Tensor, "points examples"], draws: int, generator: torch.Generator
) -> Float[Tensor, "draws points"]:
    """Means over examples drawn with replacement, the same ones for all points."""
    examples = values.shape[1]
    drawn = torch.randint(examples, (draws, examples), generator=generator)
    counts = torch.zeros(draws, examples, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(1, 1, dtype=torch.float64).expand(draws, examples)
    )
    return counts @ values.T / examples


def mean(values: Float[Tensor, " examples"], *, level: float = 0.95) -> Interval:
    """The mean over examples with its normal interval."""
    n = len(values)
    estimate = float(values.mean())
    if n < 2:
        return Interval(estimate, math.nan, math.nan, level, 1, "none: an interval needs at least 2 examples")
    reach = student_quantile(0.5 + level / 2, n - 1) * float(values.std()) / math.sqrt(n)
    return Interval(estimate, estimate - reach, estimate + reach, level, 1, f"Student's t over {n} examples")


def share(right: Float[Tensor, " examples"], *, level: float = 0.95) -> Interval:
    """Wilson's interval of a share of ones: it stays within [0, 1] and is right near its ends.

    Of ten right answers out of ten Student's interval would say that nothing can go wrong.

    Reference: Wilson, Journal of the American Statistical Association 22 (1927).
    """
    from scipy.special import ndtri

    n, estimate = len(right), float(right.mean())
    z = float(ndtri(0.5 + level / 2))
    middle = (estimate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(estimate * (1 - estimate) / n + z * z / (4 * n * n))
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Interval(estimate, min(low, estimate), max(high, estimate), level, 1, f"Wilson's over {n} examples")


def kept_share(
    average: Float[Tensor, " examples"], end: Float[Tensor, " examples"], *, floor: float, level: float = 0.95
) -> Interval:
    """How much of what an end can do its average keeps, (average − floor) / (end − floor), of the same examples.

    Fieller's interval, which knows that both accuracies are uncertain and that they go together, with half an example
    more in each of the four cells of right and wrong, so that a sample without a mistake has a width. True coverage of
    a nominal 95 %, by simulation with 15 to 200 examples: .92 to 1.00. The average's own interval over the end's plain
    estimate covers .83 where the two err independently.

    Args:
        average: 1 for each example that the average gets right, else 0.
        end: the same for the end.
        floor: accuracy by chance.
        level: nominal coverage.

    Returns:
        Estimate and ends; NaN where the end is not above the floor, no ends where it is not surely so.

    Reference: Fieller, "Some problems in interval estimation", JRSS B 16 (1954); Agresti and Min, "Effects and non-
        effects of paired identical observations", Statistics in Medicine 24 (2005), for the half examples.
    """
    n, span = len(average), float(end.mean()) - floor
    if not span > 0:
        return Interval(math.nan, math.nan, math.nan, level, 1, "none: no end is above chance")
    estimate = (float(average.mean()) - floor) / span
    total = n + 2
    both = (float((average * end).sum()) + 0.5) / total
    one, other = ((float(part.sum()) + 1) / total for part in (average, end))
    z = student_quantile(0.5 + level / 2, math.inf)
    square = z * z / total
    # |x − k·y| ≤ z·its standard error, as a quadratic inequality in k.
    x, y = one - floor, other - floor
    a = y * y - square * other * (1 - other)
    b = x * y - square * (both - one * other)
    c = x * x - square * one * (1 - one)
    if not a > 0:
        return Interval(estimate, math.nan, math.nan, level, 1, "none: no end is surely above chance")
    root = math.sqrt(max(b * b - a * c, 0.0))
    low, high = min(estimate, (b - root) / a), max(estimate, (b + root) / a)
    return Interval(estimate, low, high, level, 1, f"Fieller's over {n} examples, paired")
