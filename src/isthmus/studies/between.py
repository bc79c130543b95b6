"""Looking between two solutions: straight and learned curves, layer by layer, and an average that is repaired."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from isthmus.connect import (
    Barrier,
    Bezier,
    LayerBarriers,
    Line,
    Polygon,
    VarianceRatios,
    barrier,
    bend,
    fit,
    layer_barriers,
    reestimate,
    repair,
    variance_ratios,
)
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.score import Score
from isthmus.core.status import Status
from isthmus.core.weights import Weights, lerp


@dataclasses.dataclass(frozen=True, eq=False)
class Paths(Record):
    """The barriers of several paths between the same two solutions.

    Attributes:
        curves: ``line``, and ``curve`` where one was learned.
        learned: kind and bends of the learned curve, steps, the loss of its last steps; empty if none was learned.
        layers: barriers layer by layer, if asked for.
        names: what the ends are called.
        provenance: versions, machine, command.
    """

    curves: Mapping[str, Barrier]
    learned: Mapping[str, Any]
    layers: LayerBarriers | None
    names: tuple[str, str]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
        training: what the curve is learned on; its inputs are also used for normalisation statistics.
        bends: inner points of the learned curve; 0 learns none.
        kind: of the learned curve.
        steps: of the learning.
        layers: also interpolate ``only`` one layer at a time, or all ``up_to`` one.
        names: what the ends are called.
        seed: of the learning's batches and positions.
        progress: told along the way.
        **settings: further arguments of :func:`isthmus.connect.barrier`.

    Raises:
        SettingError: a setting is out of range, or the learning diverged.
    """
    if kind not in ("bezier", "polygon"):
        raise SettingError(f"kind must be bezier or polygon, got {kind}")
    phases = 1 + 2 * bool(bends) + (layers != "none")
    inputs = training.inputs
    phase = _Phases(progress, phases)
    curves = {"line": barrier(Line(start, end), objective, data=inputs, progress=phase("line"), **settings)}
    learned: dict[str, Any] = {}
    if bends:
        shape: Any = Bezier if kind == "bezier" else Polygon
        path = bend(start, end, bends=bends, kind=shape)
        found = fit(path, training, steps=steps, generator=child(seed, "curve"), progress=phase("learning"))
        if found.status is Status.DIVERGED:
            raise SettingError(
                f"the curve's loss left the finite range after {len(found.losses)} steps; try fewer bends"
            )
        last = found.losses[-max(1, len(found.losses) // 10) :]
        learned = {"kind": kind, "bends": bends, "steps": steps, "last_loss": float(last.mean())}
        curves["curve"] = barrier(found.path, objective, data=inputs, progress=phase("curve"), **settings)
    by_layer = None
    if layers != "none":
        by_layer = layer_barriers(start, end, objective, mode=layers, data=inputs, progress=phase("layers"), **settings)
    return Paths(curves, learned, by_layer, names)


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


class _Phases:
    """Progress over a known number of phases of equal weight."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, name: str) -> Progress:
        place, self._done = self._done, self._done + 1

        def told(done: float, total: float, label: str = "") -> None:
            self._progress(place + done / total, self._total, f"{name} {label}".strip())

        return told
