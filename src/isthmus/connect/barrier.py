"""Loss and error along a path between two solutions, and how high they rise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.curve import Curve
from isthmus.connect.grid import above_line, above_mean, grid_of, uncertainty
from isthmus.connect.known import Known
from isthmus.connect.layers import Inputs
from isthmus.connect.measures import Measure, Measures
from isthmus.connect.paths import Path
from isthmus.connect.treatment import Policy, treatment
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.score import Score, Scores
from isthmus.core.status import Status
from isthmus.core.weights import Weights

CONVENTIONS = (
    "loss_barrier",
    "loss_barrier_over_mean",
    "error_barrier",
    "error_barrier_over_mean",
    "midpoint",
    "midpoint_error",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Barrier(Record):
    """The curves along a path and their heights in every convention in use.

    With L the mean loss at t and L₀, L₁ its values at the ends, over the grid's positions:

    Attributes:
        positions: from 0 to 1.
        loss: mean loss at each position; the two ends with their own weights and their own statistics.
        metrics: further curves, such as ``error`` (1 − accuracy).
        middle: the score at t = ½, also where the grid has no such point.
        normalisation: the policy for running statistics between the ends.
        treated: the layers that the policy changed.
        treated_ends: what the ends score when they are treated as the points between them; ``None`` if nothing is
            treated.
        path: the kind of path.
        dtype: the precision in which the points were evaluated.
        examples: how many values each mean is over.
        uncertainty: how much higher ``loss_barrier`` may be between the grid's points, estimated from the curve's
            second differences (see :func:`barrier`).
        status: whether an adaptive grid met its bound; ``None`` for a fixed grid.
        loss_barrier: max L − ((1−t)L₀ + tL₁), the default convention (Entezari et al., arXiv 2110.06296); never
            negative.
        loss_barrier_over_mean: max L − ½(L₀ + L₁) (Frankle et al., arXiv 1912.05671).
        error_barrier: the first with the error, between 0 and 1; NaN without an error metric.
        error_barrier_over_mean: the second with the error.
        midpoint: L(½) − ½(L₀ + L₁), signed: below zero where the middle is better than the ends.
        midpoint_error: the same with the error.
    """

    positions: Float[Tensor, " points"]
    loss: Float[Tensor, " points"]
    metrics: dict[str, Float[Tensor, " points"]]
    middle: Score
    normalisation: str = "interpolate"
    treated: tuple[str, ...] = ()
    treated_ends: tuple[Score, Score] | None = None
    path: str = "Line"
    dtype: str = "float32"
    examples: int = 0
    status: Status | None = None
    uncertainty: float = dataclasses.field(init=False)
    loss_barrier: float = dataclasses.field(init=False)
    loss_barrier_over_mean: float = dataclasses.field(init=False)
    error_barrier: float = dataclasses.field(init=False)
    error_barrier_over_mean: float = dataclasses.field(init=False)
    midpoint: float = dataclasses.field(init=False)
    midpoint_error: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        error, middle_error = self.metrics.get("error"), self.middle.metrics.get("error", math.nan)
        heights = {
            "uncertainty": uncertainty(self.positions, self.loss),
            "loss_barrier": float(above_line(self.positions, self.loss).max()),
            "loss_barrier_over_mean": float(above_mean(self.loss).max()),
            "error_barrier": math.nan if error is None else float(above_line(self.positions, error).max()),
            "error_barrier_over_mean": math.nan if error is None else float(above_mean(error).max()),
            "midpoint": self.middle.loss - float(self.loss[0] + self.loss[-1]) / 2,
            "midpoint_error": math.nan if error is None else middle_error - float(error[0] + error[-1]) / 2,
        }
        for name, value in heights.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, scores: Mapping[float, Score], grid: Sequence[float], **more: Any) -> Barrier:
        """The barrier whose curve has these scores; there must be one at ½, whether or not the grid holds it."""
        along = Scores.of([scores[t] for t in grid])
        return cls(
            positions=torch.tensor(grid, dtype=torch.float64),
            loss=along.loss,
            metrics=dict(along.metrics),
            middle=scores[0.5],
            examples=along.examples,
            **more,
        )

    @property
    def error(self) -> Float[Tensor, " points"]:
        """1 − accuracy at each position."""
        return self.metrics["error"]

    @property
    def stable(self) -> bool:
        """Whether the error barrier over the mean lies below 2 % (Frankle et al.'s linear mode connectivity)."""
        return self.error_barrier_over_mean < 0.02

    def between_treated_ends(self) -> Barrier:
        """The same barrier when the ends are treated (say, their statistics estimated anew) like every other point."""
        if self.treated_ends is None:
            return self
        loss = self.loss.clone()
        metrics = {name: curve.clone() for name, curve in self.metrics.items()}
        for place, score in zip((0, -1), self.treated_ends, strict=True):
            loss[place] = score.loss
            for name, curve in metrics.items():
                curve[place] = score.metrics[name]
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        return Barrier(**{**given, "loss": loss, "metrics": metrics})


def barrier(
    path: Path,
    objective: Objective,
    *,
    points: int = 25,
    positions: Sequence[float] | None = None,
    adaptive: float | None = None,
    most: int = 200,
    normalisation: Policy = "reestimate",
    inputs: Inputs | None = None,
    layers: Sequence[str] | None = None,
    sequential: bool = False,
    further: Sequence[Measure] = (),
    together: int | None = None,
    known: Known | None = None,
    progress: Progress = silent,
) -> Barrier:
    """Evaluate an objective along a path.

    The ends are evaluated exactly: the path's own corner weights with their own running statistics. Between them,
    running statistics follow the policy; networks without any need none. ``treated_ends`` says what the ends score
    under it.

    The grid's error: between neighbours a distance h apart a curve rises above their chord by at most h²/8 times its
    second derivative. The largest second divided difference nearby, doubled for safety, stands for that derivative; so
    the bound holds for curves whose curvature changes by less than a factor of two between neighbouring points.

    Args:
        path: a :class:`Line`, :class:`Polygon`, :class:`Bezier` or any :class:`Path`.
        objective: what is measured, and on which examples.
        points: size of the even grid, at least 3.
        positions: a grid of your own, from 0 to 1.
        adaptive: add points where the curve bends until the estimated error of the loss barrier is below this many
            units of the loss, or ``most`` points are reached (``status`` says which).
        most: the largest size of an adaptive grid.
        normalisation: ``reestimate`` running statistics over ``inputs`` at every point; ``interpolate`` them with the
            weights; ``repair`` or ``rescale`` hidden preactivations (see :func:`isthmus.connect.repair.repair`).
        inputs: training inputs for the statistics, examples first; needed where there is something to estimate.
        layers: the layers that ``repair`` and ``rescale`` treat; every hidden one by default.
        sequential: estimate statistics layer after layer (exact for any batch size) instead of all in one pass.
        further: more curves among ``calibration``, ``distance`` and ``disagreement`` (to and with both ends): see
            :class:`isthmus.connect.measures.Measures`. For classifiers.
        together: how many points go through the network at once; changes speed and memory, not results. By default
            one on a CPU, where that was measured to be faster, and on a GPU all, fewer where memory runs out.
        known: of solutions at which several paths end, for calls that differ in their path only.
        progress: told after every point.

    Raises:
        SettingError: no path, fewer than three points, a grid that does not run from 0 to 1, or no data for a policy
            that needs it.
        WeightsError: NaN or infinities at an end.

    Cost: one pass over the objective's data for each point, and one or (``sequential``) more over ``inputs`` where
    statistics are estimated. Memory: one more set of weights on a CPU; all points' at once on a GPU, as far as they
    fit.

    Example:
        >>> from isthmus.connect import Line
        >>> from isthmus.core.network import Network
        >>> network = Network.of(torch.nn.Linear(2, 2))
        >>> other = {name: tensor + 1 for name, tensor in network.weights.items()}
        >>> objective = Objective(network, torch.randn(8, 2), torch.randint(2, (8,)))
        >>> barrier(Line(network.weights, other), objective, points=5).loss_barrier >= 0
        True
    """
    if not callable(path):
        raise SettingError(f"path must be a curve such as Line(start, end), got {type(path).__name__}")
    grid = grid_of(points, positions, adaptive)
    ends = (path(0.0), path(1.0))
    for weights, what in zip(ends, ("the start of the path", "the end of the path"), strict=True):
        algebra.check_finite(weights, what=what)
    known = known or Known()
    treat = treatment(
        objective.network,
        ends,
        policy=normalisation,
        inputs=inputs,
        layers=layers,
        batch_size=objective.batch_size,
        sequential=sequential,
        known=known,
    )
    curve = Curve(path, objective, treat, Measures(objective, ends, further), known, together, progress)
    wanted = sorted({*grid, 0.5})
    curve.add(wanted)
    status = None
    if adaptive is not None:
        status = curve.refine(adaptive, most)
        grid = sorted(curve.scores)
    return Barrier.of(
        curve.scores,
        grid,
        normalisation=treat.policy,
        treated=treat.layers,
        treated_ends=curve.treated_ends(),
        path=type(path).__name__,
        dtype=kinds(ends[0]),
        status=status,
    )


def kinds(weights: Weights) -> str:
    """The precisions of floating tensors, in words."""
    found = {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values() if tensor.is_floating_point()}
    return ", ".join(sorted(found))
