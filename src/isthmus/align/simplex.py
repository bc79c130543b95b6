"""Permutations for many solutions by the loss inside the simplex that they span."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from isthmus.align.descent import Best
from isthmus.align.many import ManyMatch, check_many, to_reference
from isthmus.align.match import settings_of
from isthmus.align.straight_through import StraightThrough, check_steps, descend
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class SimplexStraightThrough:
    """Straight-through estimation for many: the loss at a random point of the simplex, a new one for every batch.

    The first solution stays; the others start from weight matching to it. The permutations with the smallest loss at
    the plain mean are kept.

    Attributes:
        objective: what is descended; its examples are drawn with replacement.
        steps: gradient steps (Adam).
        rate: their length, as a share of the root mean square of the weights.
        batch_size: examples a step.
        every: steps between evaluations of the current permutations.

    Reference: Ito et al., "Linear mode connectivity between multiple models modulo permutation symmetries", ICML 2025.
    """

    objective: Objective
    steps: int = 100
    rate: float = 0.01
    batch_size: int = 256
    every: int = 10

    def __post_init__(self) -> None:
        check_steps(self.steps, self.rate, self.batch_size, self.every)

    def __call__(
        self,
        symmetry: Symmetry,
        solutions: Sequence[Weights],
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> ManyMatch:
        """Match any number of solutions.

        Cost: for each step one gradient, and one projection for each solution but the first.
        """
        check_many(solutions)
        method = StraightThrough(self.objective, self.steps, self.rate, self.batch_size, self.every)
        best = Best(self.objective, solutions)
        identity = best.offer([symmetry.identity() for _ in solutions])
        starts = to_reference(symmetry, solutions, WeightMatching(), generator=generator).permutations
        best.offer(starts)
        descend(method, symmetry, best, starts, frozen=1, generator=generator, progress=progress)
        return ManyMatch(
            permutations=tuple(best.permutations),
            objective=-best.loss,
            identity_objective=-identity,
            measure="minus the loss at the mean",
            status=Status.CONVERGED,
            rounds=self.steps,
            history=tuple(best.history),
            method="straight-through estimator on the simplex",
            settings=settings_of(self),
        )
