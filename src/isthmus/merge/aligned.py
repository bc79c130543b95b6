"""Align many solutions to one of them, then merge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.weights import Weights
from isthmus.merge.merger import Merger, check_solutions

Aligner = Callable[[Weights, Weights], Weights]


@dataclasses.dataclass(frozen=True, eq=False)
class Aligned:
    """Bring every solution to the reference, then merge them all.

    Attributes:
        merger: what merges the aligned solutions.
        aligner: (moving, fixed) → moving, with the same function, as close to fixed as it can be brought.
        reference: the place of the fixed solution.

    Reference: Ainsworth et al., "Git Re-Basin" (2209.04836), where the merger is the mean.
    """

    merger: Merger
    aligner: Aligner
    reference: int = 0

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Align and merge."""
        check_solutions(solutions)
        if not 0 <= self.reference < len(solutions):
            raise SettingError(
                f"reference must be the place of a solution, 0 … {len(solutions) - 1}, got {self.reference}"
            )
        fixed = solutions[self.reference]
        moved = [
            weights if place == self.reference else self.aligner(weights, fixed)
            for place, weights in enumerate(solutions)
        ]
        return self.merger(moved)
