"""Solutions whose arrangement is known: controls that a verdict must get right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.weights import Weights, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Planted(Record):
    """Solutions that form a family tree.

    Attributes:
        solutions: the leaves.
        families: for each level from the root down, the family of each leaf at that level.
        overlaps: for each level, the expected overlap of leaves that part below it.
    """

    solutions: tuple[Weights, ...] = dataclasses.field(repr=False, metadata={"record": False})
    families: tuple[tuple[int, ...], ...]
    overlaps: tuple[float, ...]


def planted_tree(
    branches: Sequence[int] = (4, 2, 2),
    *,
    generator: torch.Generator,
    shares: Sequence[float] | None = None,
    entries: int = 1000,
    like: Weights | None = None,
) -> Planted:
    """A tree of solutions: every node adds an independent Gaussian part to all leaves below it.

    Two leaves share the parts of their common ancestors, so their overlap is the sum of those shares, up to 1/√entries.

    Args:
        branches: children of each node, level by level: (4, 2, 2) is 16 leaves in 4 families of 2 × 2.
        generator: draws the parts.
        shares: variance of each level's part, summing to 1; by default equal. The last is each leaf's own.
        entries: numbers in a leaf, if ``like`` is not given.
        like: gives the leaves names, shapes and precision.

    Raises:
        SettingError: branches below 1, or shares that do not fit.
    """
    if not branches or min(branches) < 1:
        raise SettingError(f"branches must name one or more numbers of children, each at least 1, got {list(branches)}")
    parts = tuple(shares) if shares is not None else (1 / len(branches),) * len(branches)
    if len(parts) != len(branches) or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        raise SettingError(f"shares must be {len(branches)} variances that sum to 1, got {list(parts)}")
    size = flatten(like).numel() if like is not None else entries
    points = torch.zeros(1, size, dtype=torch.float64)
    families = []
    for children, share in zip(branches, parts, strict=True):
        points = points.repeat_interleave(children, dim=0)
        drawn = torch.randn(points.shape, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        points = points + math.sqrt(share) * drawn
        families.append(len(points))
    leaves = len(points)
    levels = tuple(tuple(leaf * count // leaves for leaf in range(leaves)) for count in families)
    reached = tuple(float(sum(parts[:level])) for level in range(len(parts)))
    return Planted(_as_solutions(points, like), levels[:-1] or levels, reached)


def gaussian_solutions(
    count: int,
    *,
    generator: torch.Generator,
    entries: int = 1000,
    overlap: float = 0.0,
    like: Weights | None = None,
) -> tuple[Weights, ...]:
    """Structureless solutions: independent Gaussian points around a common one, with a mean overlap in [0, 1).

    Raises:
        SettingError: an overlap outside [0, 1), or fewer than one solution.
    """
    if not 0 <= overlap < 1:
        raise SettingError(f"overlap must lie in [0, 1), got {overlap}")
    if count < 1:
        raise SettingError(f"count must be at least 1, got {count}")
    size = flatten(like).numel() if like is not None else entries
    common, own = (
        torch.randn(rows, size, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        for rows in (1, count)
    )
    return _as_solutions(math.sqrt(overlap) * common + math.sqrt(1 - overlap) * own, like)


def _as_solutions(points: Tensor, like: Weights | None) -> tuple[Weights, ...]:
    if like is None:
        return tuple({"points": point} for point in points.float())
    return tuple(unflatten(point, like) for point in points)
