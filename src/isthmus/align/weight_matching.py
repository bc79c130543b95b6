"""Weight matching: the permutation under which two solutions' weights are most alike."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import torch

from isthmus.align import starts
from isthmus.align.ascent import Ascent
from isthmus.align.bound import upper_bound
from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, finished, settings_of
from isthmus.core.canonical import unit_scale
from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights

Kernel = Literal["linear", "cosine"]
_SMALL = 1_000_000
"""Counted entries up to which the best of two starts is taken: beyond, the annealed one takes longer than the rest."""
_ENOUGH = 0.999
"""The share of the upper bound at which no other start is tried, as at a planted permutation."""
Start = Literal["best", "anchored", "identity", "random", "frank_wolfe", "sinkhorn"]


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
        start: ``best``: ``anchored``, and for networks of up to a million counted entries also ``sinkhorn``, whichever
            ends higher (one start alone where one assignment a group is the optimum). ``anchored``: groups are first
            solved one after the other from what inputs and outputs hold in place; ``identity``: from where the units
            are; ``random``; ``frank_wolfe`` and ``sinkhorn``: from a relaxation to doubly stochastic matrices that
            treats all groups at once, climbed by Frank and Wolfe's method or by annealed Sinkhorn steps.
        restarts: further ascents from random permutations; the best is kept. None is made once 99.9 % of the upper
            bound is reached.
        sweeps: the most passes over all groups in one ascent.
        tolerance: a pass that raises the objective by no more than this share of it ends the ascent; 0 goes on until no
            group moves, for the last per mille at several times the cost.
        scale: ``unit``: compare the solutions after giving every unit with a free positive scale incoming weights of
            length one (needs a symmetry with scale groups); the permutation is for the solutions as they are.

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
    start: Start = "best"
    restarts: int = 0
    sweeps: int = 100
    tolerance: float = 2e-4
    scale: Literal["as_is", "unit"] = "as_is"

    def __post_init__(self) -> None:
        if self.kernel not in ("linear", "cosine"):
            raise SettingError(f"kernel must be linear or cosine, got {self.kernel}")
        if self.scale not in ("as_is", "unit"):
            raise SettingError(f"scale must be as_is or unit, got {self.scale}")
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
            progress: told of every tree of groups that was solved.

        Raises:
            SymmetryError: the weights are not of this architecture.
            WeightsError: NaN or infinities.
            SettingError: unit scale is asked for, and the symmetry has no scale groups.

        Cost: for each sweep, one matrix product of units × units × features and one assignment for each group that may
        still move; memory for one more copy of the moving solution in single precision.
        """
        symmetry.check(moving)
        symmetry.check(fixed)
        if self.scale == "unit":
            if not any(group.kind == "scale" for group in symmetry.groups):
                raise SettingError(
                    'scale="unit" needs groups of the kind scale in the symmetry, got none: discover them'
                )
            moving, fixed = unit_scale(symmetry, moving), unit_scale(symmetry, fixed)
        landscape = Landscape.of(symmetry, moving, fixed, kernel=self.kernel, biases=self.biases)
        bound = upper_bound(landscape)
        ascents: list[Ascent] = []
        for kind in self._starts(landscape):
            ascent = _begun(landscape, kind, generator, progress)
            ascent.climb(sweeps=self.sweeps, tolerance=self.tolerance, progress=progress)
            ascents.append(ascent)
            if landscape.separable or ascent.history[-1] >= _ENOUGH * bound > 0:
                break
        return finished(
            landscape,
            ascents,
            bound=bound,
            measure=f"{self.kernel} similarity of weights",
            method="weight matching",
            settings=settings_of(self),
        )

    def _starts(self, landscape: Landscape) -> list[str]:
        """The starts that are tried, in order."""
        first = [self.start]
        if self.start == "best":
            entries = sum(math.prod(landscape.symmetry.tensors[name]) for name in landscape.names)
            first = ["anchored", "sinkhorn"] if entries <= _SMALL else ["anchored"]
        return [*first, *["random"] * self.restarts]


def _begun(landscape: Landscape, kind: str, generator: torch.Generator, progress: Progress) -> Ascent:
    """An ascent at one kind of start."""
    if kind == "anchored":
        return starts.anchored(landscape, generator=generator, progress=progress)
    if kind in ("frank_wolfe", "sinkhorn"):
        start = starts.relaxed(landscape, annealed=kind == "sinkhorn")
    else:
        start = landscape.symmetry.random(generator) if kind == "random" else landscape.symmetry.identity()
    return Ascent.at(landscape, start, generator=generator)
