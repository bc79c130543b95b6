"""Curvature layer by layer, along a path and over a plane."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.operator import Operator
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.curvature.eigen import eigenpairs
from isthmus.curvature.hessian import hessian
from isthmus.curvature.trace import trace

Measured = TypeVar("Measured")
Matrix = Callable[..., Operator]
_EVEN = tuple(i / 24 for i in range(25))  # the grid of a barrier


@dataclasses.dataclass(frozen=True)
class PathCurvature(Record):
    """Curvature at points of a path; one entry for each.

    Attributes:
        positions: where on the path.
        loss: mean loss there.
        largest: largest eigenvalue.
        smallest: smallest eigenvalue; negative where the path crosses no basin's floor.
        trace: sum of the eigenvalues.
        trace_reach: half the width of the trace's 95 % interval; 0 where it is exact.
        residual: the larger residual of the two eigenpairs.
    """

    positions: Float[Tensor, " points"]
    loss: Float[Tensor, " points"]
    largest: Float[Tensor, " points"]
    smallest: Float[Tensor, " points"]
    trace: Float[Tensor, " points"]
    trace_reach: Float[Tensor, " points"]
    residual: Float[Tensor, " points"]


@dataclasses.dataclass(frozen=True)
class PlaneCurvature(Record):
    """Curvature at the points of a grid in a plane; the fields are those of a path, with one row for each ``first``."""

    first: Float[Tensor, " rows"]
    second: Float[Tensor, " columns"]
    loss: Float[Tensor, "rows columns"]
    largest: Float[Tensor, "rows columns"]
    smallest: Float[Tensor, "rows columns"]
    trace: Float[Tensor, "rows columns"]
    trace_reach: Float[Tensor, "rows columns"]
    residual: Float[Tensor, "rows columns"]


@dataclasses.dataclass(frozen=True)
class Probe:
    """How to measure the curvature at one point after another.

    Attributes:
        matrix: ``hessian`` or ``gauss_newton``.
        prepare: applied to the weights of every point first: estimate BatchNorm statistics anew here, or take out the
            scale.
        tolerance: of the eigenpairs' residuals.
        trace_products: products for each trace.
        seed: of the trace's probes, the same at every point so that differences between points are not noise.
        dtype: working precision; by default that of the weights, but at least float32.
    """

    matrix: Matrix = hessian
    prepare: Callable[[Weights], Weights] = dict
    tolerance: float = 1e-3
    trace_products: int = 30
    seed: int = 0
    dtype: torch.dtype | None = None

    def many(
        self, objective: Objective, places: Sequence[Weights | Callable[[], Weights]], progress: Progress
    ) -> Tensor:
        """Loss, largest, smallest, trace, its reach and the residual at every place, (places, 6).

        Raises:
            SettingError: eigenpairs that do not reach the tolerance.
        """
        rows, start = [], None
        for done, place in enumerate(places):
            progress(done, len(places), "curvature")
            weights = self.prepare(place() if callable(place) else place)
            operator = self.matrix(objective, weights, dtype=self.dtype)
            ends = eigenpairs(operator, 1, "both", tolerance=self.tolerance, start=start)
            if len(ends.values) < 2:
                raise SettingError(f"eigenpairs must reach the tolerance {self.tolerance:g}, but did not; raise it")
            # Neighbouring points have similar eigenvectors: starting from both halves the work.
            start = ends.vectors.double().sum(1)
            total = trace(operator, generator=child(self.seed, "trace"), products=self.trace_products).interval
            loss = objective(weights).loss
            reach = total.high - total.estimate
            rows.append(
                [
                    loss,
                    float(ends.values[0]),
                    float(ends.values[-1]),
                    total.estimate,
                    reach,
                    float(ends.residuals.max()),
                ]
            )
        progress(len(places), len(places), "curvature")
        return torch.tensor(rows, dtype=torch.float64)


def layers(network: Network) -> dict[str, tuple[str, ...]]:
    """The trainable tensors of every layer: names without their last part; tensors at the top under their own name."""
    groups: dict[str, list[str]] = {}
    for name in network.parameter_names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return {layer: tuple(names) for layer, names in groups.items()}


def by_layer(
    objective: Objective,
    weights: Weights,
    measure: Callable[[Operator], Measured],
    *,
    matrix: Matrix = hessian,
    groups: Mapping[str, Sequence[str]] | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress = silent,
) -> dict[str, Measured]:
    """A measure of every layer's diagonal block.

    Args:
        objective: network, data and loss.
        weights: where.
        measure: takes an operator, such as ``lambda block: eigenpairs(block, 1)``.
        matrix: ``hessian`` or ``gauss_newton``.
        groups: name → tensors; the layers by default.
        dtype: working precision, as in :func:`hessian`.
        progress: told of the layers done.

    Example:
        >>> network = Network.of(torch.nn.Linear(2, 3))
        >>> objective = Objective(network, torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
        >>> by_layer(objective, network.weights, lambda block: block.size)
        {'weight': 6, 'bias': 3}
    """
    chosen = groups if groups is not None else layers(objective.network)
    results = {}
    for done, (name, names) in enumerate(chosen.items()):
        progress(done, len(chosen), name)
        results[name] = measure(matrix(objective, weights, tensors=names, dtype=dtype))
    progress(len(chosen), len(chosen), "layers")
    return results


def along_path(
    objective: Objective,
    path: Callable[[float], Weights],
    *,
    positions: Sequence[float] | Tensor = _EVEN,
    probe: Probe = Probe(),
    progress: Progress = silent,
) -> PathCurvature:
    """Loss, extreme eigenvalues and trace at points of a path.

    In evaluation mode: between solutions the running statistics of BatchNorm belong to neither end. Pass a ``prepare``
    that estimates them anew (``Probe(prepare=…)``), or the curvature is that of a network nobody would use.

    Args:
        objective: network, data and loss.
        path: position → weights; only one point's weights are alive at a time.
        positions: where to look, 25 points of [0, 1] by default.
        probe: how to measure.
        progress: told of the points done.

    Cost: about 30 to 60 products and ``probe.trace_products`` for each point.
    """
    places = [float(position) for position in positions]
    found = probe.many(objective, [lambda t=t: path(t) for t in places], progress)
    return PathCurvature(torch.tensor(places, dtype=torch.float64), *found.T)


def over_plane(
    objective: Objective,
    plane: Callable[[float, float], Weights],
    *,
    first: Sequence[float] | Tensor,
    second: Sequence[float] | Tensor,
    probe: Probe = Probe(),
    progress: Progress = silent,
) -> PlaneCurvature:
    """Loss, extreme eigenvalues and trace at every point of a grid in a plane; what holds for a path holds here.

    Args:
        objective: network, data and loss.
        plane: two coordinates → weights.
        first: values of the first coordinate.
        second: values of the second.
        probe: how to measure.
        progress: told of the points done.
    """
    rows, columns = [float(x) for x in first], [float(y) for y in second]
    # Back and forth, so that every point's start is a neighbour's eigenvector.
    order = [
        (i, j) for i in range(len(rows)) for j in (range(len(columns)) if i % 2 == 0 else range(len(columns))[::-1])
    ]
    found = probe.many(objective, [lambda i=i, j=j: plane(rows[i], columns[j]) for i, j in order], progress)
    fields = torch.empty(found.shape[1], len(rows), len(columns), dtype=torch.float64)
    for (i, j), values in zip(order, found, strict=True):
        fields[:, i, j] = values
    axes = (torch.tensor(values, dtype=torch.float64) for values in (rows, columns))
    return PlaneCurvature(*axes, *fields)
