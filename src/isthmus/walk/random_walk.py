"""A walk in random directions that takes every step."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.walk.crowd import Advance, Crowd, Wanderer
from isthmus.walk.ground import Ground, check_sphere


@dataclasses.dataclass(frozen=True)
class RandomWalk(Wanderer):
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
        >>> from isthmus.core.objective import Objective
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

    def _advance(self, ground: Ground) -> Advance:
        check_sphere(ground)

        def advance(crowd: Crowd) -> Tensor:
            moves = ground.filter_normalised(crowd.normal())
            places = torch.add(crowd.places, moves, alpha=self.step)
            return crowd.move(ground.onto_sphere(places) if self.sphere else places)

        return advance
