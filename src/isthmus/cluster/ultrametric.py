"""Ultrametricity: in a tree the two longer sides of every triangle are equal."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.cluster.tree import Batch, cophenetic_correlations
from isthmus.core.errors import DataError, SettingError

# Triangles beyond this number are drawn at random: the mean over so many is known to a hundredth of its spread.
_MOST = 50_000
# Triangle sides that are in memory at a time (float64): 8 million are 64 MiB.
_BLOCK = 1 << 23


def triangles(networks: int, *, generator: torch.Generator | None = None) -> Int[np.ndarray, "triangles 3"]:
    """All triples of networks, or 50,000 drawn ones where there are more.

    Raises:
        SettingError: fewer than three networks.
    """
    if networks < 3:
        raise SettingError(f"triangles need at least 3 solutions, got {networks}")
    if networks * (networks - 1) * (networks - 2) // 6 <= _MOST:
        return np.array(list(itertools.combinations(range(networks), 3)))
    generator = generator or torch.Generator().manual_seed(0)
    drawn = torch.rand(_MOST, networks, generator=generator).topk(3, dim=1).indices
    return drawn.numpy()


def gaps(distances: Batch, triples: Int[np.ndarray, "triangles 3"]) -> Float[np.ndarray, " draws"]:
    """K_KH of each matrix of a batch: mean of (longest − middle side) over the spread of all distances."""
    rows, columns = np.triu_indices(distances.shape[1], 1)
    spread = distances[:, rows, columns].std(1)
    block = max(1, _BLOCK // (3 * len(triples)))
    means = []
    for first in range(0, len(distances), block):
        part = distances[first : first + block]
        a, b, c = (part[:, triples[:, i], triples[:, j]] for i, j in ((0, 1), (0, 2), (1, 2)))
        low, high = np.minimum(a, b), np.maximum(a, b)
        longest = np.maximum(high, c)
        middle = np.maximum(low, np.minimum(high, c))
        means.append((longest - middle).mean(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate(means) / np.where(spread > 1e-12, spread, np.nan)


def ultrametric_gap(
    distances: Float[Tensor, "networks networks"], *, generator: torch.Generator | None = None
) -> float:
    """K_KH = ⟨d₃ − d₂⟩ / std(d) over triangles with sides d₁ ≤ d₂ ≤ d₃: 0 on a tree, near .75 without structure.

    Ratios with d₁ below the line go to 0 for structureless points in many dimensions, where all distances are alike;
    this one does not, because the spread of the distances shrinks as well.

    Args:
        distances: symmetric, at least three networks.
        generator: draws triangles where there are more than 50,000; without one they are always the same.

    Raises:
        SettingError: fewer than three networks.
        DataError: not a finite symmetric matrix, or all distances equal.

    Reference: Katzgraber and Hartmann, "Ultrametricity and clustering of states in spin glasses" (2009), equation 4;
        here the mean over triangles of the quantity whose distribution they show.
    """
    matrix = checked(distances)
    found = float(gaps(matrix[None], triangles(len(matrix), generator=generator))[0])
    if np.isnan(found):
        raise DataError("the ultrametric gap needs distances that differ, got all equal")
    return found


def cophenetic_correlation(distances: Float[Tensor, "networks networks"]) -> float:
    """Correlation between distances and the tree that average linkage makes of them: 1 on a tree, near .63 without.

    Raises:
        SettingError: fewer than three networks.
        DataError: not a finite symmetric matrix, or all distances equal.
    """
    matrix = checked(distances)
    triangles(len(matrix))
    found = float(cophenetic_correlations(matrix[None])[0])
    if np.isnan(found):
        raise DataError("the cophenetic correlation needs distances that differ, got all equal")
    return found


def checked(distances: Tensor | np.ndarray) -> Float[np.ndarray, "networks networks"]:
    """Distances as a float64 array.

    Raises:
        DataError: not a finite, symmetric, non-negative matrix.
    """
    matrix = torch.as_tensor(distances, dtype=torch.float64).detach().cpu().numpy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"distances must be a square matrix, got {matrix.shape}")
    if not np.isfinite(matrix).all() or (matrix < 0).any() or not np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12):
        worst = (
            f"from {matrix.min():.4g} to {matrix.max():.4g}, up to {abs(matrix - matrix.T).max():.2g} from symmetric"
        )
        raise DataError(
            f"distances must be finite, non-negative and symmetric, got values {worst}; leave out what failed"
        )
    return matrix
