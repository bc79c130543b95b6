"""Planes through weight space and the loss on them: through three solutions, along random or principal directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.layers import Inputs
from isthmus.connect.paths import Plane
from isthmus.connect.treatment import Statistics, refreshing
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.score import Score, Scores
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Marked:
    """A plane with the points that made it.

    Attributes:
        plane: axes of unit length and at right angles, unless said otherwise; coordinates are distances in weight
        space.
        points: coordinates of the solutions that it was made from.
        solutions: these solutions, to be scored exactly.
        explained: for principal directions, the share of the trajectory's variance along each axis.
    """

    plane: Plane
    points: Float[Tensor, "points 2"]
    solutions: tuple[Weights, ...]
    explained: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Surface(Record):
    """The loss on a grid of a plane.

    Attributes:
        x: coordinates along the first axis.
        y: coordinates along the second axis.
        loss: entry [i, j] belongs to (x[i], y[j]).
        metrics: further means on the same grid.
        points: coordinates of marked points.
        scores: of the marked solutions themselves, with their own weights and statistics.
        explained: see :class:`Marked`.
        normalisation: the policy for running statistics.
    """

    x: Float[Tensor, " columns"]
    y: Float[Tensor, " rows"]
    loss: Float[Tensor, "columns rows"]
    metrics: Mapping[str, Float[Tensor, "columns rows"]]
    points: Float[Tensor, "points 2"]
    scores: tuple[Score, ...]
    explained: tuple[float, ...]
    normalisation: str


def plane_through(first: Weights, second: Weights, third: Weights, *, tensors: Collection[str] | None = None) -> Marked:
    """The plane through three solutions: the first is the origin, the second lies on the x axis.

    Args:
        first: the solution at (0, 0).
        second: the solution at (length, 0).
        third: the solution above or below the axis, at y > 0.
        tensors: those that span the plane (give ``network.parameter_names`` to leave running statistics out of the
            distances); all floating ones by default. The others stay as in the first solution.

    Raises:
        WeightsError: the three lie on one line.

    Reference: Garipov et al., arXiv 1802.10026, appendix on planes: Gram–Schmidt on the two differences.
    """
    tensors = _floating(first, tensors)
    along, across = _difference(second, first, tensors), _difference(third, first, tensors)
    length = algebra.norm(along)
    if length == 0.0:
        raise WeightsError("a plane needs three different solutions; the first two are equal")
    x_axis = algebra.combine([along], [1 / length])
    shadow = algebra.dot(across, x_axis)
    rest = algebra.combine([across, x_axis], [1.0, -shadow])
    height = algebra.norm(rest)
    if height <= 1e-10 * max(algebra.norm(across), length):
        raise WeightsError("a plane needs three solutions that do not lie on one line")
    plane = Plane(first, x_axis, algebra.combine([rest], [1 / height]))
    points = torch.tensor([[0.0, 0.0], [length, 0.0], [shadow, height]], dtype=torch.float64)
    return Marked(plane, points, (first, second, third))


def principal_plane(
    trajectory: Sequence[Weights], *, origin: Weights | None = None, tensors: Collection[str] | None = None
) -> Marked:
    """The plane through the last (or a given) point along the two directions in which a trajectory varies most.

    The n×n Gram matrix of the differences is decomposed instead of the huge covariance. ``tensors`` as in
    :func:`plane_through`.

    Raises:
        SettingError: fewer than three points.
        WeightsError: the trajectory does not span a plane.

    Reference: Li et al., arXiv 1712.09913, section 7 (differences to the last point, as there).
    """
    if len(trajectory) < 3:
        raise SettingError(f"a trajectory must have at least 3 points to span a plane, got {len(trajectory)}")
    centre = trajectory[-1] if origin is None else origin
    tensors = _floating(centre, tensors)
    steps = [_difference(point, centre, tensors) for point in trajectory]
    gram = torch.tensor([[algebra.dot(a, b) for b in steps] for a in steps], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    if float(values[-2]) <= 1e-10 * float(values[-1]):
        raise WeightsError("a trajectory must span a plane; all its points lie on one line")
    axes, coordinates = [], []
    for index in (-1, -2):
        scale = float(values[index].sqrt())
        axes.append(algebra.combine(steps, (vectors[:, index] / scale).tolist()))
        coordinates.append(vectors[:, index] * scale)
    explained = tuple(float(values[index] / values.sum()) for index in (-1, -2))
    return Marked(Plane(centre, axes[0], axes[1]), torch.stack(coordinates, 1), tuple(trajectory), explained)


def random_plane(
    origin: Weights,
    *,
    generator: torch.Generator,
    scale: Literal["filter", "layer", "unit"] = "filter",
    tensors: Collection[str] | None = None,
) -> Marked:
    """A plane through a solution along two Gaussian directions.

    Args:
        origin: the solution.
        generator: draws the directions.
        scale: ``filter``: each filter or row of a direction has the length of the solution's, and vectors (biases,
            normalisation) are zero; ``layer``: each tensor has the solution's length; ``unit``: the whole direction has
            length one.
        tensors: those that move (give ``network.parameter_names``); all floating ones by default.

    The axes are independent draws, nearly but not exactly at right angles; coordinates are multiples of them.

    Raises:
        WeightsError: a tensor is none of the solution's.

    Reference: Li, Xu, Taylor, Studer and Goldstein, arXiv 1712.09913, section 4 (filter normalisation).
    """
    chosen = _floating(origin, tensors)
    axes = [_direction(origin, chosen, generator, scale) for _ in range(2)]
    return Marked(Plane(origin, axes[0], axes[1]), torch.zeros(1, 2, dtype=torch.float64), (origin,))


def surface(
    marked: Marked,
    objective: Objective,
    *,
    points: int = 21,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    margin: float = 0.2,
    normalisation: Statistics = "reestimate",
    inputs: Inputs | None = None,
    progress: Progress = silent,
) -> Surface:
    """The objective on an even grid of a plane; the range's ends are grid points.

    Args:
        marked: the plane and its marked points.
        objective: what is measured.
        points: grid points along each axis, at least 3.
        x_range: from, to; by default the marked points with a margin, or −1 to 1.
        y_range: the same for the second axis.
        margin: as a share of the marked points' extent.
        normalisation: ``reestimate`` running statistics over ``inputs`` at every point, or keep the origin's
            (``interpolate``: mixed by the plane where its axes hold them).
        inputs: training inputs for the statistics.
        progress: told after every point.

    Raises:
        SettingError: fewer than three points, an unknown policy, or no data for it.

    Cost: points² passes over the objective's data.
    """
    if points < 3:
        raise SettingError(f"points must be at least 3 along each axis, got {points}")
    refreshed = refreshing(objective, inputs, policy=normalisation)
    x, y = (
        torch.linspace(*(given or _extent(marked.points[:, axis], margin)), points, dtype=torch.float64)
        for axis, given in enumerate((x_range, y_range))
    )
    rows: list[Score] = []
    for column in x.tolist():
        for row in y.tolist():
            rows.append(objective(refreshed(marked.plane(column, row))))
            progress(len(rows), points * points, "surface")
    found = Scores.of(rows)
    loss, metrics = found.loss.view(points, points), {n: v.view(points, points) for n, v in found.metrics.items()}
    exact = tuple(objective(solution) for solution in marked.solutions)
    return Surface(x, y, loss, metrics, marked.points, exact, marked.explained, normalisation)


def _floating(weights: Weights, names: Collection[str] | None) -> list[str]:
    """The tensors that span a plane."""
    chosen = [n for n, t in weights.items() if t.is_floating_point() and (names is None or n in names)]
    if not chosen:
        raise WeightsError("a plane needs at least one floating tensor to move in, got none")
    return chosen


def _difference(to: Weights, start: Weights, names: Sequence[str]) -> dict[str, Tensor]:
    """From one solution to another, in at least float32."""
    algebra.check_alike(start, to, what="the points of a plane")
    wide = {name: torch.promote_types(start[name].dtype, torch.float32) for name in names}
    return {name: to[name].to(start[name].device, wide[name]) - start[name].to(wide[name]) for name in names}


def _direction(origin: Weights, names: Sequence[str], generator: torch.Generator, scale: str) -> dict[str, Tensor]:
    """A Gaussian direction, scaled like the solution."""
    direction = {}
    for name in names:
        weight = origin[name]
        wide = torch.promote_types(weight.dtype, torch.float32)
        noise = torch.randn(weight.shape, generator=generator, device=generator.device, dtype=wide).to(weight.device)
        solution = weight.to(wide)
        if scale == "filter" and weight.dim() <= 1:
            noise = torch.zeros_like(noise)
        elif scale == "filter":
            own, target = noise.flatten(1).norm(dim=1), solution.flatten(1).norm(dim=1)
            noise = noise * (target / own).view(-1, *[1] * (weight.dim() - 1))
        elif scale == "layer":
            noise = noise * (solution.norm() / noise.norm())
        direction[name] = noise
    if scale == "unit":
        return algebra.combine([direction], [1 / algebra.norm(direction)])
    return direction


def _extent(values: Tensor, margin: float) -> tuple[float, float]:
    """The range of marked coordinates with a margin; −1 to 1 around a single point."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low - 1.0, high + 1.0
    return low - margin * (high - low), high + margin * (high - low)
