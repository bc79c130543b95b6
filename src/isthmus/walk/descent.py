"""Descent without noise: the minimum below a place."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights, norm
from isthmus.walk.walk import Refresh

_LEAST_RATE = 1e-10  # below it nothing in float32 moves


@dataclasses.dataclass(frozen=True)
class Descent:
    """Full gradients, each followed as far as the loss falls enough; the loss never rises.

    The rate doubles after every step that was taken and halves until the loss falls by a tenth of what the slope
    promises (Armijo's rule). No step is longer than a share of the start's length: a long step that lowers the loss may
    land in another basin. Nothing is drawn at random, so one place always leads to one minimum.

    Attributes:
        objective: whose loss is descended, in evaluation mode.
        steps: gradients at most.
        rate: of the first step.
        reach: the longest step, as a share of the length of the trainable tensors at the start.
        tolerance: the descent ends where a step lowers the loss by less than this share of it.
        refresh: makes weights fit to be evaluated, such as estimating BatchNorm statistics anew.

    Example:
        >>> import torch
        >>> from isthmus.core.network import Network
        >>> network = Network.of(torch.nn.Linear(2, 2))
        >>> objective = Objective(network, torch.randn(8, 2), torch.arange(8) % 2)
        >>> below = Descent(objective, steps=20)(network.weights)
        >>> objective(below).loss <= objective(network.weights).loss
        True
    """

    objective: Objective
    steps: int = 100
    rate: float = 0.1
    reach: float = 0.02
    tolerance: float = 1e-5
    refresh: Refresh | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rate > 0 or not self.reach > 0:
            given = f"{self.steps}, {self.rate} and {self.reach}"
            raise SettingError(f"steps must be at least 1, rate and reach positive, got {given}")

    def __call__(self, weights: Weights) -> dict[str, Tensor]:
        """The weights at the end of the descent. Cost: a gradient and one or two evaluations for each step."""
        return self.settle(weights)[0]

    def settle(self, weights: Weights) -> tuple[dict[str, Tensor], bool]:
        """The weights at the end, and whether the loss had stopped falling there.

        It had where the last step lowered it by less than ``tolerance`` of the loss that the descent began with (not of
        the present one, which may fall to 0 without end); else what lies below the place is still open.
        """
        first, fell = 0.0, 0.0
        here, rate = self._fit(weights), self.rate
        longest = self.reach * norm(here, tensors=self.objective.network.parameter_names)
        for step in range(self.steps):
            score, gradient = self.objective.gradient(here)
            first = first if step else abs(score.loss)
            slope = sum(float(part.double().square().sum()) for part in gradient.values())
            there, loss = here, score.loss
            rate = min(rate, longest / slope**0.5) if slope > 0 and longest > 0 else rate
            while rate > _LEAST_RATE:
                there = self._fit({n: t - rate * gradient[n] if n in gradient else t for n, t in here.items()})
                loss = self.objective(there).loss
                if loss <= score.loss - 0.1 * rate * slope:
                    break
                rate /= 2
            if not loss < score.loss:
                return here, True
            here, rate, fell = there, 2 * rate, score.loss - loss
            if fell < self.tolerance * abs(score.loss):
                break
        return here, fell <= self.tolerance * first

    def _fit(self, weights: Weights) -> dict[str, Tensor]:
        return dict(weights if self.refresh is None else self.refresh(weights))
