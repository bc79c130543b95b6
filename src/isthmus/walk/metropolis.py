"""Walks whose proposals are judged by the height of the landscape: Metropolis, and a walk below a level."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.walk.crowd import Advance, Crowd, Wanderer
from isthmus.walk.ground import Ground, check_sphere

Scale = Literal["filter", "even"]
Heights = Float[Tensor, " walkers"]

# Acceptance at which a Gaussian proposal in many dimensions mixes fastest (Roberts, Gelman and Gilks, 1997).
_BEST_ACCEPTANCE = 0.234


@dataclasses.dataclass(frozen=True)
class Proposal(Wanderer):
    """A symmetric Gaussian proposal: from here to there is as likely as from there to here.

    Attributes:
        step: with ``filter`` scale, the expected length of a proposal relative to the start's length; with ``even``,
            the standard deviation of every entry.
        scale: ``filter``: each filter's entries move in proportion to the start's filter, a fixed scale, so the
            proposal stays symmetric (filters that are zero at the start never move); ``even``: all entries alike.
        sphere: proposals are pulled back to the start's distance from the origin; only with ``even``, because the pull
            makes uneven proposals unsymmetric.
        tune: during the first so many steps each walker's step length is adapted towards an acceptance of .234; only
            what comes afterwards samples the stated law.
    """

    step: float = 0.01
    scale: Scale = "filter"
    sphere: bool = False
    tune: int = 0

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise SettingError(f"step must be positive, got {self.step}")
        if self.scale not in ("filter", "even"):
            raise SettingError(f"scale must be filter or even, got {self.scale!r}")
        if self.sphere and self.scale != "even":
            raise SettingError("a walk on the sphere must use scale='even', which keeps proposals symmetric there")
        if self.tune < 0:
            raise SettingError(f"tune must not be negative, got {self.tune}")

    def _taken(self, there: Heights, here: Heights, uniform: Heights) -> Tensor:
        """Which proposals are taken, by the loss there and here and a uniform number for each walker."""
        raise NotImplementedError

    def _advance(self, ground: Ground) -> Advance:
        """One proposal for each walker, taken where ``_taken`` says so."""
        if self.sphere:
            check_sphere(ground)
        scale = ground.filter_scale if self.scale == "filter" else torch.ones((), device=ground.home.device)

        def advance(crowd: Crowd) -> Bool[Tensor, " walkers"]:
            reach, here = crowd.reaches(self.step), crowd.look()
            moves = crowd.normal().mul_(scale).mul_(reach.to(crowd.places)[:, None])
            places = moves.add_(crowd.places)
            if self.sphere:
                ground.onto_sphere(places)
            there = ground.score(places, together=crowd.together)
            takers = self._taken(there.loss.double(), here.loss.double(), crowd.uniform()) & torch.isfinite(there.loss)
            if crowd.step < self.tune:
                gain = (crowd.step + 1) ** -0.6
                crowd.reach = reach * torch.exp(gain * (takers.double() - _BEST_ACCEPTANCE))
            return crowd.move_some(takers, places, there)

        return advance


@dataclasses.dataclass(frozen=True)
class Metropolis(Proposal):
    """Samples weights with probability in proportion to exp(−loss / temperature).

    Attributes:
        temperature: in units of the mean loss; must be given.

    A ReLU network's loss does not change when scale moves from one layer to the next, so without ``sphere`` the law has
    infinite volume and walkers drift outwards; compare overlaps, not distances, or use the sphere.

    Reference: Metropolis et al. (1953).
    """

    temperature: float = math.nan

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise SettingError(f"temperature must be given and positive, got {self.temperature}")

    def _taken(self, there: Heights, here: Heights, uniform: Heights) -> Tensor:
        return uniform.log() < (here - there) / self.temperature


@dataclasses.dataclass(frozen=True)
class LevelSet(Proposal):
    """Wanders evenly over the region where the loss is at most a level: how far does low ground reach?

    Attributes:
        level: the highest loss that is allowed; must be given and not lie below the start's loss.

    Reference: the microcanonical walk of statistical mechanics; the acceptance rule is a Metropolis rule for the
        uniform law on {loss ≤ level}.
    """

    level: float = math.nan

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.isnan(self.level):
            raise SettingError("level must be given: the highest loss that the walkers may reach")

    def _ready(self, crowd: Crowd) -> None:
        if not float(crowd.look().loss[0]) <= self.level:
            loss = float(crowd.look().loss[0])
            raise SettingError(f"level must not lie below the start's loss {loss:.6g}, got {self.level:.6g}")

    def _taken(self, there: Heights, here: Heights, uniform: Heights) -> Tensor:
        return there <= self.level
