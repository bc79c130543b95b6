"""``assert_connected``: two networks lie in one basin, or a test fails and says by how much they do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from isthmus.connect import Line, barrier
from isthmus.core.errors import IsthmusError, SettingError
from isthmus.core.fitting import fit
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.statistics import Interval
from isthmus.core.weights import Weights, to
from isthmus.discover import discover
from isthmus.studies.check.views import cross, view
from isthmus.studies.matchers import matcher
from isthmus.zoo.data import Data
from isthmus.zoo.data import load as load_data
from isthmus.zoo.models import resolve, weights_of
from isthmus.zoo.text import suited

Align = Literal["none", "weights", "activations"]
Measure = Literal["error_barrier", "loss_barrier"]
Solution = str | Path | nn.Module | Mapping[str, Tensor]
_WAYS = {"none": "as they are", "weights": "after matching weights", "activations": "after matching activations"}


@dataclasses.dataclass(frozen=True, eq=False)
class Connection(Record):
    """What was found on the straight way between two networks.

    Attributes:
        connected: whether the barrier is at most what is allowed.
        measure: ``error_barrier`` (share of wrong answers) or ``loss_barrier`` (in the loss's unit), above the line
            between the ends.
        height: of the barrier, with its interval over examples (NaN ends for a network that is no classifier).
        most: what is allowed.
        midpoint: the measure half-way less the mean of the ends', signed.
        ends: the measure at the two ends.
        highest_at: where on the way, from 0 to 1.
        align: how the second network was permuted first.
        examples: that this was measured on.
    """

    connected: bool
    measure: str
    height: Interval
    most: float
    midpoint: float
    ends: tuple[float, float]
    highest_at: float
    align: str
    examples: int

    def __str__(self) -> str:
        # The height first: a test runner's summary shows no more than the first words.
        word = "connected" if self.connected else "not connected"
        name = self.measure.replace("_", " ")
        return (
            f"{name} {_spread(self.height)}, at most {self.most:g} allowed: {word} {_WAYS[self.align]}; highest at "
            f"t = {self.highest_at:.2f}; midpoint {self.midpoint:+.3g} against the mean of the ends "
            f"({self.ends[0]:.3g} and {self.ends[1]:.3g})"
        )


def assert_connected(
    first: Solution,
    second: Solution,
    *,
    objective: Objective | None = None,
    model: nn.Module | str | None = None,
    data: Data | str | None = None,
    inputs: Tensor | None = None,
    align: Align = "none",
    measure: Measure = "error_barrier",
    most: float = 0.02,
    strict: bool = False,
    points: int = 11,
    seed: int = 0,
) -> Connection:
    """Fail unless two networks are connected by a straight line of low loss.

    Args:
        first: weights, a module or a checkpoint's path.
        second: the other.
        objective: what is measured; or ``model`` and ``data``, from which it is made (cross-entropy on the test split).
        model: a module, or what a command takes as ``--model``.
        data: a data set, or what a command takes as ``--data``.
        inputs: training inputs for running statistics and activations; those of ``data``, else the objective's.
        align: permute the second network to match the first one before: ``weights`` or ``activations``.
        measure: ``error_barrier``, between 0 and 1, or ``loss_barrier``, in the loss's unit.
        most: the barrier that is allowed. The default is the 2 % of Frankle et al. (arXiv 1912.05671).
        strict: the upper end of the 95 % interval over examples must also be at most ``most``.
        points: on the line, at least 3; an even number is raised by one, so that the midpoint is among them.
        seed: of the matching and of the interval.

    Returns:
        What was found, if it is connected.

    Raises:
        AssertionError: they are not; says the barrier with its interval, the midpoint, and whether a permutation helps.
        IsthmusError: something about the input is wrong.

    Cost: ``points`` passes over the examples; for a failure without alignment, as many more.

    Example:
        >>> import torch
        >>> module = torch.nn.Linear(2, 2)
        >>> objective = Objective(Network.of(module), torch.randn(8, 2), torch.randint(2, (8,)))
        >>> assert_connected(module, module, objective=objective).connected
        True
    """
    __tracebackhide__ = True  # a test runner shows the line that asked, not this one
    if points < 3:
        raise SettingError(f"points must be at least 3 to see inside the line, got {points}")
    if not most >= 0:
        raise SettingError(f"most must be at least 0, got {most}")
    case = _case(objective, model, data, inputs)
    ends = (_weights(first, case, "the first network"), _weights(second, case, "the second network"))
    ask = _Question(case, measure, most, strict, points | 1, seed)
    found = ask.answer(ends, align)
    if found.connected:
        return found
    raise AssertionError("\n".join([str(found), *_hint(ask, ends, found)]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    objective: Objective
    inputs: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class _Question:
    """One manner of asking whether two networks are connected."""

    case: _Case
    measure: str
    most: float
    strict: bool
    points: int
    seed: int

    def answer(self, ends: tuple[Weights, Weights], align: str) -> Connection:
        if align not in _WAYS:
            raise SettingError(f"align must be one of {', '.join(_WAYS)}, got {align}")
        if self.measure not in ("error_barrier", "loss_barrier"):
            raise SettingError(f"measure must be error_barrier or loss_barrier, got {self.measure}")
        ends = (ends[0], self._moved(ends, align))
        curve, height = self._curve(ends)
        reach = height.high if self.strict else height.estimate
        above = curve - (1 - self._positions) * curve[0] - self._positions * curve[-1]
        return Connection(
            connected=bool(reach <= self.most),  # NaN is no connection
            measure=self.measure,
            height=height,
            most=self.most,
            midpoint=float(curve[len(curve) // 2] - (curve[0] + curve[-1]) / 2),
            ends=(float(curve[0]), float(curve[-1])),
            highest_at=float(self._positions[above.argmax()]),
            align=align,
            examples=len(self.case.objective.targets),
        )

    def _moved(self, ends: tuple[Weights, Weights], align: str) -> Weights:
        if align == "none":
            return ends[1]
        network = self.case.objective.network
        symmetry = discover(network.modules()[""], self.case.inputs[:2])
        match = matcher(align, network, self.case.inputs)(
            symmetry, ends[1], ends[0], generator=child(self.seed, "alignment")
        )
        return match.permutation.apply(ends[1])

    def _curve(self, ends: tuple[Weights, Weights]) -> tuple[Tensor, Interval]:
        """The measure along the line and the barrier's interval."""
        objective = self.case.objective
        if "error" not in objective.metrics:  # no classifier: a mean loss, and nothing to say of single examples
            if self.measure == "error_barrier":
                raise SettingError("an error_barrier needs an objective with the metric error; ask for loss_barrier")
            found = barrier(Line(*ends), objective, points=self.points, inputs=self.case.inputs)
            return found.loss.double(), Interval(
                found.loss_barrier, float("nan"), float("nan"), 0.95, 2, "none: not a classifier"
            )
        crossing, _, _ = cross(
            (0, 1),
            ends,
            (view(objective, ends[0]), view(objective, ends[1])),
            objective,
            way="straight",
            inputs=self.case.inputs,
            positions=self._positions.tolist(),
            generator=child(self.seed, "examples"),
        )
        curve = crossing.error if self.measure == "error_barrier" else crossing.loss
        return curve, getattr(crossing, self.measure)

    @property
    def _positions(self) -> Tensor:
        import torch

        return torch.linspace(0, 1, self.points, dtype=torch.float64)


def _hint(ask: _Question, ends: tuple[Weights, Weights], found: Connection) -> list[str]:
    """Whether matching would have helped: the difference between a wrong order of units and another basin."""
    lines = [f"{found.examples} examples, {ask.points} points, {found.height.method}"]
    if found.align != "none":
        return lines
    try:
        matched = ask.answer(ends, "weights")
    except IsthmusError as problem:
        return [*lines, f"whether a permutation helps is not known: {problem}"]
    if matched.connected:
        return [*lines, f'a permutation helps: {matched}; ask with align="weights", or permute the second one first']
    return [*lines, f"nor does a permutation connect them: {_spread(matched.height)} after matching weights"]


def _spread(height: Interval) -> str:
    if height.low != height.low:
        return f"{height.estimate:.3g}"
    return f"{height.estimate:.3g} [{height.low:.3g}, {height.high:.3g}]"


def _case(
    objective: Objective | None, model: nn.Module | str | None, data: Data | str | None, inputs: Tensor | None
) -> _Case:
    found = load_data(data) if isinstance(data, str) else data
    if objective is None:
        if model is None or found is None:
            raise SettingError("give an objective, or a model and data to make one from")
        if isinstance(model, str):
            from isthmus.zoo.networks import is_network

            settings = {"inputs": found.shape, "classes": found.classes} if is_network(model) else {}
            model = resolve(model, **settings)
        network = Network.of(model)
        found = suited(found, network)
        objective = Objective(network, found.test_inputs, found.test_targets)
    if inputs is None:
        inputs = found.train_inputs if found is not None else objective.parts[0]
    return _Case(objective, inputs)


def _weights(solution: Solution, case: _Case, what: str) -> Weights:
    if isinstance(solution, nn.Module):
        solution = {name: tensor.detach() for name, tensor in solution.state_dict().items()}
    like = case.objective.network.weights
    found = fit(solution, like, what=what) if isinstance(solution, Mapping) else weights_of(solution, like)
    return to(found, device=next(iter(like.values())).device)
