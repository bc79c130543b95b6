"""Constants that stay as they are if two of their axes are permuted alike: identities, and what leaves a diagonal out.

Their entries say only whether two places are the same one. So their places are no positions that stand still but move
with whatever they meet, along both axes at once.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isthmus.discover.labels import Labels, Layer, positional

if TYPE_CHECKING:
    from isthmus.discover.ledger import Ledger

_LARGEST = 1 << 20  # entries; larger constants keep their places


def loosened(ledger: Ledger, value: Labels) -> Labels:
    """A constant whose places are not told by their numbers where they need not be; any other value as it is."""
    given = value.constant
    if given is None or value.refers is not None or given.numel() > _LARGEST:
        return value
    varying = [axis for axis in range(value.rank) if value.varies(axis)]
    for one, other in itertools.combinations(varying, 2):
        if value.shape[one] == value.shape[other] and _is_diagonal(given.movedim((one, other), (0, 1))):
            rest = [axis for axis in varying if axis not in (one, other)]
            layers = _along(ledger, value.shape, one, other)
            if rest:
                layers = (*layers, positional(value.shape, rest))
            return dataclasses.replace(value, layers=layers)
    return value


def identity(ledger: Ledger, size: int, rank: int) -> Labels:
    """A unit matrix along the last two of ``rank`` axes."""
    shape = (*(1,) * (rank - 2), size, size)
    return Labels(shape, _along(ledger, shape, rank - 2, rank - 1) if size > 1 else ())


def _along(ledger: Ledger, shape: tuple[int, ...], one: int, other: int) -> tuple[Layer, Layer]:
    labels = ledger.blocks(shape[one])
    layers = []
    for axis in (one, other):
        layout = [1] * len(shape)
        layout[axis] = shape[axis]
        layers.append(Layer(labels.reshape(layout), distinct=True))
    return layers[0], layers[1]


def _is_diagonal(values: Tensor) -> bool:
    """Whether entries on the diagonal of the first two axes are alike, and so are all others; cheap tests first."""
    same, apart = values[0, 0], values[0, 1]
    if not _equal(values[1, 1], same) or not _equal(values[1, 0], apart):
        return False
    on = torch.eye(len(values), dtype=torch.bool).reshape(len(values), -1, *(1,) * same.dim())
    return _equal(values, torch.where(on, same, apart))


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other.to(one.dtype))
