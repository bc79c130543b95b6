"""Refinement by swaps: no gradient, no relaxation; exchange two units, keep what lowers the loss in the middle."""

from __future__ import annotations

import dataclasses
import time

import torch

from isthmus.align.descent import loss_over
from isthmus.align.match import Match, Matcher, settings_of
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights, lerp


@dataclasses.dataclass(frozen=True, eq=False)
class SwapRefinement:
    """Start from another matcher's answer and exchange two units of a group as long as the midpoint's loss falls.

    Groups are drawn by their number of pairs, pairs uniformly; a swap that does not lower the loss is undone. The
    objective is evaluated whole each time, so that nothing is kept by chance of a batch: limit its examples.

    Attributes:
        objective: whose loss at the midpoint is lowered.
        start: the matcher that is refined.
        trials: swaps that are tried.
    """

    objective: Objective
    start: Matcher = dataclasses.field(default_factory=WeightMatching, metadata={"settings": True})
    trials: int = 200

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SettingError(f"trials must be at least 1, got {self.trials}")

    def __call__(
        self,
        symmetry: Symmetry,
        moving: Weights,
        fixed: Weights,
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> Match:
        """Match two solutions; arguments as for :class:`WeightMatching`.

        Cost: ``trials`` passes over the objective, beside what the start costs.
        """
        began = time.perf_counter()
        start = self.start(symmetry, moving, fixed, generator=generator).permutation
        identity = self._loss(symmetry.identity(), moving, fixed)
        kept, reached = min(
            [(symmetry.identity(), identity), (start, self._loss(start, moving, fixed))], key=lambda pair: pair[1]
        )
        groups = [group for group in symmetry.permutable if group.size > 1]
        pairs = torch.tensor([group.size * (group.size - 1) / 2 for group in groups], dtype=torch.float64)
        history = [-identity, -reached]
        for trial in range(self.trials if groups else 0):
            group = groups[int(torch.multinomial(pairs, 1, generator=generator))]
            first, second = torch.randperm(group.size, generator=generator)[:2].tolist()
            index = torch.arange(group.size)
            index[[first, second]] = index[[second, first]]
            candidate = Permutation(symmetry, {group.name: index}).after(kept)
            loss = self._loss(candidate, moving, fixed)
            if loss < reached:
                kept, reached = candidate, loss
            history.append(-reached)
            progress(trial + 1, self.trials, "swaps")
        return Match(
            permutation=kept,
            objective=-reached,
            identity_objective=-identity,
            upper_bound=float("nan"),
            measure="minus the loss at the midpoint",
            sweeps=self.trials,
            status=Status.STOPPED,
            unsettled=(),
            history=tuple(history),
            seconds={"all groups": time.perf_counter() - began},
            method="swap refinement",
            settings=settings_of(self),
        )

    def _loss(self, permutation: Permutation, moving: Weights, fixed: Weights) -> float:
        return loss_over(self.objective, lerp(permutation.apply(moving), fixed, 0.5))
