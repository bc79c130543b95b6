"""All pairs at once through a common universe, so that every cycle of permutations closes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch

from isthmus.align import soft
from isthmus.align.landscape import Landscape
from isthmus.align.many import ManyMatch, agreement, check_many, polish, to_reference
from isthmus.align.match import settings_of
from isthmus.align.relaxation import Softs, beginning, climb
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True)
class CycleConsistent:
    """All pairs at once through a common universe: P_ij = Pⱼᵀ Pᵢ, so that every cycle composes to the identity.

    Frank–Wolfe over the permutations of all solutions together, then rounding, then coordinate ascent on the same
    objective, one solution after the other.

    Attributes:
        iterations: the most steps of Frank–Wolfe.
        tolerance: relative gain of a step that ends it.
        start: ``reference``: weight matching to the first solution; ``identity``.
        rounds: the most passes of the coordinate ascent.
        biases: whether one-dimensional tensors count.

    Reference: Crisostomi et al., "C²M³", arXiv 2405.17897, equation 6 and algorithm 1.
    """

    iterations: int = 30
    tolerance: float = 1e-4
    start: Literal["reference", "identity"] = "reference"
    rounds: int = 20
    biases: bool = True

    def __post_init__(self) -> None:
        if self.start not in ("reference", "identity"):
            raise SettingError(f"start must be reference or identity, got {self.start}")
        if self.iterations < 0 or self.rounds < 1 or self.tolerance < 0:
            given = f"{self.iterations}, {self.rounds} and {self.tolerance}"
            raise SettingError(f"iterations must be ≥ 0, rounds ≥ 1 and tolerance ≥ 0, got {given}")

    def __call__(
        self,
        symmetry: Symmetry,
        solutions: Sequence[Weights],
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> ManyMatch:
        """Match any number of solutions.

        Cost: for each iteration, soft matrices times weights of every solution, forward and backward, some 20 more
        forward for the step length, and one assignment for each group and solution.
        """
        check_many(solutions)
        matching = WeightMatching(biases=self.biases)
        begin = [symmetry.identity() for _ in solutions]
        if self.start == "reference":
            begin = list(to_reference(symmetry, solutions, matching, generator=generator).permutations)
        relaxed = self._relaxed(symmetry, solutions, begin, progress)
        still = [symmetry.identity() for _ in solutions]
        starts = {"relaxed": relaxed, "start": begin, "identity": still}
        best = max(starts, key=lambda name: agreement(symmetry, solutions, starts[name], biases=self.biases))
        moved = [p.apply(solution) for p, solution in zip(starts[best], solutions, strict=True)]
        finishing = WeightMatching(start="identity", tolerance=0, biases=self.biases)
        steps, history, converged = polish(
            symmetry, moved, finishing, rounds=self.rounds, generator=generator, progress=progress
        )
        return ManyMatch(
            permutations=tuple(step.after(p) for step, p in zip(steps, starts[best], strict=True)),
            objective=history[-1],
            identity_objective=agreement(symmetry, solutions, still, biases=self.biases),
            measure="linear similarity of weights, summed over pairs",
            status=Status.CONVERGED if converged else Status.STOPPED,
            rounds=len(history) - 1,
            history=tuple(history),
            method="cycle-consistent",
            settings=settings_of(self),
        )

    def _relaxed(
        self, symmetry: Symmetry, solutions: Sequence[Weights], begin: Sequence[Permutation], progress: Progress
    ) -> list[Permutation]:
        """Frank–Wolfe from the middle between the start and the barycentre, rounded."""
        landscapes = [Landscape.of(symmetry, s, solutions[0], biases=self.biases) for s in solutions]
        names, stacked = landscapes[0].names, landscapes[0].symmetry
        if not names:
            return list(begin)
        own = [{n: landscape.moving[n] for n in names} for landscape in landscapes]
        like = own[0][names[0]]

        def value(softs: Softs) -> torch.Tensor:
            mixed = [soft.apply(stacked, matrices, weights) for matrices, weights in zip(softs, own, strict=True)]
            total = torch.zeros((), dtype=like.dtype, device=like.device)
            for name in names:
                parts = torch.stack([weights[name] for weights in mixed])
                total = total + (parts.sum(0).square().sum() - parts.square().sum()) / 2
            return total

        centre = beginning(symmetry, like, start="barycentre")
        softs = [{n: (m + centre[n]) / 2 for n, m in soft.hard(p, like).items()} for p in begin]
        entries = sum(tensor.numel() for weights in own for tensor in weights.values())
        end = climb(
            value, softs, iterations=self.iterations, tolerance=self.tolerance, entries=entries, progress=progress
        )
        return [soft.nearest(symmetry, matrices) for matrices in end]
