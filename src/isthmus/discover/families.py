"""Where labels come from: positions of tensors' axes, or blocks that an operation made."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Labels made together: the positions of one tensor's axis, or the blocks that one operation made.

    Attributes:
        start, stop: the label numbers.
        tensor, dim: whose positions, if these are positions.
        positions: for a split axis several labels share a position; label start+k lies at ``positions[k]``.
        slices: for a split axis, (axis, position) of the slice in which label start+k lies.
        word: what the blocks are, for names ("heads").
        width: for labels of one slice only, how many positions along the other axis it has.
    """

    start: int
    stop: int
    tensor: str | None = None
    dim: int = 0
    positions: np.ndarray | None = None
    slices: tuple[int, np.ndarray] | None = None
    word: str = ""
    site: str = ""
    width: int = 0

    @functools.cached_property
    def cuts(self) -> tuple[np.ndarray, int]:
        """Where the slices begin along their axis, and how long each is."""
        assert self.slices is not None
        every = np.unique(self.slices[1])
        return every, int(np.diff(every).min()) if len(every) > 1 else max(1, self.width)


@dataclasses.dataclass(frozen=True)
class Split:
    """A request: positions along ``dim`` of a tensor are units of their own in each of ``parts`` parts of ``axis``."""

    tensor: str
    dim: int
    axis: int
    parts: int
