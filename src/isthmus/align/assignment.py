"""The linear assignment problem: who goes where so that the sum of similarities is largest."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import WeightsError

_EASED = 256
"""Units from which on potentials are worth finding first: below, the solver takes no longer than finding them."""
_CLEAR = 0.8
"""The share of columns that are best for some row from which on the solver is fast as it is."""
_TEMPERATURE = 0.025
"""Of the softened problem, in units of how far the best of a row lies from its mean; the fastest of 0.006 to 0.1 on
similarities of random, heavy-tailed and activation-like units."""
_STEPS = 5
"""Of the softened problem; more, up to 20, were not worth their time."""
_UNDERFLOW = -80.0
"""Exponents below would be zero in single precision, and a column of zeros has no potential."""


def assign(similarity: Float[Tensor, "units units"]) -> Int[Tensor, " units"]:
    """The permutation p that maximises Σ similarity[u, p[u]], on the CPU, in the gather convention.

    Exact. Single precision stays single: the solver keeps its potentials in double, and its time is bounded by memory
    traffic. The diagonal wins exact ties where no other entry of its row is better, so that nothing moves without a
    reason.

    Args:
        similarity: row = unit of the fixed network, column = unit of the moving one; any device.

    Raises:
        WeightsError: a similarity is NaN or infinite.

    Cost: O(units³) at worst; 2048 units take about .05 s on random weights, and memory for two more such matrices.

    Reference: Jonker and Volgenant, "A shortest augmenting path algorithm", Computing 38 (1987); the implementation is
    lapx's ``lapjvr``, checked against SciPy's in the tests. It is started near its dual solution, see ``_eased``.
    """
    return _solve(_as_cost(similarity))


def assign_many(similarities: Float[Tensor, "problems units units"]) -> Int[Tensor, "problems units"]:
    """:func:`assign` for a batch of small problems of one size."""
    costs = _as_cost(similarities)
    if not len(costs):
        return torch.zeros(similarities.shape[:2], dtype=torch.int64)
    return torch.stack([_solve(cost) for cost in costs])


def value(similarity: Float[Tensor, "units units"], index: Int[Tensor, " units"]) -> float:
    """Σ similarity[u, index[u]], in float64."""
    rows = torch.arange(len(index), device=similarity.device)
    return float(similarity[rows, index.to(similarity.device)].double().sum())


def _as_cost(similarity: Tensor) -> np.ndarray:
    """The negated similarities as a contiguous array in single or double precision."""
    if similarity.dtype not in (torch.float32, torch.float64):
        similarity = similarity.float()
    cost = similarity.detach().neg().cpu().contiguous().numpy()
    # A sum is finite only if all entries are (or they overflow together, which is as bad); it allocates nothing.
    if not np.isfinite(cost.sum(dtype=np.float64)):
        raise WeightsError("similarities must be finite to be assigned; the weights hold NaN or Inf, or overflow")
    return cost


def _solve(cost: np.ndarray) -> Int[Tensor, " units"]:
    best = cost.argmin(axis=1) if len(cost) > 1 else np.arange(len(cost))
    rows = np.arange(len(cost))
    if bool((np.diagonal(cost) <= cost[rows, best]).all()):
        return torch.arange(len(cost))
    if len(cost) >= _EASED and len(np.unique(best)) < _CLEAR * len(cost):
        cost = _eased(torch.from_numpy(cost)).numpy()
    import lap

    if hasattr(lap, "lapjvr"):
        _, columns = lap.lapjvr(cost, return_cost=False)
    else:  # an older lapx; the optimum is the same, it only takes two to five times as long
        from scipy.optimize import linear_sum_assignment

        _, columns = linear_sum_assignment(cost)
    return torch.from_numpy(np.ascontiguousarray(columns, dtype=np.int64))


def _eased(cost: Float[Tensor, "units units"]) -> Float[Tensor, "units units"]:
    """The same problem with the solver's work mostly done: potentials of rows and columns taken off.

    Taking a number off a row or a column changes every assignment's cost alike, so that the optimum stays. The
    potentials are those of the problem softened by an entropy (a few Sinkhorn steps): nearly dual solutions, and far
    better to start from than the minima of columns that the solver begins with.

    Reference: Cuturi, "Sinkhorn distances", NeurIPS 2013, equation 2, for the softened problem.
    """
    level = cost.mean(0)
    kernel = cost - level
    least = kernel.amin(1)
    temperature = _TEMPERATURE * float((kernel.mean(1) - least).mean())
    if not temperature > 0:
        return cost
    kernel = kernel.sub_(least.unsqueeze(1)).mul_(-1 / temperature).clamp_(min=_UNDERFLOW).exp_()
    rows = torch.ones_like(least)
    columns = rows
    for _ in range(_STEPS):
        columns = (kernel.T @ rows).reciprocal_()
        rows = (kernel @ columns).reciprocal_()
    potentials = [least + temperature * rows.log(), level + temperature * columns.log()]
    if not all(bool(torch.isfinite(potential).all()) for potential in potentials):
        return cost  # weights so uneven that the softened problem overflows; the solver does without
    return torch.sub(cost, potentials[0].unsqueeze(1), out=kernel).sub_(potentials[1])
