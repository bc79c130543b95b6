"""What a walk through weight space saw, and the form that every walker has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.weights import Weights

Refresh = Callable[[Weights], Weights]


@dataclasses.dataclass(frozen=True)
class Walk(Record):
    """What walkers saw on their way; step 0 is the start.

    Attributes:
        method: the walker's name.
        settings: the walker's settings.
        steps: the steps at which the walkers looked, evenly spaced from 0.
        loss: mean loss where each walker was.
        metrics: the objective's further means, such as ``error``.
        overlap: cosine to the start over the trainable tensors, in [−1, 1].
        distance: Euclidean distance from the start over the trainable tensors.
        acceptance: for each walker, the share of its proposals that it took (1 for walkers that take all).
        extras: what only this walker measures, by name.
        status: ``DIVERGED`` if the loss of any walker was not finite at some step.
        notes: what a reader has to know to trust the numbers.
        kept: step → stacked weights of all walkers at that step, for the steps that were asked for.
    """

    method: str
    settings: Mapping[str, Any]
    steps: Int[Tensor, " looks"]
    loss: Float[Tensor, "walkers looks"]
    metrics: Mapping[str, Float[Tensor, "walkers looks"]]
    overlap: Float[Tensor, "walkers looks"]
    distance: Float[Tensor, "walkers looks"]
    acceptance: Float[Tensor, " walkers"]
    extras: Mapping[str, Float[Tensor, "walkers looks"]]
    status: Status
    notes: tuple[str, ...]
    kept: Mapping[int, Weights] = dataclasses.field(repr=False, metadata={"record": False})

    @property
    def walkers(self) -> int:
        """How many walked."""
        return len(self.loss)

    @property
    def error(self) -> Float[Tensor, "walkers looks"]:
        """1 − accuracy."""
        return self.metrics["error"]

    @property
    def every(self) -> int:
        """Steps between two looks."""
        return int(self.steps[1] - self.steps[0]) if len(self.steps) > 1 else 1

    @property
    def diverged(self) -> tuple[int, ...]:
        """The walkers whose loss was not finite at some step."""
        return tuple((~torch.isfinite(self.loss).all(1)).nonzero().flatten().tolist())


class Walker(Protocol):
    """A value that holds its settings; calling it walks."""

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
        progress: Progress = ...,
    ) -> Walk:
        """Walk from ``start``.

        Args:
            objective: what is measured, and for some walkers the landscape's height.
            start: where every walker begins; never written to. Trainable tensors move, buffers stay.
            steps: how many steps each walker takes.
            generator: gives every walker a stream of its own, so that a walker's way does not depend on how many others
                there are.
            walkers: how many; together where that is faster.
            every: steps between two looks.
            keep: steps whose weights are kept.
            refresh: makes weights fit to be evaluated after they moved, such as estimating BatchNorm statistics anew.
            progress: hears of the steps done by all walkers.
        """
        ...


def check_walk(*, steps: int, walkers: int, every: int, keep: Sequence[int]) -> None:
    """Refuse settings that no walk can have.

    Raises:
        SettingError: names the setting.
    """
    if steps < 1:
        raise SettingError(f"steps must be at least 1, got {steps}")
    if walkers < 1:
        raise SettingError(f"walkers must be at least 1, got {walkers}")
    if not 1 <= every <= steps:
        raise SettingError(f"every must lie in 1 … {steps} (the steps), got {every}")
    if outside := [step for step in keep if not 0 <= step <= steps]:
        raise SettingError(f"kept steps must lie in 0 … {steps}, got {outside[0]}")
