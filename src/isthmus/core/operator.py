"""Operator: a symmetric matrix known only by its products."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric linear map on vectors of ``size`` entries.

    Attributes:
        size: the dimension.
        products: maps a matrix of column vectors (size, vectors) to its image; one call for many vectors.
        dtype: precision of the vectors.
        device: where they live.
    """

    size: int
    products: Callable[[Float[Tensor, "size vectors"]], Float[Tensor, "size vectors"]]
    dtype: torch.dtype = torch.float32
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    def __matmul__(self, vectors: Tensor) -> Tensor:
        if vectors.dim() == 1:
            return self.products(vectors.unsqueeze(1)).squeeze(1)
        return self.products(vectors)

    def dense(self) -> Float[Tensor, "size size"]:
        """The whole matrix, one product with the identity; for small sizes only."""
        return self.products(torch.eye(self.size, dtype=self.dtype, device=self.device))
