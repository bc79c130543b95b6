"""Tensors in working precision: kept where there is room, made anew at each use where there is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights

ROOM = 300_000_000
"""Bytes of single-precision copies of one solution that are kept; larger ones are converted one tensor at a time."""


class Made(Mapping[str, Tensor]):
    """A mapping whose entries are made when they are asked for, and not kept."""

    def __init__(self, names: tuple[str, ...], make: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def fits(symmetry: Symmetry, names: tuple[str, ...]) -> bool:
    """Whether the named tensors of one solution are few enough to be kept in single precision."""
    return 4 * sum(math.prod(symmetry.tensors[name]) for name in names) <= ROOM


def working(weights: Weights, names: tuple[str, ...], *, device: torch.device, keep: bool) -> Mapping[str, Tensor]:
    """The named tensors in the precision that similarities are computed in: double stays double, all else is single."""

    def make(name: str) -> Tensor:
        tensor = weights[name].detach()
        return tensor.to(device=device, dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)

    return {name: make(name) for name in names} if keep else Made(names, make)


def moved(source: Mapping[str, Tensor], permutation: Permutation) -> Mapping[str, Tensor]:
    """Permuted tensors, kept if the source is."""
    if isinstance(source, Made):
        return Made(tuple(source), lambda name: permutation.moved(name, source[name]))
    return {name: permutation.moved(name, tensor) for name, tensor in source.items()}
