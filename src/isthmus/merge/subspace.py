"""Merging in a common basis: the singular vectors of all task vectors of a layer together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.weights import Weights
from isthmus.merge.kernels import kept_of
from isthmus.merge.merger import check_share, check_solutions, check_weights, merge_tensors, weighted_sum
from isthmus.merge.task_vectors import elect, largest_entries


@dataclasses.dataclass(frozen=True)
class KnOTS:
    """Write the changes of a matrix as U·[Σ V₁ᵀ | Σ V₂ᵀ | …] and merge the parts Σ Vᵢᵀ, which share U, as TIES does.

    With ``density`` 1 and ``elect`` off the basis has no effect and the result is task arithmetic.

    Attributes:
        density: share of each part's entries that is kept, the largest by magnitude; counted among the directions that
            the changes have: of two LoRA of rank 8 there are 16 at most, however large the matrix.
        elect: average only entries that agree with the elected sign; otherwise add all up.
        rank: keep only so many singular directions; all by default.
        scale: factor of the merged task vector (λ).
        weights: one for each solution; all 1 by default.

    Vectors and scalars are merged in their own basis.

    Reference: Stoica et al., "Model merging with SVD to tie the KnOTS" (2410.19735). Entries are trimmed within each
        matrix; the authors' code trims over all layers together, and leaves out singular values up to 1e-5 instead of
        those that rounding alone makes.

    Cost: one singular value decomposition of outputs × (solutions · inputs) for each matrix.
    """

    density: float = 1.0
    elect: bool = True
    rank: int | None = None
    scale: float = 1.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_share("density", self.density)
        if self.rank is not None and self.rank < 1:
            raise SettingError(f"rank must be at least 1, got {self.rank}")

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        check_solutions(solutions, base=base)
        shares = check_weights(self.weights, solutions, normalised=False)

        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            *wide, origin = tensors
            vectors = [tensor - origin for tensor in wide]
            if origin.dim() < 2 or origin.numel() == 0:
                return origin + self.scale * self._mix(vectors, shares)
            joined = torch.cat([vector.flatten(1) for vector in vectors], dim=1)
            basis, values, right = torch.linalg.svd(joined, full_matrices=False)
            kept = min(self.rank or len(values), len(values))
            if self.density < 1:
                kept = min(kept, int((values > _rounding(wide, values, solutions[0][name].dtype)).sum()))
            parts = (values[:kept, None] * right[:kept]).split(origin.flatten(1).shape[1], dim=1)
            merged = basis[:, :kept] @ self._mix([part.clone() for part in parts], shares)
            return origin + self.scale * merged.reshape(origin.shape)

        return merge_tensors(solutions, rule, base=base)

    def _mix(self, parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        if self.density < 1:
            for part in parts:
                part.mul_(largest_entries(part.abs().flatten(), kept_of(part.numel(), self.density)).view_as(part))
        return elect(parts, shares) if self.elect else weighted_sum(parts, shares)


def _rounding(matrices: Sequence[Tensor], values: Tensor, stored: torch.dtype) -> float:
    """The largest singular value that rounding alone gives to the joined changes of matrices stored in a precision.

    Rounded entries are off by a unit in the last place over √12, each its own way; the longest singular direction of
    such noise has the length (1/√rows + 1/√columns) times that of all of it.
    """
    rows, columns = len(matrices[0]), sum(matrix[0].numel() for matrix in matrices)
    length = math.sqrt(math.fsum(float(matrix.square().sum()) for matrix in matrices))
    noise = torch.finfo(stored).eps / math.sqrt(12) * length * (rows**-0.5 + columns**-0.5)
    return max(noise, float(values[0]) * max(rows, columns) * torch.finfo(values.dtype).eps)
