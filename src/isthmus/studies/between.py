"""Looking between two solutions: straight and learned curves, layer by layer, and an average that is repaired."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.connect import (
    Barrier,
    Bezier,
    LayerBarriers,
    Line,
    Marked,
    Polygon,
    Surface,
    VarianceRatios,
    barrier,
    bend,
    fit,
    layer_barriers,
    plane_through,
    principal_plane,
    random_plane,
    reestimate,
    repair,
    variance_ratios,
)
from isthmus.connect.treatment import refreshing
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.score import Score
from isthmus.core.status import Status
from isthmus.core.weights import Weights, lerp
from isthmus.curvature import PathCurvature, PlaneCurvature, Probe, along_path, over_plane

# Of the eigenpairs' residuals, as a share of the eigenvalue: a figure shows no more.
_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Paths(Record):
    """The barriers of several paths between the same two solutions.

    Attributes:
        curves: ``line``, and ``curve`` where one was learned.
        learned: kind and bends of the learned curve, steps, the loss of its last steps; empty if none was learned.
        layers: barriers layer by layer, if asked for.
        names: what the ends are called.
        provenance: versions, machine, command.
        curvature: of the training loss along each curve, if asked for: its Hessian's extreme eigenvalues and trace.
    """

    curves: Mapping[str, Barrier]
    learned: Mapping[str, Any]
    layers: LayerBarriers | None
    names: tuple[str, str]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curvature: Mapping[str, PathCurvature] = dataclasses.field(default_factory=dict)


def paths_between(
    start: Weights,
    end: Weights,
    objective: Objective,
    training: Objective,
    *,
    bends: int = 0,
    kind: Literal["bezier", "polygon"] = "bezier",
    steps: int = 500,
    layers: Literal["none", "only", "up_to"] = "none",
    curvature: int = 0,
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
    progress: Progress = silent,
    **settings: Any,
) -> Paths:
    """Measure the straight line, and if asked a learned curve and the line layer by layer.

    Args:
        start: weights at 0.
        end: weights at 1.
        objective: what is measured.
        training: what the curve is learned on and the curvature is of; its inputs are also used for normalisation
            statistics.
        bends: inner points of the learned curve; 0 learns none.
        kind: of the learned curve.
        steps: of the learning.
        layers: also interpolate ``only`` one layer at a time, or all ``up_to`` one.
        curvature: also the curvature at so many points of each path, at least 3; 0 for none.
        names: what the ends are called.
        seed: of the learning's batches and positions, and of the trace's probes.
        progress: told along the way.
        **settings: further arguments of :func:`isthmus.connect.barrier`.

    Raises:
        SettingError: a setting is out of range, or the learning diverged.

    Cost: ``curvature`` asks for some 60 to 90 Hessian-vector products over the training examples at each point.
    """
    if curvature and curvature < 3:
        raise SettingError(f"curvature must be at least 3 points to see inside the path (0 for none), got {curvature}")
    if kind not in ("bezier", "polygon"):
        raise SettingError(f"kind must be bezier or polygon, got {kind}")
    inputs = training.inputs
    phases = ["line", *(("learning", "curve") if bends else ()), *(("layers",) if layers != "none" else ())]
    phases += ["curvature"] if curvature else []
    told = {name: within(progress, place, len(phases), label=name) for place, name in enumerate(phases)}
    paths: dict[str, Any] = {"line": Line(start, end)}
    curves = {"line": barrier(paths["line"], objective, inputs=inputs, progress=told["line"], **settings)}
    learned: dict[str, Any] = {}
    if bends:
        shape: Any = Bezier if kind == "bezier" else Polygon
        path = bend(start, end, bends=bends, kind=shape)
        found = fit(path, training, steps=steps, generator=child(seed, "curve"), progress=told["learning"])
        if found.status is Status.DIVERGED:
            raise SettingError(
                f"the curve's loss left the finite range after {len(found.losses)} steps; try fewer bends"
            )
        last = found.losses[-max(1, len(found.losses) // 10) :]
        learned = {"kind": kind, "bends": bends, "steps": steps, "last_loss": float(last.mean())}
        paths["curve"] = found.path
        curves["curve"] = barrier(found.path, objective, inputs=inputs, progress=told["curve"], **settings)
    by_layer = None
    if layers != "none":
        by_layer = layer_barriers(
            start, end, objective, mode=layers, inputs=inputs, progress=told["layers"], **settings
        )
    bent: dict[str, PathCurvature] = {}
    if curvature:
        probe = _probe(training, settings.get("normalisation", "reestimate"), seed)
        positions = torch.linspace(0, 1, curvature, dtype=torch.float64)
        for place, (name, path) in enumerate(paths.items()):
            part = within(told["curvature"], place, len(paths), label=name)
            bent[name] = along_path(training, path, positions=positions, probe=probe, progress=part)
    return Paths(curves, learned, by_layer, names, curvature=bent)


def plane_of(solutions: Sequence[Weights], *, tensors: Collection[str] | None = None, seed: int = 0) -> Marked:
    """The plane that a number of solutions span.

    Args:
        solutions: one, for two random filter-normalised directions around it; three, for the plane through them; or a
            trajectory of more, for its two principal directions.
        tensors: of the tensors that move, usually the parameters.
        seed: of the random directions.

    Raises:
        SettingError: two solutions, which lie on a line.
    """
    if len(solutions) == 1:
        return random_plane(solutions[0], generator=child(seed, "directions"), tensors=tensors)
    if len(solutions) == 2:
        raise SettingError(
            "a plane needs 1 checkpoint (random directions), 3, or a trajectory of more; got 2: use path"
        )
    if len(solutions) == 3:
        return plane_through(*solutions, tensors=tensors)
    return principal_plane(solutions, tensors=tensors)


def curvature_of(
    surface: Surface,
    marked: Marked,
    training: Objective,
    *,
    points: int,
    seed: int = 0,
    progress: Progress = silent,
) -> PlaneCurvature:
    """The curvature of the training loss on a grid of a plane that was measured, over the same ranges.

    Args:
        surface: what was measured on the plane; gives the ranges and the policy for running statistics.
        marked: the plane.
        training: the loss whose Hessian is meant; its inputs also serve for normalisation statistics.
        points: along each axis, at least 3; a coarser grid than the loss's will do, for each point costs some 60 to 90
            Hessian-vector products.
        seed: of the trace's probes.
        progress: told of the points done.

    Raises:
        SettingError: fewer than 3 points.
    """
    if points < 3:
        raise SettingError(f"curvature must be at least 3 points along each axis (0 for none), got {points}")
    first, second = (
        torch.linspace(float(axis[0]), float(axis[-1]), points, dtype=torch.float64) for axis in (surface.x, surface.y)
    )
    probe = _probe(training, surface.normalisation, seed)
    return over_plane(training, marked.plane, first=first, second=second, probe=probe, progress=progress)


def _probe(training: Objective, policy: str, seed: int) -> Probe:
    """Statistics as the loss's: where hidden units are repaired, those of the plain mixture are estimated anew."""
    kept = "interpolate" if policy == "interpolate" else "reestimate"
    return Probe(
        prepare=refreshing(training, training.inputs, policy=kept), tolerance=_TOLERANCE, trace_products=20, seed=seed
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Repaired(Record):
    """An average of two solutions before and after its normalisation statistics and hidden units were repaired.

    Attributes:
        scores: of ``first``, ``second``, ``average``, ``reestimated`` (where there are running statistics) and
            ``repaired``.
        variance: by layer, how much of the ends' variance the ``average`` and the ``repaired`` network keep.
        t: position of the average between the ends.
        names: what the ends are called.
        provenance: versions, machine, command.
    """

    scores: Mapping[str, Score]
    variance: Mapping[str, VarianceRatios]
    t: float
    names: tuple[str, str]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def repaired_average(
    start: Weights,
    end: Weights,
    objective: Objective,
    inputs: Tensor,
    *,
    t: float = 0.5,
    rescale_only: bool = False,
    names: tuple[str, str] = ("first", "second"),
) -> tuple[Repaired, dict[str, Tensor]]:
    """Average two solutions and repair the average; gives the account and the repaired weights.

    Args:
        start: weights at 0.
        end: weights at 1, aligned as wanted.
        objective: what is measured.
        inputs: training inputs, for the statistics.
        t: position, inside (0, 1).
        rescale_only: correct deviations only, not means.
        names: what the ends are called.

    Raises:
        SettingError: t is not inside (0, 1).
    """
    if not 0.0 < t < 1.0:
        raise SettingError(f"t must lie inside (0, 1), got {t:g}")
    network, parents, shares = objective.network, (start, end), (1 - t, t)
    average = lerp(start, end, t)
    made = repair(network, average, parents, inputs, shares=shares, rescale_only=rescale_only)
    variants: dict[str, Weights] = {"first": start, "second": end, "average": average}
    if network.has_batch_statistics:
        variants["reestimated"] = reestimate(network, average, inputs)
    variants["repaired"] = made
    scores = {name: objective(weights) for name, weights in variants.items()}
    variance = {
        name: variance_ratios(network, variants[name], parents, inputs, shares=shares)
        for name in ("average", "repaired")
    }
    return Repaired(scores, variance, t, names), made
