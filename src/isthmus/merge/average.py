"""Averages of solutions: mean, weighted mean, soups and the great-circle midpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.score import Score
from isthmus.core.weights import Weights
from isthmus.merge.fitting import running_statistic
from isthmus.merge.kernels import arc
from isthmus.merge.merger import average, check_share, check_solutions, check_weights, merge_tensors, tied, weighted_sum


@dataclasses.dataclass(frozen=True)
class Mean:
    """The plain average.

    Reference: Utans, "Weight averaging for neural networks and local resampling schemes" (1996).

    Example:
        >>> Mean()([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}])["w"]
        tensor([2.])
    """

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        return Weighted()(solutions)


@dataclasses.dataclass(frozen=True)
class Weighted:
    """Σ wᵢ·solutionᵢ, divided by Σ wᵢ unless told otherwise.

    Attributes:
        weights: one for each solution; all equal by default.
        normalise: divide by their sum.

    Reference: McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (2017), the
        server step of Algorithm 1, where wᵢ is the number of examples behind solution i.
    """

    weights: tuple[float, ...] | None = None
    normalise: bool = True

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        check_solutions(solutions)
        shares = check_weights(self.weights, solutions, normalised=self.normalise)
        combined = average if self.normalise else weighted_sum
        return merge_tensors(solutions, lambda _, tensors: combined(tensors, shares))


@dataclasses.dataclass(frozen=True)
class UniformSoup:
    """The average of all fine-tuned solutions of one pre-trained network.

    Reference: Wortsman et al., "Model soups" (2203.05482), recipe "uniform soup".
    """

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        return Weighted()(solutions)


@dataclasses.dataclass(frozen=True, eq=False)
class GreedySoup:
    """Average only those solutions that do not make the average worse on held-out data.

    Solutions are tried from the best to the worst. Held-out data must not be those that the result is reported on.

    Attributes:
        objective: weights → score on held-out data.
        by: which number counts; smaller is better.

    Reference: Wortsman et al., "Model soups" (2203.05482), recipe "greedy soup".

    Cost: twice as many evaluations as solutions.
    """

    objective: Callable[[Weights], Score]
    by: str = "error"

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        return Weighted()([solutions[place] for place in self.choose(solutions)])

    def choose(self, solutions: Sequence[Weights]) -> tuple[int, ...]:
        """Which solutions the soup holds, in the order in which they were taken.

        Raises:
            WeightsError: no solutions, or they do not fit together.
            SettingError: ``by`` is no measure of the objective.
        """
        check_solutions(solutions)
        alone = [self._score(weights) for weights in solutions]
        order = sorted(range(len(solutions)), key=lambda place: alone[place])
        taken, best = [order[0]], alone[order[0]]
        for place in order[1:]:
            score = self._score(_quiet_mean([solutions[other] for other in [*taken, place]]))
            if score <= best:
                taken, best = [*taken, place], score
        return tuple(taken)

    def _score(self, weights: Weights) -> float:
        score = self.objective(weights)
        if self.by == "loss":
            return score.loss
        if self.by not in score.metrics:
            raise SettingError(f"by must be loss or one of {', '.join(score.metrics)}, got {self.by}")
        return score.metrics[self.by]


@dataclasses.dataclass(frozen=True)
class SLERP:
    """The point at ``t`` on the great circle from the first solution to the second.

    Attributes:
        t: 0 is exactly the first, 1 exactly the second.
        scope: one angle for each ``tensor`` (as merging tools do it) or one for the whole ``model``.

    Running statistics are no directions: they count in no angle and are interpolated linearly.

    Reference: Shoemake, "Animating rotation with quaternion curves" (1985). Nearly parallel ends (cosine above .9995)
        are interpolated linearly; lengths are not normalised first, so both ends are met.
    """

    t: float = 0.5
    scope: Literal["tensor", "model"] = "tensor"

    def __post_init__(self) -> None:
        check_share("t", self.t, zero=True)
        if self.scope not in ("tensor", "model"):
            raise SettingError(f"scope must be tensor or model, got {self.scope}")

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge.

        Raises:
            WeightsError: not exactly two solutions.
        """
        check_solutions(solutions)
        if len(solutions) != 2:
            raise WeightsError(f"SLERP merges exactly two solutions, got {len(solutions)}; use Mean for more")
        whole = None
        if self.scope == "model":
            twice = tied(*solutions)
            parts = [
                _products(first, solutions[1][name].to(first.device))
                for name, first in solutions[0].items()
                if first.is_floating_point() and not running_statistic(name) and name not in twice
            ]
            whole = arc(self.t, *(math.fsum(column) for column in zip(*parts, strict=True)))

        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            straight = (1 - self.t, self.t) if running_statistic(name) else None
            start, end = straight or whole or arc(self.t, *_products(*tensors))
            return tensors[0] * start + tensors[1] * end

        return merge_tensors(solutions, rule)


def _products(start: Tensor, end: Tensor) -> tuple[float, float, float]:
    """Squared lengths of both and their inner product."""
    kind = torch.float32 if start.device.type == "mps" else torch.float64
    a, b = start.flatten().to(kind), end.flatten().to(kind)
    return float(torch.dot(a, a)), float(torch.dot(b, b)), float(torch.dot(a, b))


def _quiet_mean(solutions: Sequence[Weights]) -> dict[str, Tensor]:
    """A trial average: the warning about running statistics is left to the result."""
    import warnings

    from isthmus.merge.merger import BatchStatisticsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BatchStatisticsWarning)
        return Weighted()(solutions)
