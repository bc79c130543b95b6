"""The stationary law of SGD at a constant rate near a minimum: what is predicted, and what many walkers do.

Along an eigenvector of the Hessian with eigenvalue λ, steps θ ← θ − η(λθ + ξ) with noise of variance C/n have the
stationary variance ηC/(nλ(2−ηλ)) and forget their start in about 1/(ηλ) steps.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.noise.minimum import check_minimum
from isthmus.noise.walkers import Gradients

_RELAXED = 5.0  # times 1/(ηλ): the start has then faded to e⁻⁵ of itself


@dataclasses.dataclass(frozen=True)
class Stationary(Record):
    """Measured and predicted variance of SGD along given directions.

    Attributes:
        values: the Hessian's eigenvalues.
        measured: variance along each vector over walkers and the second half of the steps, about the common mean.
        errors: standard errors of the measured variances, from walker to walker.
        each: every walker's own mean square about the common mean, over the predicted variance: independent numbers
            whose mean is ``ratio`` (but for the common mean's own error), for intervals over walkers.
        predicted: ηC/(nλ(2−ηλ)).
        ratio: measured over predicted; NaN where the direction has not relaxed or nothing is predicted.
        relaxed: whether the first half of the steps is at least five times 1/(ηλ). Others are marked and left out.
        drift: distance of the common mean from the start, in predicted standard deviations.
        rate: the step η.
        batch_size: examples in each step, n.
        walkers: how many.
        steps: how many each.
    """

    values: Float[Tensor, " pairs"]
    measured: Float[Tensor, " pairs"]
    errors: Float[Tensor, " pairs"]
    each: Float[Tensor, "walkers pairs"] = dataclasses.field(metadata={"record": False}, repr=False)
    predicted: Float[Tensor, " pairs"]
    ratio: Float[Tensor, " pairs"]
    relaxed: Bool[Tensor, " pairs"]
    drift: Float[Tensor, " pairs"]
    rate: float
    batch_size: int
    walkers: int
    steps: int

    @property
    def spread(self) -> float:
        """Largest over smallest measured variance among relaxed directions: 1 says that SGD sees no curvature."""
        kept = self.measured[self.relaxed]
        return float(kept.max() / kept.min()) if len(kept) and float(kept.min()) > 0 else math.nan


def predicted_variance(
    values: Float[Tensor, " pairs"], noise: Float[Tensor, " pairs"], *, rate: float, batch_size: int
) -> Float[Tensor, " pairs"]:
    """ηC/(nλ(2−ηλ)); infinite for directions without positive curvature.

    Args:
        values: eigenvalues λ of the Hessian.
        noise: variance C of a single example's gradient along each eigenvector.
        rate: the step η.
        batch_size: examples in each step, n.

    Raises:
        SettingError: a rate outside 0 … 2/λ_max, where SGD diverges.

    Reference: Glukhov, arXiv 2411.07008, from the fixed point of the variance's recursion.

    Example:
        >>> predicted_variance(torch.tensor([1.0]), torch.tensor([2.0]), rate=0.5, batch_size=4)
        tensor([0.1667], dtype=torch.float64)
    """
    values, noise = values.double().cpu(), noise.double().cpu()
    largest = float(values.max())
    if rate <= 0 or (largest > 0 and rate >= 2 / largest):
        limit = f"below 2/λ_max = {2 / largest:.4g}" if largest > 0 else "positive"
        raise SettingError(f"rate must be {limit} or SGD diverges, got {rate:g}")
    result = rate * noise / (batch_size * values * (2 - rate * values))
    return torch.where(values > 0, result, torch.inf)


def stationary(
    gradients: Gradients,
    start: Float[Tensor, " size"],
    *,
    values: Float[Tensor, " pairs"],
    vectors: Float[Tensor, "size pairs"] | None = None,
    noise: Float[Tensor, " pairs"],
    rate: float,
    batch_size: int,
    steps: int,
    generator: torch.Generator,
    walkers: int = 64,
    slope: Float[Tensor, " size"] | None = None,
    lowest: float | None = None,
    forced: bool = False,
    progress: Progress = silent,
) -> Stationary:
    """Let many walkers do SGD from a minimum and compare their variance along eigenvectors with the prediction.

    Args:
        gradients: noisy gradients of all walkers at once: a :class:`Bowl`, a :class:`Sampled`, or any function.
        start: the minimum.
        values: eigenvalues of the Hessian there.
        vectors: their unit vectors as columns; the axes by default.
        noise: variance of a single example's gradient along each (``GradientNoise.eigenbasis.noise``).
        rate: the constant step η.
        batch_size: examples in each step, for the prediction; ``gradients`` draws them.
        steps: of each walker; the first half relaxes, the second is measured.
        generator: draws the noise.
        walkers: how many, at least 2.
        slope: the whole data's gradient at the start, to be sure that it is a minimum.
        lowest: the smallest eigenvalue of all, for the same reason.
        forced: go on where the start is no minimum. The law is then not expected to hold.
        progress: told of the steps done.

    Raises:
        SettingError: a rate of 2/λ_max or more, fewer than two walkers or ten steps.
        WeightsError: the start is no minimum: negative curvature, or a slope that puts the bottom more than one
            predicted standard deviation away in some direction.

    Cost: walkers × steps gradients of one batch.
    """
    if walkers < 2 or steps < 10:
        raise SettingError(f"a stationary law needs at least 2 walkers and 10 steps, got {walkers} and {steps}")
    predicted = predicted_variance(values, noise, rate=rate, batch_size=batch_size)
    columns = torch.eye(len(start), dtype=start.dtype, device=start.device) if vectors is None else vectors.to(start)
    if not forced:
        check_minimum(values, predicted, columns, slope, lowest=lowest)
    positions = start.repeat(walkers, 1)
    burn = steps // 2
    sums = squares = torch.zeros(walkers, len(values), dtype=torch.float64)
    for step in range(steps):
        if step % 100 == 0:
            progress(step, steps, "stationary law")
        positions = positions - rate * gradients(positions, generator).detach()
        if step >= burn:
            along = ((positions - start) @ columns).double().cpu()
            sums, squares = sums + along, squares + along.square()
    progress(steps, steps, "stationary law")
    if not bool(torch.isfinite(positions).all()):
        raise SettingError(f"walkers must stay finite, but left it at rate {rate:g}; lower the rate")
    count = steps - burn
    centre = sums.mean(0) / count
    each = squares / count - 2 * centre * sums / count + centre.square()
    # The common mean is estimated from as many means as walkers; without this the variance is low by 1/walkers.
    measured = each.mean(0) + (sums / count).var(0) / walkers
    errors = each.std(0) / math.sqrt(walkers)
    curvature = values.double().cpu()
    relaxed = burn * rate * curvature >= _RELAXED
    usable = relaxed & torch.isfinite(predicted) & (predicted > 0)
    ratio = torch.where(usable, measured / predicted, torch.nan)
    drift = centre.abs() / predicted.sqrt()
    single = torch.where(usable, each * (measured / each.mean(0)) / predicted, torch.nan)
    return Stationary(
        curvature, measured, errors, single, predicted, ratio, relaxed, drift, float(rate), batch_size, walkers, steps
    )
