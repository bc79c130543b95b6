"""One permutation for two whole trainings: stacked checkpoints are matched as if they were one large network."""

from __future__ import annotations

import dataclasses

import torch

from isthmus.align.match import Match, Matcher
from isthmus.core.errors import WeightsError
from isthmus.core.progress import Progress, silent
from isthmus.core.symmetry import Permutation, Siblings, Site, Symmetry
from isthmus.core.weights import Weights, count


def super_alignment(
    symmetry: Symmetry,
    moving: Weights,
    fixed: Weights,
    matcher: Matcher,
    *,
    generator: torch.Generator,
    progress: Progress = silent,
) -> Match:
    """The permutation that serves all checkpoints of two trainings at once.

    Args:
        symmetry: of one checkpoint.
        moving: stacked checkpoints of the training whose units are permuted: a leading axis of times.
        fixed: those of the other, at the same times.
        matcher: any matcher that looks at weights alone; it maximises the sum over times.
        generator: handed to the matcher.
        progress: handed to the matcher.

    Returns:
        The match, with a permutation of ``symmetry``.

    Raises:
        WeightsError: the trainings have different numbers of checkpoints.

    Reference: Sharma et al., arXiv 2404.06498, section 4 (simultaneous weak linear connectivity).
    """
    times = count({name: moving[name] for name in symmetry.tensors})
    if (other := count({name: fixed[name] for name in symmetry.tensors})) != times:
        raise WeightsError(f"both trainings must have equally many checkpoints, got {times} and {other}")
    wide = stacked_symmetry(symmetry, times, biases=getattr(matcher, "biases", True))
    match = matcher(wide, moving, fixed, generator=generator, progress=progress)
    return dataclasses.replace(match, permutation=Permutation(symmetry, match.permutation.indices))


def stacked_symmetry(symmetry: Symmetry, times: int, *, biases: bool = True) -> Symmetry:
    """The same groups on tensors with a leading axis; without ``biases``, vectors only move along."""

    def moved(site: Site) -> Site:
        vector = len(symmetry.tensors[site.tensor]) == 1
        return dataclasses.replace(
            site,
            dim=site.dim + 1,
            within=tuple((axis + 1, positions) for axis, positions in site.within),
            role="carry" if vector and not biases else site.role,
        )

    def kept(row: Siblings) -> Siblings:
        vector = len(symmetry.tensors[row.tensors[0]]) == 1
        return dataclasses.replace(row, role="carry" if vector and not biases else row.role)

    groups = tuple(
        dataclasses.replace(g, sites=tuple(map(moved, g.sites)), siblings=tuple(map(kept, g.siblings)))
        for g in symmetry.groups
    )
    return Symmetry(groups, {name: (times, *shape) for name, shape in symmetry.tensors.items()})
