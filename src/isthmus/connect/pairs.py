"""Barriers between all pairs of a set of solutions, with intervals over networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.barrier import CONVENTIONS, Barrier, barrier
from isthmus.connect.known import Known
from isthmus.connect.lines import Bundle, takes_together
from isthmus.connect.paths import Line
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_pairs
from isthmus.core.weights import Weights, to


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
        **settings: further arguments of :func:`barrier`, such as ``points``, ``normalisation`` and ``inputs``.

    Raises:
        SettingError: fewer than two solutions.

    Cost: n(n−1)/2 calls of :func:`barrier`, in which each of the n solutions is scored and measured once, what
    ``moving`` gives every time. On a GPU, where nothing has to be estimated at the points between, many points of many
    pairs go through the network at once (``together``: how many, 512 by default, fewer where memory runs out).
    """
    n = len(solutions)
    if n < 2:
        raise SettingError(f"pairwise barriers must have at least 2 solutions, got {n}")
    pairs = [(first, second) for first in range(n) for second in range(first + 1, n)]
    solutions = [beside(weights, objective) for weights in solutions]

    def line(first: int, second: int) -> Line:
        other = solutions[second] if moving is None else beside(moving(first, second), objective)
        return Line(solutions[first], other)

    settings.setdefault("known", Known(solutions))
    if takes_together(objective, solutions, **settings):
        curves = _together(pairs, line, Bundle.of(objective, **settings), progress=progress)
    else:
        curves = {
            pair: barrier(line(*pair), objective, progress=within(progress, done, len(pairs)), **settings)
            for done, pair in enumerate(pairs)
        }
    heights = {name: _matrix(n, {pair: getattr(curve, name) for pair, curve in curves.items()}) for name in CONVENTIONS}
    return PairBarriers(
        heights=heights,
        intervals={
            # A middle may lie below its ends.
            name: over_pairs(matrix, level=level, signed=name.startswith("midpoint"))
            for name, matrix in heights.items()
        },
        curves=curves,
        names=tuple(names) if names is not None else tuple(str(index) for index in range(n)),
        normalisation=next(iter(curves.values())).normalisation,
    )


def beside(weights: Weights, objective: Objective) -> Weights:
    """The weights where the objective's data are, if those are on a GPU.

    Replicas come back from training on the CPU, and moving weights once costs less than moving all examples for every
    point.
    """
    device = objective.parts[0].device
    if device.type == "cpu" or all(tensor.device == device for tensor in weights.values()):
        return weights
    return to(weights, device=device)


def _together(
    pairs: Sequence[tuple[int, int]],
    line: Callable[[int, int], Line],
    bundle: Bundle,
    *,
    progress: Progress,
) -> dict[tuple[int, int], Barrier]:
    """The barriers of all pairs, a block of pairs at a time."""
    curves: dict[tuple[int, int], Barrier] = {}
    while len(curves) < len(pairs):
        block = pairs[len(curves) : len(curves) + bundle.lines_at_once]
        lines = [line(*pair) for pair in block]
        curves.update(zip(block, bundle(lines), strict=True))
        progress(len(curves), len(pairs), "path")
    return curves


def _matrix(n: int, values: Mapping[tuple[int, int], float]) -> Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for (first, second), value in values.items():
        matrix[first, second] = matrix[second, first] = value
    return matrix
