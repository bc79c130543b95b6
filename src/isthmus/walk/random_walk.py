"""A walk in random directions that takes every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.weights import Weights
from isthmus.walk.crowd import Advance, Crowd, Trip, wander
from isthmus.walk.ground import Ground, check_sphere
from isthmus.walk.walk import Refresh, Walk


@dataclasses.dataclass(frozen=True)
class RandomWalk:
    """Steps of filter-normalised random directions, pulled back to the sphere of the start.

    The landscape does not steer this walker; it only looks at it. Each step is as long as ``step`` times the start,
    every filter of the direction being as long as the start's filter times ``step``. Filters that are zero at the start
    (fresh biases) never move.

    Attributes:
        step: length of a step relative to the start's length.
        sphere: whether every step ends at the start's distance from the origin. Off, the weights grow and the loss of
            scale-invariant networks seems to flatten.

    Reference: Liao et al., "Exploring loss landscapes through the lens of spin glass theory" (2024); directions as in
        Li et al. (2018).

    Example:
        >>> import torch
        >>> from isthmus.core.network import Network
        >>> module = torch.nn.Linear(2, 2)
        >>> objective = Objective(Network.of(module), torch.randn(8, 2), torch.arange(8) % 2)
        >>> walk = RandomWalk(step=0.1)(
        ...     objective, module.state_dict(), steps=5, generator=torch.Generator().manual_seed(0), walkers=3
        ... )
        >>> walk.loss.shape
        torch.Size([3, 6])
    """

    step: float = 0.02
    sphere: bool = True

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise SettingError(f"step must be positive, got {self.step}")

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
        """Walk; see :class:`~isthmus.walk.walk.Walker`. Cost: one evaluation of the objective for each look."""
        trip = Trip(steps, generator, walkers, every, keep, refresh, progress)
        return wander(self, self._advance, objective, start, trip)

    def _advance(self, ground: Ground) -> Advance:
        check_sphere(ground)

        def advance(crowd: Crowd) -> Tensor:
            moves = ground.filter_normalised(crowd.normal())
            places = torch.add(crowd.places, moves, alpha=self.step)
            return crowd.move(ground.onto_sphere(places) if self.sphere else places)

        return advance
