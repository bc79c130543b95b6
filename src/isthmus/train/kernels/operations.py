"""The kernels as operations of torch, so that a step can be traced with them, and their derivatives.

Every tensor has a leading replica axis; images are (replicas, examples, channels, rows, columns), in any layout on the
way in and channels last on the way out.
"""

# No postponed annotations here: torch reads the operations' schemas from them.
# ruff: noqa: PLR0917, UP045 - one argument for each tensor, in the words that a schema is read from
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from isthmus.train.kernels import convolution, normalisation

_WIDE = 64  # channels from which a library's kernels for one replica are the faster ones


def _alone(images: Tensor, weight: Tensor) -> bool:
    return len(images) == 1 and min(weight.shape[1:3]) >= _WIDE and images.device.type == "cuda"


def _last(images: Tensor, dtype: torch.dtype) -> Tensor:
    """One replica's images or kernels, as a library wants them."""
    return images[0].to(dtype).contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("isthmus::convolve", mutates_args=())
def convolve(
    images: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dtype: torch.dtype, rounded: bool
) -> Tensor:
    """See :func:`isthmus.train.kernels.convolution.convolve`."""
    if _alone(images, weight):
        return torch.conv2d(
            _last(images, dtype), convolution.for_library(weight, dtype, turned=False), None, stride, padding
        )[None]
    return convolution.convolve(
        images, weight, (stride[0], stride[1]), (padding[0], padding[1]), dtype=dtype, rounded=rounded
    )


@torch.library.custom_op("isthmus::image_slopes", mutates_args=())
def image_slopes(
    slopes: Tensor, weight: Tensor, size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    added: Optional[Tensor], dtype: torch.dtype, rounded: bool,
) -> Tensor:  # fmt: skip
    """See :func:`isthmus.train.kernels.convolution.image_slopes`."""
    if _alone(slopes, weight):
        found = _turned(_last(slopes, dtype), weight, size, stride, padding)[None]
        return found if added is None else found.add_(added)
    return convolution.image_slopes(
        slopes, weight, (size[0], size[1]), (stride[0], stride[1]), (padding[0], padding[1]), added,
        dtype=dtype, rounded=rounded,
    )  # fmt: skip


def _turned(
    slopes: Tensor, weight: Tensor, size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """The gradient of one replica's images: with stride one a convolution with the turned kernel, which is faster."""
    sides = [extent - 1 - around for extent, around in zip(weight.shape[3:], padding, strict=True)]
    if max(stride) == 1 and min(sides) >= 0:
        return torch.conv2d(slopes, convolution.for_library(weight, slopes.dtype, turned=True), None, 1, sides)
    laid = convolution.for_library(weight, slopes.dtype, turned=False)
    shape = (len(slopes), weight.shape[2], *size)
    images = torch.empty(shape, dtype=slopes.dtype, device=slopes.device, memory_format=torch.channels_last)
    return torch.ops.aten.convolution_backward(
        slopes, images, laid, None, stride, padding, [1, 1], False, [0, 0], 1, [True, False, False]
    )[0]


@torch.library.custom_op("isthmus::kernel_slopes", mutates_args=())
def kernel_slopes(
    images: Tensor, slopes: Tensor, extents: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dtype: torch.dtype, rounded: bool,
) -> Tensor:  # fmt: skip
    """See :func:`isthmus.train.kernels.convolution.kernel_slopes`."""
    if len(images) == 1 and min(images.shape[2], slopes.shape[2]) >= _WIDE and images.device.type == "cuda":
        laid = _last(images, dtype)
        shape = (slopes.shape[2], images.shape[2], *extents)
        weight = torch.empty(shape, dtype=dtype, device=laid.device, memory_format=torch.channels_last)
        found = torch.ops.aten.convolution_backward(
            _last(slopes, dtype), laid, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]  # fmt: skip
        return convolution.from_library(found)
    return convolution.kernel_slopes(
        images, slopes, (extents[0], extents[1]), (stride[0], stride[1]), (padding[0], padding[1]),
        dtype=dtype, rounded=rounded,
    )  # fmt: skip


@torch.library.custom_op("isthmus::moments", mutates_args=())
def moments(inputs: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`isthmus.train.kernels.normalisation.moments`."""
    return normalisation.moments(inputs, epsilon)


@torch.library.custom_op("isthmus::normalise", mutates_args=())
def normalise(
    inputs: Tensor, mean: Tensor, deviation: Tensor, gain: Optional[Tensor], shift: Optional[Tensor],
    added: Optional[Tensor], rectified: bool,
) -> Tensor:  # fmt: skip
    """See :func:`isthmus.train.kernels.normalisation.normalise`."""
    return normalisation.normalise(inputs, mean, deviation, gain, shift, added, rectified)


@torch.library.custom_op("isthmus::slope_sums", mutates_args=())
def slope_sums(
    slopes: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, gain: Optional[Tensor], shift: Optional[Tensor],
    outputs: Optional[Tensor], rectified: bool, more: Optional[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """See :func:`isthmus.train.kernels.normalisation.slope_sums`."""
    return normalisation.slope_sums(slopes, inputs, mean, deviation, gain, shift, outputs, rectified, more)


@torch.library.custom_op("isthmus::input_slopes", mutates_args=())
def input_slopes(
    slopes: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, gain: Optional[Tensor], shift: Optional[Tensor],
    total: Tensor, products: Tensor, rectified: bool,
) -> Tensor:  # fmt: skip
    """See :func:`isthmus.train.kernels.normalisation.input_slopes`."""
    return normalisation.input_slopes(slopes, inputs, mean, deviation, gain, shift, total, products, rectified)


class Convolution(torch.autograd.Function):
    """A convolution of all replicas."""

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dtype: torch.dtype,
        rounded: bool,
    ) -> Tensor:  # fmt: skip
        """Its outputs."""
        return convolve(images, weight, stride, padding, dtype, rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Images and kernels are kept."""
        ctx.save_for_backward(inputs[0], inputs[1])
        ctx.settings = inputs[2:]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        """Gradients of images and kernels, where they are wanted."""
        (images, weight), (stride, padding, dtype, rounded) = ctx.saved_tensors, ctx.settings
        first = second = None
        if ctx.needs_input_grad[0]:
            size = list(images.shape[3:])
            first = image_slopes(slopes[0], weight, size, stride, padding, None, dtype, rounded).to(images.dtype)
        if ctx.needs_input_grad[1]:
            extents = list(weight.shape[3:])
            second = kernel_slopes(images, slopes[0], extents, stride, padding, dtype, rounded).to(weight.dtype)
        return first, second, None, None, None, None


class Normalisation(torch.autograd.Function):
    """Batch normalisation of all replicas by the statistics of their batches, which are the other two results."""

    @staticmethod
    def forward(
        inputs: Tensor, gain: Optional[Tensor], shift: Optional[Tensor], epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised inputs; mean, reciprocal deviation and unbiased variance of the inputs."""
        mean, deviation, unbiased = moments(inputs, epsilon)
        return normalise(inputs, mean, deviation, gain, shift, None, False), mean, deviation, unbiased

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """The inputs and their statistics are kept."""
        ctx.save_for_backward(inputs[0], inputs[1], inputs[2], output[1], output[2])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        """Gradients of inputs, gain and shift."""
        inputs, gain, shift, mean, deviation = ctx.saved_tensors
        fixed = (inputs, mean, deviation, gain, shift)
        total, products, _ = slope_sums(slopes[0], *fixed, None, False, None)
        found = input_slopes(slopes[0], *fixed, total, products, False)
        return found, None if gain is None else products, None if shift is None else total, None
