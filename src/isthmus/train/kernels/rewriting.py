"""What one replica computes, written with kernels that take all replicas at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from isthmus.train.kernels.operations import Convolution, Normalisation

_KNOWN = (torch.float32, torch.bfloat16, torch.float16)
_MOST = 1 << 31  # values of one replica: offsets within it are 32-bit numbers


class _Moves:
    """Running statistics that a forward pass moves: all at once at its end, in one kernel instead of two a layer."""

    def __init__(self) -> None:
        self.rounds: list[tuple[float, list[Tensor], list[Tensor]]] = []

    def add(self, running: Tensor, now: Tensor, momentum: float) -> None:
        """Note one tensor; one that moves twice, as in a layer that is used twice, moves in rounds."""
        for known, olds, news in self.rounds:
            if known == momentum and all(old.data_ptr() != running.data_ptr() for old in olds):
                olds.append(running)
                news.append(now)
                return
        self.rounds.append((momentum, [running], [now]))

    def settle(self) -> None:
        """Move them."""
        for momentum, olds, news in self.rounds:
            torch._foreach_lerp_(olds, news, momentum)
        self.rounds = []


class Stacked(TorchFunctionMode):
    """Within it, and within ``torch.vmap``, convolutions and batch normalisation are done by our own kernels.

    Args:
        rounded: whether float32 factors may be rounded to TensorFloat-32.
        otherwise: what is done with calls that no kernel takes.
    """

    def __init__(self, *, rounded: bool, otherwise: Callable[..., Any]) -> None:
        super().__init__()
        self.rounded, self.otherwise, self._moves = rounded, otherwise, _Moves()

    def __exit__(self, *problem: Any) -> None:
        """Leave the mode; running statistics move."""
        super().__exit__(*problem)
        if problem[0] is None:
            with torch.no_grad():
                self._moves.settle()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every torch function that is called within the mode comes by here."""
        named, taken = kwargs or {}, NotImplemented
        if function is torch.conv2d:
            taken = self._convolved(*args, **named)
        elif function is functional.batch_norm:
            taken = _normalised(self._moves, *args, **named)
        return self.otherwise(function, args, named) if taken is NotImplemented else taken

    def _convolved(  # noqa: PLR0917 - torch's own order
        self,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Any:
        dtype = weight.dtype
        if torch.is_autocast_enabled(inputs.device.type):
            dtype = torch.get_autocast_dtype(inputs.device.type)
        if groups != 1 or isinstance(padding, str) or _pair(dilation) != (1, 1) or inputs.dim() != 4:
            return NotImplemented
        widest = inputs.numel() // max(inputs.shape[1], 1) * max(weight.shape[:2])
        if dtype not in _KNOWN or inputs.dtype not in _KNOWN or 2 * widest >= _MOST:  # room for padding
            return NotImplemented
        outputs = _Convolved.apply(inputs, weight, _pair(stride), _pair(padding), dtype, self.rounded)
        return outputs if bias is None else outputs + bias[:, None, None].to(outputs.dtype)


def _normalised(  # noqa: PLR0917 - torch's own order
    moves: _Moves,
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if not training or inputs.dtype not in _KNOWN or (weight is None) is not (bias is None):
        return NotImplemented
    if (running_mean is None) is not (running_var is None):
        return NotImplemented
    if inputs.numel() >= _MOST or any(part is not None and part.dtype is not torch.float32 for part in (weight, bias)):
        return NotImplemented
    return _Normalised.apply(inputs, weight, bias, running_mean, running_var, eps, momentum, moves)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _stack(tensor: Tensor | None, axis: int | None, count: int) -> Tensor | None:
    """A tensor with the replica axis in front."""
    if tensor is None:
        return None
    return tensor.expand(count, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


class _Convolved(torch.autograd.Function):
    """A convolution that, under ``torch.vmap``, is done for all replicas at once."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        """One replica's, outside of ``torch.vmap``."""
        inputs, weight, stride, padding, dtype, _ = args
        return torch.conv2d(inputs.to(dtype), weight.to(dtype), None, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: derivatives are those of the operation in :meth:`vmap`."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        """All replicas' at once."""
        images, weight = (_stack(args[index], in_dims[index], info.batch_size) for index in range(2))
        return Convolution.apply(images, weight, *args[2:]), 0


class _Normalised(torch.autograd.Function):
    """Batch normalisation that, under ``torch.vmap``, is done for all replicas at once; running statistics move."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        """One replica's, outside of ``torch.vmap``."""
        inputs, gain, shift, mean, variance, epsilon, momentum, _ = args
        return functional.batch_norm(inputs, mean, variance, gain, shift, True, momentum, epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: derivatives are those of the operation in :meth:`vmap`."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        """All replicas' at once."""
        inputs, gain, shift, mean, variance = (
            _stack(args[index], in_dims[index], info.batch_size) for index in range(5)
        )
        gain, shift = (None if part is None else part.contiguous() for part in (gain, shift))
        epsilon, momentum, moves = args[5:]
        outputs, now, _, unbiased = Normalisation.apply(inputs, gain, shift, epsilon)
        if mean is not None and variance is not None:
            moves.add(mean, now, momentum)
            moves.add(variance, unbiased, momentum)
        return outputs, 0
