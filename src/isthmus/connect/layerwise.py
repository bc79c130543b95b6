"""Which layers carry a barrier: interpolate one at a time, or all up to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.barrier import CONVENTIONS, Barrier, barrier
from isthmus.connect.paths import Line
from isthmus.core.errors import SettingError, listed
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.record import Record
from isthmus.core.weights import Weights

Mode = Literal["only", "up_to"]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerBarriers(Record):
    """Barriers of paths that move a part of the layers; the two heat maps are ``loss`` and ``error``.

    Attributes:
        layers: the layers, in the module's order.
        mode: ``only`` this layer moves, or all ``up_to`` and with it.
        positions: from 0 to 1.
        loss: one row for each layer.
        error: one row for each layer; empty without an error metric.
        heights: for each convention of :class:`Barrier`, one number for each layer.
        normalisation: the policy for running statistics.
    """

    layers: tuple[str, ...]
    mode: str
    positions: Float[Tensor, " points"]
    loss: Float[Tensor, "layers points"]
    error: Float[Tensor, "layers points"]
    heights: Mapping[str, Float[Tensor, " layers"]]
    normalisation: str


def layer_barriers(
    start: Weights,
    end: Weights,
    objective: Objective,
    *,
    mode: Mode = "only",
    layers: Sequence[str] | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> LayerBarriers:
    """Interpolate the layers of a solution towards another one at a time, or all up to one.

    A layer is what shares a module's name: weight, bias, running statistics. Each path ends at the start with the moved
    layers of the end, a network of its own with a loss of its own; its statistics are mixed from two networks, so with
    re-estimation ``barrier(...).between_treated_ends()`` judges it, as here.

    Args:
        start: what the other layers keep.
        end: where the moved layers go.
        objective: what is measured.
        mode: ``only`` one layer, or all ``up_to`` and with it in the module's order.
        layers: names of modules with tensors of their own; all by default.
        progress: told after every point.
        **settings: further arguments of :func:`barrier`.

    Raises:
        SettingError: an unknown layer or mode.

    Cost: one call of :func:`barrier` for each layer.

    Reference: Adilova et al., "Layer-wise linear mode connectivity", arXiv 2307.06966.
    """
    if mode not in ("only", "up_to"):
        raise SettingError(f"mode must be only or up_to, got {mode}")
    groups = _by_layer(start)
    chosen = list(groups) if layers is None else list(layers)
    if unknown := [name for name in chosen if name not in groups]:
        raise SettingError(f"layers must be modules with tensors of their own; unknown: {listed(unknown)}")
    if not chosen:
        raise SettingError("layer_barriers needs at least one layer, got none")
    curves: list[Barrier] = []
    moved: set[str] = set()
    for index, name in enumerate(chosen):
        moved = {*groups[name], *(moved if mode == "up_to" else ())}
        target = {tensor: (end if tensor in moved else start)[tensor] for tensor in start}
        told = within(progress, index, len(chosen), label=name)
        curve = barrier(Line(start, target), objective, progress=told, **settings)
        curves.append(curve.between_treated_ends())
    errors = [curve.metrics["error"] for curve in curves if "error" in curve.metrics]
    return LayerBarriers(
        layers=tuple(chosen),
        mode=mode,
        positions=curves[0].positions,
        loss=torch.stack([curve.loss for curve in curves]),
        error=torch.stack(errors) if errors else torch.empty(0, 0),
        heights={
            name: torch.tensor([getattr(curve, name) for curve in curves], dtype=torch.float64) for name in CONVENTIONS
        },
        normalisation=curves[0].normalisation,
    )


def _by_layer(weights: Weights) -> dict[str, list[str]]:
    """Tensor names by the module that owns them, in the mapping's order."""
    groups: dict[str, list[str]] = {}
    for name in weights:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return groups
