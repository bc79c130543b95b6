"""All replicas in one image: the replica axis folded into the channels, so that many convolutions are one grouped one.

Images of all replicas lie in memory as (examples, rows, columns, replicas, channels). A grouped convolution over them
costs a fraction of as many single ones, but only in shapes that libraries have kernels for: stride one, and channels in
multiples of sixteen. So convolutions are written in these shapes: a stride is folded into channels (space to depth),
few channels are filled up with zeros. Each form is the same sum with other, or no, terms that are zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.core.vectorising import Vectorising

_MULTIPLE = 16  # channels of one replica for which grouped kernels exist in both directions


def folded(inputs: Tensor) -> Tensor:
    """Images (replicas, examples, channels, rows, columns) as (examples, replicas, channels, …), folded in memory."""
    return inputs.permute(1, 3, 4, 0, 2).contiguous().permute(0, 3, 4, 1, 2)


class Rewriting(Vectorising):
    """Within it, what one replica computes is written in forms that exist for many at once.

    Batch normalisation is written out, in float32 for 16-bit images as its kernels compute it in any case: under
    ``torch.vmap`` the kernels refuse statistics of another type than the images, and images that are laid out folded.
    Attention, which has no rule under ``torch.vmap``, and convolutions whose patches do not overlap are products.

    Args:
        convolutions: also write all other two-dimensional convolutions in the shapes that grouped kernels have.
    """

    def __init__(self, *, convolutions: bool) -> None:
        super().__init__()
        self.convolutions = convolutions

    def rewritten(self, function: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The result of one torch function."""
        if function is torch.conv2d and self.convolutions:
            return _conv2d(*args, **named)
        if function is torch.conv2d:
            return _patches(*args, **named)
        if function is functional.batch_norm and (
            self.convolutions or args[0].dtype in (torch.bfloat16, torch.float16)
        ):
            return _batch_norm(*args, **named)
        return super().rewritten(function, args, named)


def _batch_norm(  # noqa: PLR0917 - torch's own order
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    wide = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs
    axes = [axis for axis in range(inputs.dim()) if axis != 1]
    shape = [1, -1, *[1] * (inputs.dim() - 2)]
    mean, variance = running_mean, running_var
    if training or mean is None or variance is None:
        variance, mean = torch.var_mean(wide, axes, correction=0)
        if training and running_mean is not None and running_var is not None:
            count = inputs.numel() // inputs.shape[1]
            for running, now in ((running_mean, mean), (running_var, variance * (count / max(count - 1, 1)))):
                running.mul_(1 - momentum).add_(now.detach() * momentum)
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    outputs = (wide - mean.view(shape)) * scale.view(shape)
    return (outputs if bias is None else outputs + bias.view(shape)).to(inputs.dtype)


def _conv2d(  # noqa: PLR0917 - torch's own order
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    if groups != 1 or isinstance(padding, str) or _pair(dilation) != (1, 1) or inputs.dim() != 4:
        return torch.conv2d(inputs, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    outputs = _Many.apply(inputs, weight, _pair(stride), _pair(padding))
    return outputs if bias is None else outputs + bias[:, None, None].to(outputs.dtype)


def whole_patches(
    weight: Tensor, stride: int | Sequence[int], padding: str | int | Sequence[int], groups: int = 1
) -> bool:
    """Whether a convolution reads each place once, as one that embeds the patches of an image does."""
    extent = tuple(weight.shape[-2:])
    return weight.dim() == 4 and groups == 1 and extent == _pair(stride) != (1, 1) and padding in (0, (0, 0), [0, 0])


def _patches(  # noqa: PLR0917 - torch's own order
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    fits = inputs.dim() == 4 and _pair(dilation) == (1, 1) and whole_patches(weight, stride, padding, groups)
    if not fits or inputs.shape[2] % weight.shape[2] or inputs.shape[3] % weight.shape[3]:
        return torch.conv2d(inputs, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    rows, columns = weight.shape[2:]
    parts = inputs.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # n, channels, down, rows, across, columns
    patches = parts.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return functional.linear(patches, weight.flatten(1), bias).permute(0, 3, 1, 2)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


class _Many(torch.autograd.Function):
    """A convolution that, under ``torch.vmap``, is one grouped convolution in the folded layout."""

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        """One replica's, outside of ``torch.vmap``."""
        return torch.conv2d(inputs, weight, None, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: derivatives are those of the operations in :meth:`vmap`."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        """All replicas' at once; autograd follows the operations below."""
        inputs, weight, stride, padding = args
        count = info.batch_size
        images = _leading(inputs, in_dims[0], count).permute(
            1, 3, 4, 0, 2
        )  # examples, rows, columns, replicas, channels
        kernels = _leading(weight, in_dims[1], count).permute(
            0, 1, 3, 4, 2
        )  # replicas, outputs, rows, columns, channels
        if max(stride) > 1:
            images, kernels = _without_stride(images, kernels, stride, padding)
            padding = (0, 0)
        if tuple(kernels.shape[2:4]) == (1, 1) and not any(padding):
            return _products(images, kernels), 1
        missing = -kernels.shape[-1] % _MULTIPLE
        if missing:
            images, kernels = functional.pad(images, (0, missing)), functional.pad(kernels, (0, missing))
        flat = images.contiguous().flatten(3).permute(0, 3, 1, 2)  # channels last
        outputs = torch.conv2d(flat, kernels.contiguous().flatten(0, 1).permute(0, 3, 1, 2), None, 1, padding, 1, count)
        return outputs.unflatten(1, (count, -1)), 1


def _products(images: Tensor, kernels: Tensor) -> Tensor:
    """A convolution of single places: a matrix product for each replica."""
    flat, matrices = images.flatten(0, 2).transpose(0, 1), kernels[:, :, 0, 0].transpose(1, 2)
    outputs = torch.bmm(flat, matrices).transpose(0, 1)  # places, replicas, channels
    return outputs.unflatten(0, images.shape[:3]).permute(0, 3, 4, 1, 2)


def _leading(tensor: Tensor, axis: int | None, count: int) -> Tensor:
    return tensor.expand(count, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


def _without_stride(
    images: Tensor, kernels: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Images and kernels whose convolution with stride one and no padding equals the given one with a stride."""
    sizes, extents = images.shape[1:3], kernels.shape[2:4]
    if tuple(extents) == (1, 1) and tuple(padding) == (0, 0):
        return images[:, :: stride[0], :: stride[1]], kernels
    edges: list[int] = []
    fill: list[int] = []
    for size, extent, step, around in zip(sizes, extents, stride, padding, strict=True):
        outputs = (size + 2 * around - extent) // step + 1
        blocks = -(-extent // step)  # of the kernel, the last filled up with zeros
        edges = [around, step * (outputs - 1 + blocks) - size - around, *edges]  # the last axis comes first
        fill = [0, blocks * step - extent, *fill]
    down, across = stride
    padded = functional.pad(images, (0, 0, 0, 0, *edges))
    parts = padded.unflatten(2, (-1, across)).unflatten(1, (-1, down))  # n, h, down, w, across, replicas, channels
    turned = functional.pad(kernels, (0, 0, *fill)).unflatten(3, (-1, across)).unflatten(2, (-1, down))
    return parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(4), turned.permute(0, 1, 2, 4, 3, 5, 6).flatten(4)


def flip_backward(graph: torch.fx.Graph) -> None:
    """Write the gradient of a grouped convolution's inputs as a convolution with the turned kernel.

    Libraries have many more grouped kernels for the forward direction. For stride one the two are the same sum.
    """
    aten: Any = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.convolution_backward.default:
            continue
        slope, _, weight, _, stride, padding, dilation, transposed, _, groups, wanted = node.args
        kernel = tuple(weight.meta["val"].shape)
        if groups == 1 or not wanted[0] or transposed or {*stride, *dilation} != {1} or len(kernel) != 4:
            continue
        rows, columns = kernel[2:]
        sides = [rows - 1 - padding[0], columns - 1 - padding[1 % len(padding)]]
        if min(sides) < 0:
            continue
        with graph.inserting_before(node):
            parts = graph.call_function(aten.view.default, (weight, [groups, kernel[0] // groups, *kernel[1:]]))
            parts = graph.call_function(aten.permute.default, (parts, [0, 2, 1, 3, 4]))
            parts = graph.call_function(aten.clone.default, (parts,), {"memory_format": torch.contiguous_format})
            turned = [groups * kernel[1], kernel[0] // groups, rows, columns]
            parts = graph.call_function(aten.view.default, (parts, turned))
            parts = graph.call_function(aten.flip.default, (parts, [2, 3]))
            ahead = (slope, parts, None, [1, 1], sides, [1, 1], False, [0, 0], groups)
            found = graph.call_function(aten.convolution.default, ahead)
        node.args = (*node.args[:10], [False, *wanted[1:]])
        for user in list(node.users):
            if user.args[1] == 0:
                user.replace_all_uses_with(found)
                graph.erase_node(user)


@contextlib.contextmanager
def layouts_kept() -> Iterator[None]:
    """The compiler keeps channels last also for grouped convolutions, which it would otherwise lay out anew."""
    import torch._inductor.config as settings

    with settings.patch(force_layout_optimization=True):  # type: ignore[attr-defined]
        yield
