"""What one network says of every example, and intervals that follow from it: the unit here is the example.

Two checkpoints are all that a check may have, so an interval over networks is out of reach; how far the *examples*
allow a number to be trusted is not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.connect import Line, expected_calibration_error
from isthmus.connect.layers import Inputs
from isthmus.connect.treatment import Policy, treatment
from isthmus.core.losses import class_scores, counted
from isthmus.core.objective import Objective
from isthmus.core.record import Record
from isthmus.core.statistics import Interval
from isthmus.core.weights import Weights
from isthmus.studies.check.intervals import above_ends, height, height_of_errors, mean, share


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One network on every example.

    Attributes:
        loss: of each example, in the objective's unit.
        predicted: the most likely class.
        targets: the labels.
        calibration: expected calibration error.
        seconds: that the pass over the examples took.
        probabilities: of all classes, where they were asked for.
    """

    loss: Float[Tensor, " examples"]
    predicted: Int[Tensor, " examples"]
    targets: Int[Tensor, " examples"]
    calibration: float
    seconds: float
    probabilities: Float[Tensor, "examples classes"] | None = None

    @property
    def wrong(self) -> Float[Tensor, " examples"]:
        """1 where the most likely class is wrong."""
        return (self.predicted != self.targets).double()

    def first(self, examples: int) -> View:
        """The same view of the first examples only (its calibration stays that of all)."""
        kept = None if self.probabilities is None else self.probabilities[:examples]
        return View(
            self.loss[:examples], self.predicted[:examples], self.targets[:examples], self.calibration, self.seconds,
            kept,
        )  # fmt: skip


def view(objective: Objective, weights: Weights, *, keep: bool = False) -> View:
    """Look at every example once; ``keep`` holds on to the class probabilities (examples × classes numbers).

    Raises:
        WeightsError: the network is no classifier.
    """
    began = time.perf_counter()
    losses, chosen, labels, kept = [], [], [], []
    for outputs, targets in objective.outputs(weights):
        scores, wanted = class_scores(outputs, targets)
        wanted = wanted.to(scores.device)
        values = objective.loss(outputs, wanted)
        counts = counted(values, wanted).flatten().cpu() if values.shape == wanted.shape else slice(None)
        losses.append(values.double().flatten().cpu()[counts])
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1).movedim(1, -1).flatten(0, -2)
        chosen.append(wide.argmax(1).cpu()[counts])
        labels.append(wanted.flatten().cpu()[counts])
        kept.append(wide.cpu()[counts])
    probabilities, known = torch.cat(kept), torch.cat(labels)
    calibration = expected_calibration_error(probabilities, known)
    seconds = time.perf_counter() - began
    return View(
        torch.cat(losses), torch.cat(chosen), known, calibration, seconds, probabilities if keep else None
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Crossing(Record):
    """The straight way between two solutions in one manner, with intervals over examples.

    Attributes:
        first: place of the start among the solutions.
        second: place of the end.
        way: ``naive``, ``weights``, ``activations`` or ``repair``.
        positions: on the way, from 0 to 1.
        loss: at each.
        error: at each.
        loss_barrier: above the line between the ends' losses.
        error_barrier: above the line between the ends' errors.
        midpoint: error half-way less the mean of the ends' errors; negative where the average is better.
        accuracy: of the average of the two.
        calibration: expected calibration error of the average.
        agreement: share of examples on which the average gives the class that the ends give, mean over both ends.
        examples: that this was measured on.
        seconds: to make the average: matching, permuting and statistics, measured here.
    """

    first: int
    second: int
    way: str
    positions: Float[Tensor, " points"]
    loss: Float[Tensor, " points"]
    error: Float[Tensor, " points"]
    loss_barrier: Interval
    error_barrier: Interval
    midpoint: Interval
    accuracy: float
    calibration: float
    agreement: float
    examples: int
    seconds: float


def cross(
    pair: tuple[int, int],
    ends: tuple[Weights, Weights],
    views: tuple[View, View],
    objective: Objective,
    *,
    way: str,
    inputs: Inputs,
    positions: Sequence[float],
    generator: torch.Generator,
    policy: Policy = "reestimate",
    level: float = 0.95,
    before: float = 0.0,
) -> tuple[Crossing, View, Weights]:
    """Walk the line between two solutions; gives the account, the view of their average and its weights.

    Args:
        pair: places of the two among the solutions.
        ends: weights, the second one as it shall meet the first.
        views: of both ends on the objective's examples.
        objective: what is measured.
        way: what this manner is called.
        inputs: training inputs for running statistics and repair.
        positions: from 0 to 1, with ½ among them.
        generator: draws the examples anew.
        policy: for what lies between, see :func:`isthmus.connect.barrier`.
        level: of the intervals.
        before: seconds already spent on aligning this pair.

    Cost: a pass over the objective's data and one over ``inputs`` for each inner position.
    """
    began = time.perf_counter()
    treat = treatment(objective.network, ends, policy=policy, inputs=inputs, batch_size=objective.batch_size)
    ready = time.perf_counter() - began
    line, seen, made = Line(*ends), {0.0: views[0], 1.0: views[1]}, 0.0
    average: Weights = {}
    for t in positions:
        if t not in seen:
            began = time.perf_counter()
            weights = treat(line(t), t)
            if t == 0.5:
                made, average = time.perf_counter() - began, weights
            seen[t] = view(objective, weights)
    middle = seen[0.5]
    loss = torch.stack([seen[t].loss for t in positions])
    wrong = torch.stack([seen[t].wrong for t in positions])
    t = torch.tensor(positions, dtype=torch.float64)
    agreed = [float((middle.predicted == end.predicted).double().mean()) for end in views]
    crossing = Crossing(
        *pair,
        way=way,
        positions=t,
        loss=loss.mean(1),
        error=wrong.mean(1),
        loss_barrier=height(above_ends(loss, t), generator=generator, level=level),
        error_barrier=height_of_errors(loss, wrong, t, generator=generator, level=level),
        midpoint=mean(above_ends(wrong, t)[list(positions).index(0.5)], level=level),
        accuracy=1.0 - float(middle.wrong.mean()),
        calibration=middle.calibration,
        agreement=sum(agreed) / 2,
        examples=loss.shape[1],
        seconds=before + ready + made,
    )
    return crossing, middle, average


def accuracy(seen: View, *, level: float = 0.95) -> Interval:
    """The share of right answers with :func:`share`'s interval."""
    return share(1.0 - seen.wrong, level=level)


def preference(one: View, other: View, *, generator: torch.Generator, draws: int = 1000) -> float:
    """Share of resampled data on which the first errs less; ties count half.

    Only examples that one of the two gets wrong alone can decide, so it is they who are drawn: how many of the
    differing examples a resample holds for each side is a pair of Poisson numbers, up to 1/examples.
    """
    better = float((other.wrong > one.wrong).sum())
    worse = float((one.wrong > other.wrong).sum())
    drawn = torch.poisson(torch.tensor([[better, worse]]).expand(draws, 2), generator=generator)
    ahead, behind = drawn.unbind(1)
    return float((ahead > behind).double().mean() + (ahead == behind).double().mean() / 2)
