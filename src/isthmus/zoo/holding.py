"""Tensors that are computed from free parameters: entries held at constants, blocks of zeros, ascending vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Held(nn.Module):
    """Entries of a tensor that are held at constants: ``free`` is 1 where the parameter counts, ``held`` adds to it."""

    free: Tensor
    held: Tensor | None

    def __init__(self, free: Tensor, held: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("free", free, persistent=False)
        self.register_buffer("held", held, persistent=False)

    def forward(self, original: Tensor) -> Tensor:
        """The tensor that the layer uses."""
        free = original * self.free
        return free if self.held is None else free + self.held

    @property
    def share(self) -> float:
        """The share of entries that are free."""
        return float(self.free.float().mean())


class Blocks(nn.Module):
    """Blocks of a matrix or kernel that are zero; made by slices, so that units of one block are seen to be alike."""

    def __init__(self, rows: Sequence[int], columns: Sequence[int], kept: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.rows, self.columns, self.kept = list(rows), list(columns), [list(row) for row in kept]

    def forward(self, original: Tensor) -> Tensor:
        """The tensor that the layer uses."""
        bands = []
        for band, kept in zip(original.split(self.rows, 0), self.kept, strict=True):
            cells = band.split(self.columns, 1)
            bands.append(torch.cat([cell if yes else cell * 0.0 for cell, yes in zip(cells, kept, strict=True)], 1))
        return torch.cat(bands, 0)

    @property
    def share(self) -> float:
        """The share of entries that are free."""
        kept = sum(
            rows * columns
            for rows, row in zip(self.rows, self.kept, strict=True)
            for columns, yes in zip(self.columns, row, strict=True)
            if yes
        )
        return kept / (sum(self.rows) * sum(self.columns))


class Ascending(nn.Module):
    """A vector whose parts ascend whatever its parameters are: first entries, then steps softplus(δ) > 0.

    Each part holds the positions of one group of units, in the order in which they ascend; other entries are as they
    are.
    """

    def __init__(self, parts: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.parts = [list(part) for part in parts]

    def forward(self, original: Tensor) -> Tensor:
        """The vector that the layer uses."""
        if self.parts == [list(range(len(original)))]:
            return _ascending(original)
        result = original
        for part in self.parts:
            places = torch.tensor(part, device=original.device)
            result = result.index_copy(0, places, _ascending(original.index_select(0, places)))
        return result

    @staticmethod
    def parameters_of(values: Tensor) -> Tensor:
        """What gives these strictly ascending values."""
        return torch.cat([values[:1], values.diff().expm1().log()])  # the inverse of softplus


def _ascending(original: Tensor) -> Tensor:
    return torch.cat([original[:1], original[:1] + functional.softplus(original[1:]).cumsum(0)])
