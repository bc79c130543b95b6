"""The linear assignment problem: who goes where so that the sum of similarities is largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import WeightsError


def assign(similarity: Float[Tensor, "units units"]) -> Int[Tensor, " units"]:
    """The permutation p that maximises Σ similarity[u, p[u]], on the CPU, in the gather convention.

    Exact. Single precision stays single: the solver keeps its potentials in double, and its time is bounded by memory
    traffic. The diagonal wins exact ties where no other entry of its row is better, so that nothing moves without a
    reason.

    Args:
        similarity: row = unit of the fixed network, column = unit of the moving one; any device.

    Raises:
        WeightsError: a similarity is NaN or infinite.

    Cost: O(units³) at worst; 2048 units take about .2 s on random weights.

    Reference: Jonker and Volgenant, "A shortest augmenting path algorithm", Computing 38 (1987); the implementation is
    lapx's ``lapjvr``, checked against SciPy's in the tests.
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


def compose(steps: Sequence[Int[Tensor, " units"]]) -> Int[Tensor, " units"]:
    """Gathers done one after the other, the first one first, as one gather."""
    total = steps[0]
    for step in steps[1:]:
        total = total[step]
    return total


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
    diagonal = np.diagonal(cost)
    if len(cost) < 2 or bool((diagonal <= cost.min(axis=1)).all()):
        return torch.arange(len(cost))
    import lap

    if hasattr(lap, "lapjvr"):
        _, columns = lap.lapjvr(cost, return_cost=False)
    else:  # an older lapx; the optimum is the same, it only takes two to five times as long
        from scipy.optimize import linear_sum_assignment

        _, columns = linear_sum_assignment(cost)
    return torch.from_numpy(np.ascontiguousarray(columns, dtype=np.int64))
