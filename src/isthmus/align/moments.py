"""Second moments of two sets of features over a stream of batches."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor


@dataclasses.dataclass
class Moments:
    """Running sums of two networks' features, kept in float64 around a reference near the mean.

    The reference is the first batch's mean: without it, features with a large common mean would lose their covariance
    to rounding. Mutable, and private to one call of a matcher.
    """

    samples: int = 0
    _references: tuple[Tensor, Tensor] | None = None
    _sums: tuple[Tensor, Tensor] | None = None
    _squares: tuple[Tensor, Tensor] | None = None
    _products: Tensor | None = None

    def add(self, fixed: Float[Tensor, "samples features"], moving: Float[Tensor, "samples features"]) -> None:
        """Take one batch of both networks, in the same order of samples."""
        wide = torch.promote_types(torch.promote_types(fixed.dtype, moving.dtype), torch.float32)
        both = [part.to(device=fixed.device, dtype=wide) for part in (fixed, moving)]
        if self._references is None:
            self._references = (both[0].mean(0), both[1].mean(0))
            self._sums = self._squares = (_zeros(both[0]), _zeros(both[1]))
            self._products = torch.zeros(fixed.shape[1], moving.shape[1], dtype=torch.float64, device=fixed.device)
        assert self._sums is not None
        assert self._squares is not None
        assert self._products is not None
        left, right = (part - reference for part, reference in zip(both, self._references, strict=True))
        self._sums = (self._sums[0] + left.sum(0).double(), self._sums[1] + right.sum(0).double())
        self._squares = (
            self._squares[0] + left.square().sum(0).double(),
            self._squares[1] + right.square().sum(0).double(),
        )
        self._products += (left.T @ right).double()
        self.samples += len(fixed)

    def similarity(self, *, normalised: bool, centred: bool) -> Float[Tensor, "features features"]:
        """Covariances (or raw second moments), divided by both deviations (lengths) if ``normalised``.

        Features that do not vary are like nothing: their similarity is 0.
        """
        assert self._references is not None
        assert self._sums is not None
        assert self._squares is not None
        assert self._products is not None
        means = [total / self.samples for total in self._sums]
        product = self._products / self.samples - torch.outer(*means)
        squares = [total / self.samples - mean.square() for total, mean in zip(self._squares, means, strict=True)]
        if not centred:
            true = [r.double() + mean for r, mean in zip(self._references, means, strict=True)]
            product = product + torch.outer(*true)
            squares = [square + mean.square() for square, mean in zip(squares, true, strict=True)]
        if not normalised:
            return product
        lengths = [square.clamp_min(0).sqrt() for square in squares]
        # Below this, what is left of a constant feature is rounding.
        least = [1e-6 * (length.max() if len(length) else length.sum()) for length in lengths]
        inverse = [torch.where(n > low, 1 / n, torch.zeros_like(n)) for n, low in zip(lengths, least, strict=True)]
        return product * torch.outer(*inverse)


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape[1], dtype=torch.float64, device=like.device)
