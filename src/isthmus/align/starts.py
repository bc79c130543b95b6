"""Where an ascent begins. A start decides which hill is climbed, more than the climbing does."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from isthmus.align import relaxation
from isthmus.align.ascent import Ascent
from isthmus.align.assignment import assign
from isthmus.align.landscape import Landscape
from isthmus.align.trees import Tree, solve
from isthmus.core.progress import Progress, silent
from isthmus.core.symmetry import Permutation, Site


def anchored(landscape: Landscape, *, generator: torch.Generator, progress: Progress = silent) -> Ascent:
    """Solve every tree once, those first that are held by what does not move, such as inputs and outputs.

    A residual stream is written by many layers, and all that they say is noise until their other sides are in order.
    What the embedding and the head say is not: their far sides are the network's inputs and outputs, which nothing
    permutes. So the stream is solved from those alone, then what hangs on it, and so on inwards. A tree that nothing
    holds yet is solved from what no permutation of the others changes: the length and the sum of its units' weights.

    Args:
        landscape: the two solutions.
        generator: for the order in the ascent that follows; not drawn from here.
        progress: told of every tree.

    Returns:
        The ascent to go on with. Trees that all their tensors spoke for are settled, if no neighbour moved since.
    """
    ascent = Ascent.at(landscape, landscape.symmetry.identity(), generator=generator)
    ascent.unsettled = set()
    known: set[str] = set()
    waiting = list(landscape.trees)
    while waiting:
        began = time.perf_counter()
        evidence = {tree.name: _evidence(landscape, tree, known) for tree in waiting}
        tree = max(waiting, key=lambda candidate: evidence[candidate.name])
        waiting.remove(tree)
        usable = {s.tensor for g in tree.members for s in g.sites if _is_usable(landscape, tree, s, known)}
        whole = not tree.nested and usable >= set(landscape.tensors[tree.name])
        if indices := _first_answer(ascent, tree, usable, whole=whole, blind=evidence[tree.name] <= 0):
            ascent.take(tree, indices)
            ascent.unsettled |= landscape.neighbours[tree.name] & known
        if not whole:
            ascent.unsettled.add(tree.name)
        known.add(tree.name)
        ascent.seconds[tree.name] += time.perf_counter() - began
        # One pass of at least three: this one, one that moves what was held too little, one that finds all in place.
        progress(len(known), 3 * len(landscape.trees), f"first pass: {tree.name}")
    return ascent


def _first_answer(
    ascent: Ascent, tree: Tree, usable: set[str], *, whole: bool, blind: bool
) -> Mapping[str, Int[Tensor, " units"]]:
    """A tree's best arrangement by the tensors that may be used, all of them if ``whole``."""
    landscape = ascent.landscape
    if whole and not blind:
        index = assign(ascent.costs.similarity(tree, ascent.current))
        return {} if torch.equal(index, torch.arange(len(index))) else {tree.name: index}
    if blind:
        similarity = landscape.similarity(ascent.current, invariant=True)
    else:
        similarity = landscape.similarity(ascent.current, usable=lambda site: site.tensor in usable)
    return solve(landscape.symmetry, tree, similarity)


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
