"""Where the walkers of the stationary law start: curvature, noise and slope of an objective at one place."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights
from isthmus.curvature import eigenpairs, gauss_newton, hessian
from isthmus.noise import PerExampleGradients, gradient_noise, teaching


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where the walkers start, and what is known of it.

    Attributes:
        gradients: of single examples there.
        values: the largest eigenvalues of the objective's Hessian, weight decay included.
        vectors: their unit vectors as columns.
        noise: variance of a single example's gradient along each.
        slope: gradient of the whole objective.
        lowest: the Hessian's smallest eigenvalue.
        weight_decay: of the objective.
        trace: variance of a single example's gradient in all directions together.
    """

    gradients: PerExampleGradients
    values: Tensor
    vectors: Tensor
    noise: Tensor
    slope: Tensor
    lowest: float
    weight_decay: float
    trace: float

    @classmethod
    def at(cls, objective: Objective, weights: Weights, *, pairs: int, weight_decay: float) -> Place:
        """Measure them; the smallest eigenvalue costs as many products again as the largest ones."""
        operator = hessian(objective, weights)
        found = eigenpairs(operator, min(pairs, operator.size))
        lowest = eigenpairs(operator, 1, "smallest")
        noise = gradient_noise(objective, weights, eigenbasis=(found.values, found.vectors), leading=1)
        assert noise.eigenbasis is not None  # a basis was given
        gradients = PerExampleGradients.at(objective, weights)
        return cls(
            gradients=gradients,
            values=found.values + weight_decay,
            vectors=found.vectors,
            noise=noise.eigenbasis.noise,
            slope=gradients.mean() + weight_decay * gradients.vector.double(),
            lowest=float(lowest.values.min()) + weight_decay if len(lowest.values) else math.nan,
            weight_decay=weight_decay,
            trace=noise.total.variance,
        )


def taught(objective: Objective, weights: Weights, *, pairs: int) -> Place:
    """The same place on the objective whose labels the network itself hands out: C is the Hessian.

    Raises:
        DataError: targets that are no labels.
    """
    if objective.targets.is_floating_point() or objective.targets.dim() != 1:
        raise DataError(f"label noise needs one class for each example, got targets of {objective.targets.dtype}")
    operator = gauss_newton(objective, weights)
    found = eigenpairs(operator, min(pairs, operator.size))
    gradients = PerExampleGradients.at(teaching(objective, weights), weights)
    nothing = torch.zeros_like(gradients.vector, dtype=torch.float64)
    noise = found.values.clamp(min=0)
    return Place(gradients, found.values, found.vectors, noise, nothing, 0.0, 0.0, float(noise.sum()))
