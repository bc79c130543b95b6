"""Disconnectivity graphs: at which height of the loss do solutions part?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.cluster.tree import cophenetic_correlations
from isthmus.core.errors import DataError, SettingError
from isthmus.core.record import Record

Source = Literal["linear", "minimax"]


@dataclasses.dataclass(frozen=True)
class Disconnectivity(Record):
    """A tree whose leaves hang at the solutions' losses and whose branches join at the height of the ways between.

    Attributes:
        names: of the solutions.
        source: ``linear``: average linkage of the highest loss on straight segments, an upper bound of the true passes;
            ``minimax``: the lowest pass over chains of known segments.
        ultrametric_by_construction: such heights form a tree whatever the landscape; their tree is no evidence.
        loss: of each solution.
        heights: between each pair, as the source defines them.
        merges: (left, right, height, leaves) for each merge; nodes below the number of solutions are solutions.
        order: leaves from left to right, so that no branches cross.
        cophenetic: how well the tree returns the heights: evidence for ``linear``, 1 by construction for ``minimax``.
    """

    names: tuple[str, ...]
    source: Source
    ultrametric_by_construction: bool
    loss: Float[Tensor, " networks"]
    heights: Float[Tensor, "networks networks"]
    merges: Float[Tensor, "merges 4"]
    order: tuple[int, ...]
    cophenetic: float


def disconnectivity(
    loss: Sequence[float] | Float[Tensor, " networks"],
    heights: Float[Tensor, "networks networks"],
    *,
    source: Source = "linear",
    names: Sequence[str] | None = None,
) -> Disconnectivity:
    """The tree of solutions by the height of the ways between them.

    Args:
        loss: of each solution.
        heights: highest loss on the straight segment between each pair (a loss, not a barrier above the ends).
        source: what the branches join at.
        names: of the solutions; by default their numbers from 0.

    Raises:
        SettingError: fewer than two solutions, or names that do not fit.
        DataError: heights that are not finite and symmetric, or lie below the ends of their segment.

    Reference: Becker and Karplus, "The topology of multidimensional potential energy surfaces" (1997).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if source not in ("linear", "minimax"):
        raise SettingError(f"source must be linear or minimax, got {source!r}")
    floor = torch.as_tensor(loss, dtype=torch.float64).flatten().cpu()
    given = torch.as_tensor(heights, dtype=torch.float64).cpu()
    named = tuple(names) if names is not None else tuple(str(index) for index in range(len(floor)))
    matrix = _checked(floor, given, named)
    if source == "minimax":
        matrix = minimax(matrix)
    # Linkage needs a zero diagonal and takes any non-negative numbers: heights above the lowest solution.
    above = (matrix - floor.min()).clamp_min(0)
    above.fill_diagonal_(0)
    pairs = squareform(above.numpy(), checks=False)
    merges = linkage(pairs, "average" if source == "linear" else "single")
    order = leaves_list(merges)
    if len(floor) > 2:
        cophenetic = 1.0 if source == "minimax" else float(cophenetic_correlations(above.numpy()[None])[0])
    else:
        cophenetic = float("nan")
    merges[:, 2] += float(floor.min())
    return Disconnectivity(
        named, source, source == "minimax", floor, matrix, torch.from_numpy(merges), tuple(map(int, order)), cophenetic
    )


def minimax(heights: Float[Tensor, "networks networks"]) -> Float[Tensor, "networks networks"]:
    """For each pair the lowest highest point over all chains of segments: ultrametric by construction.

    Cost: networks³ comparisons.
    """
    passes = torch.as_tensor(heights, dtype=torch.float64).clone()
    for middle in range(len(passes)):
        passes = torch.minimum(passes, torch.maximum(passes[:, middle, None], passes[None, middle, :]))
    return passes


def _checked(loss: Tensor, heights: Tensor, names: Sequence[str]) -> Tensor:
    size = len(loss)
    if size < 2:
        raise SettingError(f"a disconnectivity graph needs at least 2 solutions, got {size}")
    if len(names) != size:
        raise SettingError(f"names must be one for each of {size} solutions, got {len(names)}")
    if heights.shape != (size, size):
        raise DataError(f"heights must be a {size} × {size} matrix, got {tuple(heights.shape)}")
    heights = heights.clone()
    heights.diagonal().copy_(loss)
    if not bool(torch.isfinite(heights).all()) or not torch.allclose(heights, heights.T, rtol=1e-6, atol=1e-9):
        raise DataError("heights and losses must be finite, and heights symmetric; leave diverged solutions out")
    ends = torch.maximum(loss[:, None], loss[None, :])
    if low := (heights < ends - 1e-6 * (1 + ends.abs())).nonzero().tolist():
        row, column = low[0]
        pair = f"{names[row]} and {names[column]}"
        raise DataError(
            f"a height must not lie below the ends of its segment, got {np.float64(heights[row, column]):.6g} between "
            f"{pair} with losses {float(loss[row]):.6g} and {float(loss[column]):.6g}; pass losses, not barriers"
        )
    return torch.maximum((heights + heights.T) / 2, ends)
