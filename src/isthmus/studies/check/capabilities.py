"""What an average keeps of what its ends can do: foreseen from the ends alone, and measured.

A capability is a set of examples: a class of the user's data, or a data set that the user names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.losses import IGNORED, class_scores
from isthmus.core.objective import Objective
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, spearman
from isthmus.core.weights import Weights
from isthmus.studies.check.intervals import kept_share
from isthmus.studies.check.views import View

STEP = 0.02  # share of the way over which a slope is measured: above rounding in float32, well below any barrier


@dataclasses.dataclass(frozen=True, eq=False)
class Capability(Record):
    """One capability of two ends and of their average.

    Attributes:
        name: of the capability.
        examples: behind the measured numbers.
        first: accuracy of the one end.
        second: accuracy of the other.
        average: measured accuracy of the average.
        kept: measured retention, (average − floor) / (better end − floor): 1 where all is kept, 0 at chance; no
            interval and NaN where no end is above the floor.
        foreseen: accuracy of the average as foreseen from the ends alone.
        foreseen_kept: retention as foreseen.
    """

    name: str
    examples: int
    first: float
    second: float
    average: float
    kept: Interval
    foreseen: float
    foreseen_kept: float


@dataclasses.dataclass(frozen=True, eq=False)
class Retention(Record):
    """All capabilities of one pair.

    Attributes:
        first: place of the one end among the solutions.
        second: place of the other.
        way: how the two were brought together.
        floor: accuracy by chance, 1 / classes.
        capabilities: each one.
        rank_correlation: Spearman's, between foreseen and measured accuracy of the average over capabilities; NaN with
            fewer than four, or where one of the two does not vary.
    """

    first: int
    second: int
    way: str
    floor: float
    capabilities: tuple[Capability, ...]
    rank_correlation: float


def foresee(objective: Objective, start: Weights, end: Weights) -> Float[Tensor, " examples"]:
    """1 for each label, but the ignored, that the average is foreseen to give, else 0, from the ends and their slopes.

    Each end's class scores are continued half-way along the straight line by their slope there (a symmetric difference
    over a fiftieth of the way), and the mean of both continuations decides. Exact for a network that is linear in its
    weights; where it is wrong, the network is not linear between the ends, which is what a barrier is.

    Cost: four passes over the data. Works on any module: it needs no derivative of one.
    """
    continued = []
    for here, there in ((start, end), (end, start)):
        forward, backward = (_towards(here, there, step) for step in (STEP, -STEP))
        parts = []
        pairs = zip(objective.outputs(forward), objective.outputs(backward), strict=True)
        for (ahead, targets), (behind, _) in pairs:
            high, low = (class_scores(outputs, targets)[0].double() for outputs in (ahead, behind))
            parts.append(((high + low) / 2 + (high - low) / (4 * STEP)).movedim(1, -1).flatten(0, -2).cpu())
        continued.append(torch.cat(parts))
    labels = objective.targets.flatten().cpu()
    return ((continued[0] + continued[1]).argmax(1) == labels).double()[labels != IGNORED]


def _towards(here: Weights, there: Weights, step: float) -> dict[str, Tensor]:
    """A small step on the line; running statistics and counters stay, for a negative variance is none."""
    moved = {}
    for name, tensor in here.items():
        if not tensor.is_floating_point() or name.endswith(("running_mean", "running_var")):
            moved[name] = tensor
            continue
        wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        moved[name] = wide + step * (there[name].to(wide) - wide)
    return moved


def by_class(targets: Tensor, classes: int) -> dict[str, Bool[Tensor, " examples"]]:
    """Every class with at least one example as a capability."""
    return {str(label): targets == label for label in range(classes) if bool((targets == label).any())}


def capability(
    name: str,
    views: tuple[View, View, View],
    foreseen: Float[Tensor, " foreseen"],
    *,
    floor: float,
    chosen: Bool[Tensor, " examples"] | None = None,
    level: float = 0.95,
) -> Capability:
    """One capability.

    Args:
        name: of the capability.
        views: of both ends and of their average, on the same examples.
        foreseen: right or wrong as foreseen, on the first of these examples; fewer where no more could be afforded.
        floor: accuracy by chance.
        chosen: which examples make up the capability; all by default.
        level: of the interval.
    """
    part = torch.ones(len(views[0].targets), dtype=torch.bool) if chosen is None else chosen
    right = [1.0 - seen.wrong[part] for seen in views]
    one, other = float(right[0].mean()), float(right[1].mean())
    ahead = foreseen[part[: len(foreseen)]]
    expected = float(ahead.mean()) if len(ahead) else float("nan")
    better = max(one, other)
    kept = kept_share(right[2], right[0] if one >= other else right[1], floor=floor, level=level)
    foreseen_kept = (expected - floor) / (better - floor) if better > floor else float("nan")
    return Capability(name, int(part.sum()), one, other, float(right[2].mean()), kept, expected, foreseen_kept)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN with fewer than four pairs or where one side does not vary."""
    known = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return math.nan if len(known) < 4 else spearman(*zip(*known, strict=True))
