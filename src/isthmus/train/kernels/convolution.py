"""Convolutions of many replicas in one launch each: forward, the gradient of the images, the gradient of the kernels.

Images of a replica lie channels last. Each is a matrix product over a window of the images (implicit GEMM): a row is
``pixels`` neighbouring output places, a column of it one output place and channel; the images' side is the run of
memory that these places see in each row of the window, and the kernel's side is laid out for it with zeros where a
place does not see a column. So also a few channels give runs that memory and tensor cores like.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from isthmus.train.kernels import products
from isthmus.train.kernels.language import tl

# ruff: noqa: PLR0917 - one argument for each tensor


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How output places of one direction see the images that they are computed from.

    Attributes:
        pixels: neighbouring output places in a row of the product.
        reach: columns of the images that they see together.
        step: columns of the images from one group of places to the next.
        begin: the first column that the first group sees.
        stride: rows of the images for each output row, or the reverse where it is ``turned``.
        across: the same of columns.
        padding: of the rows.
        columns: padding of the columns.
        turned: whether it is the gradient of the images.
    """

    pixels: int
    reach: int
    step: int
    begin: int
    stride: int
    across: int
    padding: int
    columns: int
    turned: bool

    @classmethod
    def forward(cls, width: int, stride: tuple[int, int], padding: tuple[int, int], *, pixels: int) -> Geometry:
        """Of a convolution's outputs."""
        across, columns = stride[1], padding[1]
        reach = (pixels - 1) * across + width
        return cls(pixels, reach, pixels * across, -columns, stride[0], across, padding[0], columns, False)

    @classmethod
    def backward(cls, width: int, stride: tuple[int, int], padding: tuple[int, int], *, pixels: int) -> Geometry:
        """Of the gradient of its images; ``pixels`` is a multiple of the stride."""
        across, columns = stride[1], padding[1]
        begin = -((width - 1 - columns) // across)
        reach = max((pixels - 1 + columns) // across - begin + 1, 1)
        return cls(pixels, reach, pixels // across, begin, stride[0], across, padding[0], columns, True)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How a product is cut up.

    Attributes:
        rows: of a block.
        columns: of a block.
        depth: of a block.
        warps: that work on a block.
        stages: blocks that are loaded ahead.
        programs: into which the blocks are shared out, for the gradient of the kernels.
        together: whether a program takes all rows of the window, for the gradient of the kernels.
    """

    rows: int
    columns: int
    depth: int
    warps: int = 4
    stages: int = 2
    programs: int = 0
    together: bool = False


def convolve(
    images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int],
    *, dtype: torch.dtype, rounded: bool, pixels: int | None = None, blocks: Blocks | None = None,
) -> Tensor:  # fmt: skip
    """Outputs (replicas, examples, outputs, rows, columns), channels last in memory.

    Args:
        images: (replicas, examples, channels, rows, columns), in any layout.
        weight: (replicas, outputs, channels, rows, columns).
        stride: of rows and columns.
        padding: of rows and columns.
        dtype: of the outputs and of the factors.
        rounded: whether float32 factors may be rounded to TensorFloat-32; else each is the sum of two such numbers.
        pixels: places in a row of the product; chosen if not said.
        blocks: how the product is cut up; chosen if not said.
    """
    made, seen, extent, width = weight.shape[1:]
    lengths = zip(images.shape[3:], (extent, width), stride, padding, strict=True)
    size = [(length + 2 * around - one) // step + 1 for length, one, step, around in lengths]
    pixels = pixels or _pixels(seen, made, size[1], stride[1])
    geometry = Geometry.forward(width, stride, padding, pixels=pixels)
    return _made(images, weight, geometry, (size[0], size[1]), None, dtype=dtype, rounded=rounded, blocks=blocks)


def image_slopes(
    slopes: Tensor, weight: Tensor, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    added: Tensor | None = None,
    *, dtype: torch.dtype, rounded: bool, pixels: int | None = None, blocks: Blocks | None = None,
) -> Tensor:  # fmt: skip
    """The gradient of the images, plus ``added``; ``size`` is the images' rows and columns, the rest as above."""
    seen, made, _, width = weight.shape[1:]
    pixels = pixels or (stride[1] if stride[1] > 1 else _pixels(seen, made, size[1], 1))
    geometry = Geometry.backward(width, stride, padding, pixels=pixels)
    return _made(slopes, weight, geometry, size, added, dtype=dtype, rounded=rounded, blocks=blocks)


def kernel_slopes(
    images: Tensor, slopes: Tensor, extents: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    *, dtype: torch.dtype, rounded: bool, pixels: int | None = None, blocks: Blocks | None = None,
) -> Tensor:  # fmt: skip
    """The gradient of the kernels, float32: (replicas, outputs, channels, rows, columns); ``extents`` of the window."""
    count, examples, seen, height, width = images.shape
    made, rows, columns = slopes.shape[2:]
    pixels = pixels or _pixels(seen, made, columns, stride[1])
    geometry = Geometry.forward(extents[1], stride, padding, pixels=pixels)
    run, wide = geometry.reach * seen, pixels * made
    groups = examples * rows * -(-columns // pixels)
    blocks = blocks or _blocks_of_kernels(run, wide, groups, wide=dtype is torch.float32)
    together = extents[0] if blocks.together and extents[0] <= _TOGETHER else 1
    tiles = extents[0] // together * -(-run // blocks.depth) * -(-wide // blocks.columns)
    shares = max(1, min(-(-blocks.programs // (tiles * count)), -(-groups // (4 * blocks.rows))))
    each = -(-groups // (shares * blocks.rows)) * blocks.rows
    shares = -(-groups // each)
    parts = torch.empty((count, shares, extents[0] * run, wide), dtype=torch.float32, device=images.device)
    products.kernel_slopes[(tiles, shares, count)](
        images, slopes.permute(0, 1, 3, 4, 2).contiguous(), parts, groups, each,
        images.stride(0), images.stride(1), images.stride(3), images.stride(4), images.stride(2), height, width,
        EXTENT=extents[0], REACH=geometry.reach, SEEN=seen, MADE=made, PIXELS=pixels,
        OUT_HEIGHT=rows, OUT_WIDTH=columns, STEP=geometry.step, BEGIN=geometry.begin,
        STRIDE=geometry.stride, PADDING=geometry.padding, BLOCK_M=blocks.rows, BLOCK_N=blocks.columns,
        BLOCK_K=blocks.depth, PRECISION=_precision(dtype, rounded=rounded), DTYPE=_TYPES[dtype], TOGETHER=together,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    weight = torch.empty((count, made, seen, *extents), dtype=torch.float32, device=images.device)
    total, block = made * seen * extents[0] * extents[1], 256
    products.gather[(-(-total // block), count)](
        parts, weight, shares, total,
        EXTENT=extents[0], WIDTH=extents[1], REACH=geometry.reach, SEEN=seen, MADE=made, PIXELS=pixels,
        ACROSS=stride[1], BLOCK=block,
    )  # fmt: skip
    return weight


def for_library(weight: Tensor, dtype: torch.dtype, *, turned: bool) -> Tensor:
    """One replica's kernels (1, outputs, inputs, rows, columns) as a library wants them: in its type, channels last.

    ``turned`` are those of the gradient of the images for stride one: inputs and outputs change places, rows and
    columns run backwards.
    """
    _, outputs, inputs, extent, width = weight.shape
    make = Geometry.backward if turned else Geometry.forward
    laid = _laid_out(weight, make(width, (1, 1), (0, 0), pixels=1), dtype, library=True)
    made, seen = (inputs, outputs) if turned else (outputs, inputs)
    return laid.view(made, extent, width, seen).permute(0, 3, 1, 2)


def from_library(laid: Tensor) -> Tensor:
    """One replica's kernels (outputs, inputs, rows, columns), channels last, as float32 (1, …) in torch's own order."""
    outputs, inputs, extent, width = laid.shape
    laid = laid.contiguous(memory_format=torch.channels_last)
    weight = torch.empty((1, *laid.shape), dtype=torch.float32, device=laid.device)
    places = extent * width
    products.spread[(-(-inputs // 64), outputs)](
        laid, weight, SEEN=inputs, PLACES=places, BLOCK=64, WINDOW=1 << (places - 1).bit_length()
    )
    return weight


def _made(
    images: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int], added: Tensor | None,
    *, dtype: torch.dtype, rounded: bool, blocks: Blocks | None,
) -> Tensor:  # fmt: skip
    """One direction that makes images: (replicas, examples, channels, rows, columns), channels last in memory."""
    count, examples, seen, height, width = images.shape
    made, extent = weight.shape[2 if geometry.turned else 1], weight.shape[3]
    run, columns = geometry.reach * seen, geometry.pixels * made
    blocks = blocks or _blocks_of_images(run, columns, geometry.pixels, wide=dtype is torch.float32)
    outputs = torch.empty((count, examples, *size, made), dtype=dtype, device=images.device)
    groups = examples * size[0] * -(-size[1] // geometry.pixels)
    tiles = -(-groups // blocks.rows)
    products.convolve[(tiles, -(-columns // blocks.columns), count)](
        images, _laid_out(weight, geometry, dtype), outputs,
        outputs if added is None else added.permute(0, 1, 3, 4, 2).contiguous(), groups,
        images.stride(0), images.stride(1), images.stride(3), images.stride(4), images.stride(2), height, width,
        EXTENT=extent, REACH=geometry.reach, SEEN=seen, MADE=made, PIXELS=geometry.pixels,
        OUT_HEIGHT=size[0], OUT_WIDTH=size[1], STEP=geometry.step, BEGIN=geometry.begin,
        STRIDE=geometry.stride, PADDING=geometry.padding, TURNED=geometry.turned, ADDED=added is not None,
        BLOCK_M=blocks.rows, BLOCK_N=blocks.columns, BLOCK_K=blocks.depth,
        PRECISION=_precision(dtype, rounded=rounded), num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return outputs.permute(0, 1, 4, 2, 3)


def _laid_out(weight: Tensor, geometry: Geometry, dtype: torch.dtype, *, library: bool = False) -> Tensor:
    """The kernels' side of the product."""
    weight = weight.contiguous()
    count, outputs, inputs, extent, width = weight.shape
    seen, made = (outputs, inputs) if geometry.turned else (inputs, outputs)
    laid = torch.empty(
        (count, extent * geometry.reach * seen * geometry.pixels * made), dtype=dtype, device=weight.device
    )
    block = 32 if max(seen, made) > 16 else 16
    products.lay_out[(-(-seen // block) * -(-made // block), extent, count)](
        weight, laid, weight.stride(0), weight.stride(1), weight.stride(2),
        EXTENT=extent, WIDTH=width, REACH=geometry.reach, PIXELS=geometry.pixels, SEEN=seen, MADE=made,
        ACROSS=geometry.across, COLUMNS=geometry.columns, BEGIN=geometry.begin, TURNED=geometry.turned,
        LIBRARY=library, BLOCK=block,
    )  # fmt: skip
    return laid


# What was fastest on an H200 with 16 replicas of ResNet-20 (16, 32, 64 channels) and four of 64, 128 and 256 channels.


def _pixels(seen: int, made: int, width: int, stride: int) -> int:
    """Neighbouring output places in one row of the product: more where there are few channels."""
    return 2 if stride == 1 and max(seen, made) <= 32 and width % 2 == 0 else 1


def _blocks_of_images(run: int, columns: int, pixels: int, *, wide: bool) -> Blocks:
    """Blocks of a product that makes images; ``wide`` numbers, of 32 bits, fill twice the registers."""
    if wide:
        return Blocks(64, _up(columns, most=64), _up(run, most=32))
    across = _up(columns, most=128)
    return Blocks(128, across, _up(run, most=64), 8 if across == 128 else 4, 2 if pixels > 1 else 3)


def _blocks_of_kernels(run: int, columns: int, groups: int, *, wide: bool) -> Blocks:
    """Blocks of a product that makes the gradient of the kernels."""
    if wide:
        return Blocks(64, _up(columns, most=64), _up(run, most=32), 4, 2, 1056)
    if columns <= 32:
        return Blocks(64, _up(columns), _up(run, most=64), 4, 2, 1056, together=True)
    if columns <= 64 and groups >= 1 << 16:
        return Blocks(128, _up(columns), _up(run, most=64), 8, 3, 264, together=True)
    if columns <= 64:
        return Blocks(64, _up(columns), _up(run, most=64), 4, 3, 1056)
    return Blocks(64, 128, _up(run, most=128), 4, 3, 1056)


def _up(value: int, most: int = 1 << 30) -> int:
    """The next power of two that a product takes."""
    return max(16, min(most, 1 << max(value - 1, 0).bit_length()))


def _precision(dtype: torch.dtype, *, rounded: bool) -> str:
    """How float32 factors are multiplied; three products of TensorFloat-32 keep 22 bits of their 24."""
    return ("tf32" if rounded else "tf32x3") if dtype is torch.float32 else "ieee"


_TOGETHER = 3  # rows of the window that a program takes at once
_TYPES = {} if tl is None else {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
