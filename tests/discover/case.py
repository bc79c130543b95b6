"""What a zoo of small modules is made of: a module from a function, its inputs, the sizes of its groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Calls(nn.Module):
    """A module whose forward pass is a function of itself."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


@dataclasses.dataclass(frozen=True)
class Case:
    """A module, the shapes of its inputs and the sizes of its groups."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    integers: bool = False

    def inputs(self) -> tuple[Tensor, ...]:
        if self.integers:
            return tuple(torch.arange(8).reshape(shape) for shape in self.shapes)
        return tuple(torch.zeros(shape) for shape in self.shapes)


def normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def lin(i: int, o: int) -> nn.Linear:
    return nn.Linear(i, o)


def linears(**sizes: tuple[int, int]) -> dict[str, nn.Module]:
    return {name: lin(*size) for name, size in sizes.items()}


def attending(function: Any, v: int = 8, **further: Any) -> Calls:
    return Calls(function, **linears(q=(6, 8), k=(6, 8), v=(6, v), o=(v, 3)), **further)
