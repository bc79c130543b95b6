"""Inner products of long rows: blocks that stay in a core's cache, in the rows' precision, added up in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Entries of one block: three float32 blocks of 256 KiB share a core's cache, and a sum of so few loses at most a
# millionth. Rows in float64, copied whole, took ten times as long as this.
_BLOCK = 1 << 16


def way(place: Float[Tensor, " entries"], home: Float[Tensor, " entries"]) -> tuple[Tensor, Tensor]:
    """With δ the way from home to a place: home·δ and |δ|², scalars in float64 on the rows' device."""
    along, square = [], []
    for first in range(0, len(home), _size(home)):
        part = slice(first, first + _size(home))
        start = home[part]
        step = place[part] - start
        along.append(torch.dot(step, start))
        square.append(torch.dot(step, step))
    return _total(along), _total(square)


def with_sum(
    first: Float[Tensor, "walkers entries"],
    second: Float[Tensor, "walkers entries"],
    other: Float[Tensor, "walkers entries"],
) -> tuple[Float[Tensor, " walkers"], Float[Tensor, " walkers"]]:
    """With s = first + second: the inner products s·s and other·s of the rows, in float64 on their device."""
    if first.device.type != "cpu":
        both = first + second
        return (both * both).sum(1, dtype=torch.float64), (other * both).sum(1, dtype=torch.float64)
    squares, along, size = [], [], _size(first)
    for rows in zip(first, second, other, strict=True):
        square, product = [], []
        for start in range(0, len(rows[0]), size):
            one, two, three = (row[start : start + size] for row in rows)
            both = one + two
            square.append(torch.dot(both, both))
            product.append(torch.dot(three, both))
        squares.append(_total(square))
        along.append(_total(product))
    return torch.stack(squares), torch.stack(along)


def _size(rows: Tensor) -> int:
    """Entries of a block; a GPU adds in a tree and takes whole rows."""
    return _BLOCK if rows.device.type == "cpu" else max(1, rows.shape[-1])


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).double().sum()
