"""Batch normalisation of many replicas with what follows it, a sum and a rectifier, in as few passes as it takes.

Everything is seen as rows of channels: (replicas, rows, channels), channels last. Sums are taken in float32, over
shares of the rows and then over the shares, always in the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.train.kernels import passes

# ruff: noqa: PLR0917 - one argument for each tensor

_TILE = 8192  # values that a program holds at once
_PROGRAMS = 1056  # eight for each multiprocessor of an H200


def channels_last(tensor: Tensor) -> Tensor:
    """The same (replicas, examples, channels, …), with the channels last and nothing between in memory."""
    return tensor.movedim(2, -1).contiguous().movedim(-1, 2)


class _Cut:
    """How the rows of one tensor are shared out."""

    def __init__(self, tensor: Tensor, *, tile: int = 0, programs: int = 0) -> None:
        tile, programs = tile or _TILE, programs or _PROGRAMS
        self.count, self.channels = tensor.shape[0], tensor.shape[2]
        self.rows = tensor[0].numel() // max(self.channels, 1)
        self.block = min(128, max(1, 1 << (self.channels - 1).bit_length()))
        self.tile = max(1, tile // self.block)
        blocks = -(-self.channels // self.block)
        shares = max(1, min(-(-programs // (self.count * blocks)), -(-self.rows // self.tile), 512))
        self.each = -(-self.rows // (shares * self.tile)) * self.tile
        self.shares = -(-self.rows // self.each)
        self.grid = (self.shares, blocks, self.count)
        self.fixed = {"CHANNELS": self.channels, "ROWS": self.tile, "BLOCK": self.block}

    def parts(self, like: Tensor) -> Tensor:
        return torch.empty((self.count, self.shares, 2, self.channels), dtype=torch.float32, device=like.device)

    def vector(self, like: Tensor) -> Tensor:
        return torch.empty((self.count, self.channels), dtype=torch.float32, device=like.device)

    @property
    def merging(self) -> tuple[tuple[int, int], dict[str, int]]:
        """Grid and constants of the kernels that merge the shares."""
        most, block = max(16, min(256, 1 << (self.shares - 1).bit_length())), min(8, self.block)
        return (-(-self.channels // block), self.count), {"CHANNELS": self.channels, "SHARES": most, "BLOCK": block}


def moments(inputs: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, reciprocal deviation and unbiased variance of each channel: (replicas, channels), float32.

    Args:
        inputs: (replicas, examples, channels, …).
        epsilon: added to the variance.
    """
    inputs, cut = channels_last(inputs), _Cut(inputs)
    parts = cut.parts(inputs)
    passes.moments[cut.grid](inputs, parts, cut.rows, cut.each, **cut.fixed)
    mean, deviation, unbiased = (cut.vector(inputs) for _ in range(3))
    grid, fixed = cut.merging
    passes.merge_moments[grid](parts, mean, deviation, unbiased, cut.rows, cut.each, cut.shares, epsilon, **fixed)
    return mean, deviation, unbiased


def normalise(
    inputs: Tensor, mean: Tensor, deviation: Tensor, gain: Tensor | None, shift: Tensor | None,
    added: Tensor | None, rectified: bool,
) -> Tensor:  # fmt: skip
    """Normalised inputs plus ``added``, rectified: (replicas, examples, channels, …), channels last."""
    inputs, cut = channels_last(inputs), _Cut(inputs)
    outputs = torch.empty_like(inputs)
    spare = mean
    passes.normalise[cut.grid](
        inputs, mean, deviation, spare if gain is None else gain, spare if shift is None else shift,
        inputs if added is None else channels_last(added), outputs, cut.rows, cut.each,
        AFFINE=gain is not None, ADDED=added is not None, RECTIFIED=rectified, **cut.fixed,
    )  # fmt: skip
    return outputs


def slope_sums(
    slopes: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, gain: Tensor | None, shift: Tensor | None,
    outputs: Tensor | None, rectified: bool, more: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Sums over the rows of slopes, and of slopes times normalised inputs; and the slopes themselves.

    Where the outputs were rectified only the slopes of positive ones count: ``outputs`` are those if something was
    added before, and the third result is then the slopes that count; else they are computed again. ``more`` slopes are
    added to the others first, with ``outputs`` only.
    """
    slopes, inputs = channels_last(slopes), channels_last(inputs)
    cut = _Cut(inputs, tile=0 if outputs is None else _TILE // 2)  # four tensors at once fill the registers
    parts, total, products = cut.parts(inputs), cut.vector(inputs), cut.vector(inputs)
    kept = slopes if outputs is None else torch.empty_like(slopes)
    spare = mean
    passes.slope_sums[cut.grid](
        slopes, slopes if more is None else channels_last(more), inputs,
        slopes if outputs is None else channels_last(outputs), kept, mean, deviation,
        spare if gain is None else gain, spare if shift is None else shift, parts, cut.rows, cut.each,
        AFFINE=gain is not None, RECTIFIED=0 if not rectified else (1 if outputs is None else 2),
        KEPT=outputs is not None, MORE=more is not None, **cut.fixed,
    )  # fmt: skip
    grid, fixed = cut.merging
    passes.merge_sums[grid](parts, total, products, cut.shares, **fixed)
    return total, products, slopes.new_empty(0) if outputs is None else kept


def input_slopes(
    slopes: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, gain: Tensor | None, shift: Tensor | None,
    total: Tensor, products: Tensor, rectified: bool,
) -> Tensor:  # fmt: skip
    """The gradient of the inputs, from the sums of :func:`slope_sums`."""
    slopes, inputs, cut = channels_last(slopes), channels_last(inputs), _Cut(inputs)
    made = torch.empty_like(inputs)
    spare = mean
    passes.input_slopes[cut.grid](
        slopes, inputs, mean, deviation, spare if gain is None else gain, spare if shift is None else shift,
        total, products, made, cut.rows, cut.each,
        AFFINE=gain is not None, RECTIFIED=int(rectified), **cut.fixed,
    )  # fmt: skip
    return made
