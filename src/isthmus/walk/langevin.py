"""A walk downhill with heat."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.weights import Weights
from isthmus.walk.crowd import Advance, Crowd, Trip, wander
from isthmus.walk.ground import Ground
from isthmus.walk.walk import Refresh, Walk


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Gradient steps with Gaussian noise: θ ← θ − rate·∇loss + √(2·rate·temperature)·noise.

    Attributes:
        temperature: in units of the mean loss.
        rate: step size.
        adjusted: proposals are accepted or refused so that exp(−loss / temperature) is sampled exactly; without, the
            law is off by the step size (on a quadratic of curvature λ the variance is T / (λ(1 − rate·λ/2))).

    Reference: Roberts and Tweedie, "Exponential convergence of Langevin distributions" (1996), section 1.4.2 (MALA).
    """

    temperature: float
    rate: float
    adjusted: bool = True

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise SettingError(f"rate must be positive, got {self.rate}")
        if self.temperature < 0 or (self.adjusted and self.temperature == 0):
            raise SettingError(f"temperature must be positive (or 0 with adjusted=False), got {self.temperature}")

    def __call__(
        self,
        objective: Objective,
        start: Weights,
        *,
        steps: int,
        generator: torch.Generator,
        walkers: int = 1,
        every: int = 1,
        keep: Sequence[int] = (),
        refresh: Refresh | None = None,
        progress: Progress = silent,
    ) -> Walk:
        """Walk; see :class:`~isthmus.walk.walk.Walker`. Cost: one gradient of the objective for each step."""
        trip = Trip(steps, generator, walkers, every, keep, refresh, progress)
        return wander(self, self._advance, objective, start, trip)

    def _advance(self, ground: Ground) -> Advance:
        def advance(crowd: Crowd) -> Bool[Tensor, " walkers"]:
            slope, noise = crowd.slopes(), crowd.normal()
            moves = noise.mul_(math.sqrt(2 * self.rate * self.temperature)).sub_(slope, alpha=self.rate)
            places = crowd.places + moves
            scores, gradient = ground.gradients(places, together=crowd.together)
            if not self.adjusted:
                crowd.gradient = gradient
                return crowd.move(places, scores)
            # log of the proposal's density there → here over here → there.
            # |moves − rate·g'|² − |moves + rate·g|² = rate·(g' + g)·(rate·(g' − g) − 2·moves), in one pass.
            turn = torch.sub(gradient, slope).mul_(self.rate).sub_(moves, alpha=2)
            longer = turn.mul_(gradient + slope).sum(1, dtype=torch.float64)
            ratio = (crowd.look().loss - scores.loss).double() / self.temperature
            ratio = ratio - (longer / (4 * self.temperature)).cpu()
            takers = (crowd.uniform().log() < ratio) & torch.isfinite(scores.loss)
            if bool(takers.all()):
                crowd.gradient = gradient
            elif bool(takers.any()):
                crowd.gradient = torch.where(takers.to(places.device)[:, None], gradient, slope)
            return crowd.move_some(takers, places, scores)

        return advance
