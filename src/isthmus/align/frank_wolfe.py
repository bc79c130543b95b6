"""Frank and Wolfe's method: all groups climb together among doubly stochastic matrices, and are rounded at the end."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from isthmus.align.ascent import Ascent
from isthmus.align.bound import upper_bound
from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, finished, settings_of
from isthmus.align.relaxation import relaxed
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True)
class FrankWolfe:
    """Relax all permutations to doubly stochastic matrices, climb there, round, and finish by coordinate ascent.

    All groups move together, so that a residual stream and what hangs on it can go where neither would go alone.

    Attributes:
        start: ``barycentre``: all units mixed alike, no permutation favoured; ``identity``.
        iterations: the most steps; each is one gradient and one assignment for each group.
        tolerance: a step that raises the objective by no more than this share ends the climb.
        biases: whether one-dimensional tensors count.

    Reference: Crisostomi et al., "C²M³", arXiv 2405.17897, section 3, here with an exact gradient for any symmetry
    and the barycentre as a start.
    """

    start: Literal["barycentre", "identity"] = "barycentre"
    iterations: int = 50
    tolerance: float = 1e-4
    biases: bool = True

    def __post_init__(self) -> None:
        if self.start not in ("barycentre", "identity"):
            raise SettingError(f"start must be barycentre or identity, got {self.start}")
        if self.iterations < 1 or self.tolerance < 0:
            given = f"{self.iterations} and {self.tolerance}"
            raise SettingError(f"iterations must be ≥ 1 and tolerance ≥ 0, got {given}")

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

        Cost: for each iteration, soft matrices times weights forward and backward, some 20 more forward for the step
        length, and one assignment a group.
        """
        landscape = Landscape.of(symmetry, moving, fixed, biases=self.biases)
        start = relaxed(
            landscape, start=self.start, iterations=self.iterations, tolerance=self.tolerance, progress=progress
        )
        ascent = Ascent.at(landscape, start, generator=generator)
        ascent.climb(sweeps=100)
        return finished(
            landscape,
            [ascent],
            bound=upper_bound(landscape),
            measure="linear similarity of weights",
            method="Frank–Wolfe",
            settings=settings_of(self),
        )
