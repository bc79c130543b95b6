"""Weight matching: the permutation under which two solutions' weights are most alike."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import torch

from isthmus.align import starts
from isthmus.align.ascent import Ascent
from isthmus.align.bound import upper_bound
from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, finished, settings_of
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights

Kernel = Literal["linear", "cosine"]
Start = Literal["anchored", "identity", "random", "frank_wolfe", "sinkhorn"]


@dataclasses.dataclass(frozen=True)
class WeightMatching:
    """Maximise Σ ⟨π(moving), fixed⟩ by coordinate ascent, one linear assignment for each tree of groups.

    Exact for one hidden layer; a local optimum for more. Any symmetry: groups that share tensors, groups on slices,
    nested groups (heads and the channels in them), groups on both axes of one tensor. Sites with the role ``carry``
    move along and do not count. No half-way result is worse than the identity.

    Attributes:
        kernel: ``linear``: inner products, so that the Euclidean distance becomes smallest. ``cosine``: units are
            scaled to length one first, so that units with small weights have the same say.
        biases: whether one-dimensional tensors count.
        start: ``anchored``: groups are first solved one after the other from what inputs and outputs hold in place;
            ``identity``: from where the units are; ``random``; ``frank_wolfe`` and ``sinkhorn``: from a relaxation to
            doubly stochastic matrices that treats all groups at once, climbed by Frank and Wolfe's method or by
            annealed Sinkhorn steps.
        restarts: further ascents from random permutations; the best is kept.
        sweeps: the most passes over all groups in one ascent.
        tolerance: a pass that raises the objective by no more than this share of it ends the ascent; 0 goes on until no
            group moves, for the last per mille at several times the cost.

    Reference: Ainsworth et al., "Git Re-Basin", arXiv 2209.04836, algorithm 1, with the starts, the order and the
    nested groups as described in :mod:`isthmus.align.starts` and :mod:`isthmus.align.trees`.

    Example:
        >>> from isthmus.core.symmetry import Site, Symmetry, UnitGroup
        >>> index = torch.arange(3).unsqueeze(1)
        >>> hidden = UnitGroup("hidden", 3, (Site("up", 0, index), Site("down", 1, index)))
        >>> symmetry = Symmetry((hidden,), {"up": (3, 2), "down": (1, 3)})
        >>> fixed = {"up": torch.tensor([[1.0, 0], [0, 1], [1, 1]]), "down": torch.tensor([[1.0, 2, 3]])}
        >>> moving = symmetry.random(torch.Generator().manual_seed(0)).apply(fixed)
        >>> match = WeightMatching()(symmetry, moving, fixed, generator=torch.Generator())
        >>> torch.equal(match.permutation.apply(moving)["up"], fixed["up"])
        True
    """

    kernel: Kernel = "linear"
    biases: bool = True
    start: Start = "anchored"
    restarts: int = 0
    sweeps: int = 100
    tolerance: float = 2e-4

    def __post_init__(self) -> None:
        if self.kernel not in ("linear", "cosine"):
            raise SettingError(f"kernel must be linear or cosine, got {self.kernel}")
        if self.start not in (names := get_args(Start)):
            raise SettingError(f"start must be one of {', '.join(names)}, got {self.start}")
        if self.restarts < 0 or self.sweeps < 1 or self.tolerance < 0:
            given = f"{self.restarts}, {self.sweeps} and {self.tolerance}"
            raise SettingError(f"restarts must be ≥ 0, sweeps ≥ 1 and tolerance ≥ 0, got {given}")

    def __call__(
        self,
        symmetry: Symmetry,
        moving: Weights,
        fixed: Weights,
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> Match:
        """Match two solutions.

        Args:
            symmetry: of their architecture.
            moving: the solution whose units are permuted.
            fixed: the one that stays.
            generator: draws the order of the groups and the restarts.
            progress: called after each sweep.

        Raises:
            SymmetryError: the weights are not of this architecture.
            WeightsError: NaN or infinities.

        Cost: for each sweep, one matrix product of units × units × features and one assignment for each group that may
        still move; memory for one more copy of the moving solution in single precision.
        """
        landscape = Landscape.of(symmetry, moving, fixed, kernel=self.kernel, biases=self.biases)
        ascents = []
        for attempt in range(1 + self.restarts):
            ascent = Ascent.at(landscape, self._begin(landscape, attempt, generator), generator=generator)
            ascent.climb(sweeps=self.sweeps, tolerance=self.tolerance, progress=progress)
            ascents.append(ascent)
        return finished(
            landscape,
            ascents,
            bound=upper_bound(landscape),
            measure=f"{self.kernel} similarity of weights",
            method="weight matching",
            settings=settings_of(self),
        )

    def _begin(self, landscape: Landscape, attempt: int, generator: torch.Generator) -> Permutation:
        if attempt > 0 or self.start == "random":
            return landscape.symmetry.random(generator)
        if self.start == "anchored":
            return starts.anchored(landscape, generator=generator)
        if self.start in ("frank_wolfe", "sinkhorn"):
            return starts.relaxed(landscape, annealed=self.start == "sinkhorn")
        return landscape.symmetry.identity()
