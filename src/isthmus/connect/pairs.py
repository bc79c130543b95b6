"""Barriers between all pairs of a set of solutions, with intervals over networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.barrier import CONVENTIONS, Barrier, barrier
from isthmus.connect.paths import Line
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_pairs
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class PairBarriers(Record):
    """The barriers of every pair.

    Attributes:
        heights: for each convention of :class:`Barrier` a symmetric matrix with a zero diagonal.
        intervals: for each convention the mean over pairs, with an interval over networks (pairs are not independent).
        curves: the whole barrier of each pair (first, second), first < second.
        names: what the solutions are called.
        normalisation: the policy for running statistics.
    """

    heights: Mapping[str, Float[Tensor, "solutions solutions"]]
    intervals: Mapping[str, Interval]
    curves: Mapping[tuple[int, int], Barrier]
    names: tuple[str, ...]
    normalisation: str

    @property
    def loss_barrier(self) -> Float[Tensor, "solutions solutions"]:
        """The loss barriers above the line between the ends, the default convention."""
        return self.heights["loss_barrier"]

    @property
    def error_barrier(self) -> Float[Tensor, "solutions solutions"]:
        """The error barriers above the line between the ends."""
        return self.heights["error_barrier"]

    @property
    def mean_loss(self) -> Float[Tensor, " points"]:
        """The loss at each position, averaged over pairs; all pairs must share one grid."""
        return torch.stack([curve.loss for curve in self.curves.values()]).mean(0)


def barriers(
    solutions: Sequence[Weights],
    objective: Objective,
    *,
    moving: Callable[[int, int], Weights] | None = None,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    progress: Progress = silent,
    **settings: Any,
) -> PairBarriers:
    """Measure the barrier of each pair of solutions along the straight line.

    Args:
        solutions: at least two.
        objective: what is measured.
        moving: called with (first, second), gives the second solution as it shall meet the first: permuted, say. By
            default it is taken as it is.
        names: what the solutions are called.
        level: nominal coverage of the intervals.
        progress: told after every point of every pair.
        **settings: further arguments of :func:`barrier`, such as ``points``, ``normalisation`` and ``data``.

    Raises:
        SettingError: fewer than two solutions.

    Cost: n(n−1)/2 calls of :func:`barrier`.
    """
    n = len(solutions)
    if n < 2:
        raise SettingError(f"pairwise barriers must have at least 2 solutions, got {n}")
    pairs = [(first, second) for first in range(n) for second in range(first + 1, n)]
    curves: dict[tuple[int, int], Barrier] = {}
    for done, (first, second) in enumerate(pairs):
        other = solutions[second] if moving is None else moving(first, second)
        curves[first, second] = barrier(
            Line(solutions[first], other), objective, progress=part(progress, done, len(pairs)), **settings
        )
    heights = {name: _matrix(n, {pair: getattr(curve, name) for pair, curve in curves.items()}) for name in CONVENTIONS}
    return PairBarriers(
        heights=heights,
        intervals={name: over_pairs(matrix, level=level) for name, matrix in heights.items()},
        curves=curves,
        names=tuple(names) if names is not None else tuple(str(index) for index in range(n)),
        normalisation=next(iter(curves.values())).normalisation,
    )


def _matrix(n: int, values: Mapping[tuple[int, int], float]) -> Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for (first, second), value in values.items():
        matrix[first, second] = matrix[second, first] = value
    return matrix


def part(progress: Progress, before: int, paths: int) -> Progress:
    """Progress within one of several paths, as a share of them all."""

    def told(done: float, total: float, label: str = "") -> None:
        progress(before + done / total, paths, label)

    return told
