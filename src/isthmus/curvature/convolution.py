"""Convolutions whose second derivative is made of the same fast kernels as their first.

PyTorch's own second derivative of a convolution takes the gradient in the filters as a convolution whose kernel is a
whole image, for which cuDNN has no fast way: on an H200 a product with the Hessian of a ResNet-20 (500 images) took
.30 s so, where curvlinops, whose forward mode meets the backward kernels, took .08 s.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What a convolution is beside its tensors."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, inputs: Tensor, filters: Tensor) -> Tensor:
        """The outputs, without bias."""
        still = (0,) * len(self.stride)
        return torch.ops.aten.convolution(
            inputs, filters, None, self.stride, self.padding, self.dilation, False, still, self.groups
        )

    def backward(self, slope: Tensor, inputs: Tensor, filters: Tensor, wanted: tuple[bool, bool]) -> tuple[Any, ...]:
        """The gradients in the inputs and in the filters; ``None`` where not wanted."""
        still = (0,) * len(self.stride)
        return torch.ops.aten.convolution_backward(
            slope, inputs, filters, None, self.stride, self.padding, self.dilation, False, still, self.groups,
            (*wanted, False),
        )[:2]  # fmt: skip


class _Convolution(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, filters: Tensor, shape: _Shape) -> Tensor:  # type: ignore[override]
        return shape.forward(inputs, filters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.shape = inputs[2]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        inputs, filters = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        apply: Any = _Slope.apply
        in_inputs, in_filters = apply(slope, inputs, filters, ctx.shape, wanted)
        return in_inputs if wanted[0] else None, in_filters if wanted[1] else None, None


class _Slope(Function):
    """The first derivative, bilinear in the slope and (inputs, filters), and so is its own derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        slope: Tensor, inputs: Tensor, filters: Tensor, shape: _Shape, wanted: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        in_inputs, in_filters = shape.backward(slope, inputs, filters, wanted)
        nothing = slope.new_zeros(())
        return in_inputs if wanted[0] else nothing, in_filters if wanted[1] else nothing

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.shape, ctx.wanted = inputs[3:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, of_inputs: Tensor | None, of_filters: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        slope, inputs, filters = ctx.saved_tensors
        shape, need = ctx.shape, ctx.needs_input_grad
        of_inputs = of_inputs if ctx.wanted[0] else None
        of_filters = of_filters if ctx.wanted[1] else None
        in_slope = in_inputs = in_filters = None
        if need[0] and of_inputs is not None:
            in_slope = shape.forward(of_inputs, filters)
        if need[0] and of_filters is not None:
            more = shape.forward(inputs, of_filters)
            in_slope = more if in_slope is None else in_slope + more
        if need[1] and of_filters is not None:
            in_inputs = shape.backward(slope, inputs, of_filters, (True, False))[0]
        if need[2] and of_inputs is not None:
            in_filters = shape.backward(slope, of_inputs, filters, (False, True))[1]
        return in_slope, in_inputs, in_filters, None, None


class Convolutions(TorchFunctionMode):
    """Inside, convolutions in one to three dimensions are those of this file; the rest is PyTorch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take over what can be taken over."""
        kwargs = kwargs or {}
        dimensions = _DIMENSIONS.get(func)
        if dimensions is None:
            return func(*args, **kwargs)
        given: dict[str, Any] = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        settings = {name: given.get(name, 1) for name in ("stride", "dilation")} | {"padding": given.get("padding", 0)}
        # ``same`` padding and inputs without a batch stay PyTorch's.
        if isinstance(settings["padding"], str) or given["input"].dim() != dimensions + 2:
            return func(*args, **kwargs)
        wide = {name: _widened(value, dimensions) for name, value in settings.items()}
        shape = _Shape(**wide, groups=given.get("groups", 1))
        outputs, bias = _convolution(given["input"], given["weight"], shape), given.get("bias")
        return outputs if bias is None else outputs + bias.view(-1, *(1,) * dimensions)


_DIMENSIONS = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _convolution(inputs: Tensor, filters: Tensor, shape: _Shape) -> Tensor:
    apply: Any = _Convolution.apply  # its stub knows no arguments
    return apply(inputs, filters, shape)


def _widened(value: Any, dimensions: int) -> tuple[int, ...]:
    parts = (value,) if isinstance(value, int) else tuple(value)
    return parts * dimensions if len(parts) == 1 else parts
