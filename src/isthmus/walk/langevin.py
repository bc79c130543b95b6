"""A walk downhill with heat."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Bool
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.walk.crowd import Advance, Crowd, Wanderer
from isthmus.walk.ground import Ground
from isthmus.walk.products import with_sum


@dataclasses.dataclass(frozen=True)
class Langevin(Wanderer):
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

    def _advance(self, ground: Ground) -> Advance:
        def advance(crowd: Crowd) -> Bool[Tensor, " walkers"]:
            slope, kick = crowd.slopes(), crowd.normal(math.sqrt(2 * self.rate * self.temperature))
            places = self._proposed(crowd.places, kick, slope)
            scores, gradient = ground.gradients(places, together=crowd.together)
            if not self.adjusted:
                crowd.gradient = gradient
                return crowd.move(places, scores)
            # log of the proposal's density there → here over here → there: the kick back is rate·both − kick, with both
            # the sum of the two slopes, so (|kick|² − |kick back|²) / (4·rate·T) needs two inner products.
            square, along = with_sum(gradient, slope, kick)
            back = self.rate * square - 2 * along
            ratio = (crowd.look().loss - scores.loss).double() - back.cpu() / 4
            ratio = ratio / self.temperature
            takers = (crowd.uniform().log() < ratio) & torch.isfinite(scores.loss)
            if bool(takers.any()):
                stay = (~takers).to(places.device)
                gradient[stay] = slope[stay]
                crowd.gradient = gradient
            return crowd.move_some(takers, places, scores)

        return advance

    def _proposed(self, places: Tensor, kick: Tensor, slope: Tensor) -> Tensor:
        """Where the walkers would go; on a CPU row by row, so that a row is in the cache when it is needed again."""
        if places.device.type != "cpu":
            return torch.add(places, kick).sub_(slope, alpha=self.rate)
        proposed = torch.empty_like(places)
        for new, here, one, down in zip(proposed, places, kick, slope, strict=True):
            torch.add(here, one, out=new).sub_(down, alpha=self.rate)
        return proposed
