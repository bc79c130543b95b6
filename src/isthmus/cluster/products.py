"""Inner products of sets of tensors, and the cosines that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

# Entries of one solution-by-column block that are in float64 at a time: 16 million are 128 MiB.
_BLOCK = 1 << 24


def gram_of(tensors: Sequence[Tensor]) -> Float[Tensor, "networks networks"]:
    """Inner products of one tensor of all solutions, accumulated in float64, some columns at a time."""
    rows = [tensor.detach().flatten() for tensor in tensors]
    width = max(1, _BLOCK // len(rows))
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for first in range(0, rows[0].numel(), width):
        block = torch.stack([row[first : first + width] for row in rows]).double()
        gram += (block @ block.T).cpu()
    return gram


def cka_gram(features: Float[Tensor, "networks examples outputs"]) -> Float[Tensor, "networks networks"]:
    """‖Xᵢᵀ Xⱼ‖² for all pairs: inner products of the networks' Gram matrices, never formed."""
    networks, examples, outputs = features.shape
    wide = features.permute(1, 0, 2).reshape(examples, networks * outputs)
    return (wide.T @ wide).view(networks, outputs, networks, outputs).square().sum((1, 3)).cpu()


def cosines(gram: Tensor) -> Tensor:
    """Cosines from inner products; NaN for what has no length."""
    lengths = gram.diagonal().clamp_min(0).sqrt()
    q = (gram / (lengths[:, None] * lengths[None, :])).clamp(-1, 1)
    q.diagonal()[lengths > 0] = 1.0
    return q
