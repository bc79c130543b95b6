"""Where an ascent begins. A start decides which hill is climbed, more than the climbing does."""

from __future__ import annotations

import math

import torch

from isthmus.align import relaxation
from isthmus.align.ascent import Ascent
from isthmus.align.landscape import Landscape
from isthmus.align.trees import Tree, solve
from isthmus.core.symmetry import Permutation, Site


def anchored(landscape: Landscape, *, generator: torch.Generator) -> Permutation:
    """Solve every tree once, those first that are held by what does not move, such as inputs and outputs.

    A residual stream is written by many layers, and all that they say is noise until their other sides are in order.
    What the embedding and the head say is not: their far sides are the network's inputs and outputs, which nothing
    permutes. So the stream is solved from those alone, then what hangs on it, and so on inwards. A tree that nothing
    holds yet is solved from what no permutation of the others changes: the length and the sum of its units' weights.

    Args:
        landscape: the two solutions.
        generator: for the order in the ascent that follows; not drawn from here.
    """
    ascent = Ascent.at(landscape, landscape.symmetry.identity(), generator=generator)
    known: set[str] = set()
    waiting = list(landscape.trees)
    while waiting:
        evidence = {tree.name: _evidence(landscape, tree, known) for tree in waiting}
        tree = max(waiting, key=lambda candidate: evidence[candidate.name])
        waiting.remove(tree)
        usable = {s.tensor for g in tree.members for s in g.sites if _is_usable(landscape, tree, s, known)}
        if evidence[tree.name] > 0:
            similarity = landscape.similarity(ascent.current, usable=lambda site, kept=usable: site.tensor in kept)
        else:
            similarity = landscape.similarity(ascent.current, invariant=True)
        indices = solve(landscape.symmetry, tree, similarity)
        if indices:
            ascent.take(tree, indices)
        known.add(tree.name)
    return ascent.permutation


def relaxed(landscape: Landscape, *, annealed: bool) -> Permutation:
    """All groups at once, from no permutation in particular: by annealed Sinkhorn steps or by Frank and Wolfe's."""
    if annealed:
        return relaxation.annealed(landscape)
    return relaxation.relaxed(landscape, start="barycentre", iterations=50, tolerance=1e-4)


def _evidence(landscape: Landscape, tree: Tree, known: set[str]) -> float:
    """How many numbers speak for each unit of a tree once the known trees are in place."""
    total = 0.0
    for group in tree.members:
        for site in group.sites:
            if _is_usable(landscape, tree, site, known):
                length = landscape.symmetry.tensors[site.tensor][site.dim]
                total += (
                    math.prod(landscape.symmetry.tensors[site.tensor])
                    / length
                    * site.index.shape[1]
                    / len(tree.members)
                )
    return total


def _is_usable(landscape: Landscape, tree: Tree, site: Site, known: set[str]) -> bool:
    """Whether a tensor is moved by nothing but the tree itself, along one axis, and by trees that are in place."""
    if site.tensor not in landscape.touching:
        return False
    own = {group.name for group in tree.members}
    roots = {landscape.root[group.name] for group in landscape.touching[site.tensor]} - {tree.name}
    axes = {s.dim for g in landscape.touching[site.tensor] if g.name in own for s in g.sites if s.tensor == site.tensor}
    return roots <= known and len(axes) == 1
