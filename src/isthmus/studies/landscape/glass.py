"""Solutions as a spin glass: overlaps raw and aligned, P(q), a verdict on hierarchy with controls, passes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import isthmus.discover as discovery
from isthmus.align import WeightMatching
from isthmus.cluster import (
    Disconnectivity,
    FiniteSize,
    OverlapDistribution,
    Overlaps,
    Recovery,
    States,
    Verdict,
    disconnectivity,
    distribution,
    finite_size,
    function_overlaps,
    hierarchy,
    overlaps,
    planted_tree,
    recovery,
    states,
)
from isthmus.connect import PairBarriers, barriers
from isthmus.core.canonical import unit_scale
from isthmus.core.errors import SettingError
from isthmus.core.losses import answers
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights

ALIGNMENTS = ("raw", "reference", "pairwise")
_EXAMPLES = 500  # of outputs that are compared: overlaps of so many are known to about a twentieth of their spread


@dataclasses.dataclass(frozen=True, eq=False)
class Arrangement(Record):
    """How one set of solutions lies, compared in one way.

    Attributes:
        label: ``raw``, ``reference``, ``pairwise``; ``function`` for what the networks compute; ``planted`` and
            ``spawned`` for the controls.
        overlaps: between all of them.
        distribution: P(q) with intervals over networks and a structureless null.
        verdict: hierarchical or not; ``None`` with fewer than four solutions.
        states: groups by average linkage.
        recovery: whether the groups are known families; ``None`` if none were named.
    """

    label: str
    overlaps: Overlaps
    distribution: OverlapDistribution
    verdict: Verdict | None
    states: States
    recovery: Recovery | None


@dataclasses.dataclass(frozen=True, eq=False)
class Glass(Record):
    """Arrangements of the solutions and of the controls, and the trees of passes between the solutions.

    Attributes:
        arrangements: one for each way of comparing, and one for each control.
        disconnectivity: branches join at the highest loss on straight ways; ``None`` without an objective.
        minimax: the same from the lowest pass over chains of those ways, ultrametric by construction.
        sizes: how the spread of overlaps changes with the networks' size; ``None`` if other sizes were not given.
        scale_removed: whether free scales of units were removed first.
        provenance: versions, machine, command.
    """

    arrangements: tuple[Arrangement, ...]
    disconnectivity: Disconnectivity | None
    minimax: Disconnectivity | None
    sizes: FiniteSize | None
    scale_removed: bool
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def glass(
    solutions: Sequence[Weights],
    *,
    names: Sequence[str] | None = None,
    tensors: Sequence[str] | None = None,
    symmetry: Symmetry | None = None,
    objective: Objective | None = None,
    alignments: Sequence[str] = ALIGNMENTS,
    families: Mapping[str, str] | None = None,
    planted: bool = True,
    spawned: tuple[Sequence[Weights], Sequence[str]] | None = None,
    others: Sequence[tuple[Sequence[Weights], Symmetry | None]] = (),
    points: int = 9,
    seed: int = 0,
    progress: Progress = silent,
    **settings: Any,
) -> Glass:
    """Arrange solutions by their overlaps and judge whether they form a hierarchy.

    Args:
        solutions: at least three, of one architecture.
        names: what they are called.
        tensors: the tensors to compare; all floating ones but running statistics by default.
        symmetry: permutations align, scale groups are removed first; without it only ``raw`` is possible.
        objective: also compares what the networks compute, measures the linear passes and draws their trees.
        alignments: some of :data:`ALIGNMENTS`.
        families: the known family of each solution, by its name.
        planted: also judge a planted family tree of as many leaves, which must come out hierarchical.
        spawned: a trained control of the same architecture: solutions that left common trunks, and the trunk of each;
            they share the order of their units and so are compared as they are.
        others: sets of the same kind of solutions at other sizes, each with its symmetry: the control for finite size,
            aligned pair by pair if these solutions are.
        points: on each linear pass.
        seed: of alignment, resampling and surrogates.
        progress: told along the way.
        **settings: further arguments of :func:`isthmus.connect.barrier` (``inputs``, ``normalisation``).

    Raises:
        SettingError: fewer than three solutions, or an alignment without a symmetry.
    """
    _check(solutions, alignments, symmetry)
    scaled = symmetry is not None and any(group.kind == "scale" for group in symmetry.groups)
    normalise = functools.partial(unit_scale, symmetry) if scaled and symmetry is not None else None
    phases = len(alignments) + (objective is not None)
    found = []
    for place, alignment in enumerate(alignments):
        compared = overlaps(
            solutions,
            names=names,
            tensors=tensors,
            alignment=alignment,  # type: ignore[arg-type]
            aligner=_aligner(symmetry, seed) if alignment != "raw" and symmetry is not None else None,
            normalise=normalise,
            progress=within(progress, place, phases, label=alignment),
        )
        found.append(_arranged(compared, alignment, families, seed))
    known = found[0].overlaps
    if objective is not None:
        computed = function_overlaps(_outputs(solutions, objective), names=names)
        found.append(_arranged(computed, "function", families, seed))
    sizes = None
    if others:
        how = "pairwise" if "pairwise" in alignments else "raw"
        here = next((each.overlaps for each in found if each.label == how), known)
        sizes = finite_size([here, *(_sized(*each, how=how, seed=seed) for each in others)])
    if planted:
        found.append(_planted(len(solutions), seed))
    if spawned is not None:
        family = {str(place): trunk for place, trunk in enumerate(spawned[1])}
        found.append(_arranged(overlaps(spawned[0], tensors=tensors, normalise=normalise), "spawned", family, seed))
    graph = lowest = None
    if objective is not None:
        # A diverged solution has no height: the trees are of those that the overlaps kept.
        named = names if names is not None else [str(place) for place in range(len(solutions))]
        stay = {name: each for name, each in zip(named, solutions, strict=True) if name in known.names}
        told = within(progress, phases - 1, phases, label="passes")
        graph, lowest = _trees(stay, objective, points=points, progress=told, **settings)
    return Glass(tuple(found), graph, lowest, sizes, scaled)


def _check(solutions: Sequence[Weights], alignments: Sequence[str], symmetry: Symmetry | None) -> None:
    if len(solutions) < 3:
        raise SettingError(f"an arrangement needs at least 3 solutions (triples are compared), got {len(solutions)}")
    if unknown := [name for name in alignments if name not in ALIGNMENTS]:
        raise SettingError(f"alignments must be some of {', '.join(ALIGNMENTS)}, got {unknown[0]}")
    permutable = symmetry is not None and bool(symmetry.permutable)
    if not permutable and set(alignments) != {"raw"}:
        raise SettingError("aligning must have a symmetry with permutations; give a model, or ask for raw alone")


def _planted(leaves: int, seed: int) -> Arrangement:
    """A family tree of as many leaves, which must come out hierarchical."""
    tree = planted_tree(_branches(leaves), generator=child(seed, "planted"))
    family = {str(leaf): str(branch) for leaf, branch in enumerate(tree.families[0])}
    return _arranged(overlaps(tree.solutions), "planted", family, seed)


def symmetry_with_scale(module: torch.nn.Module, example: torch.Tensor) -> Symmetry:
    """The permutations of a module, and its scale groups where it has units that allow them."""
    return discovery.discover(module, example, kinds=("permutation", "scale"))


def _outputs(solutions: Sequence[Weights], objective: Objective) -> list[torch.Tensor]:
    """What each network computes on the first examples."""
    few = objective.limited(_EXAMPLES)
    found = []
    for weights in solutions:
        parts = [outputs for outputs, _ in few.outputs(weights)]
        found.append(torch.cat([answers(part) for part in parts]).float().cpu())
    return found


def _sized(solutions: Sequence[Weights], symmetry: Symmetry | None, *, how: str, seed: int) -> Overlaps:
    """Overlaps of one set of another size, compared in the same way."""
    scaled = symmetry is not None and any(group.kind == "scale" for group in symmetry.groups)
    return overlaps(
        solutions,
        alignment=how,  # type: ignore[arg-type]
        aligner=_aligner(symmetry, seed) if how != "raw" and symmetry is not None else None,
        normalise=functools.partial(unit_scale, symmetry) if scaled and symmetry is not None else None,
    )


def _aligner(symmetry: Symmetry, seed: int) -> Callable[[Weights, Weights], Any]:
    permutations = dataclasses.replace(symmetry, groups=symmetry.permutable)
    matching = WeightMatching()

    def align(moving: Weights, fixed: Weights) -> Any:
        return matching(permutations, moving, fixed, generator=child(seed, "alignment"))

    return align


def _arranged(found: Overlaps, label: str, families: Mapping[str, str] | None, seed: int) -> Arrangement:
    known = None
    if families is not None:
        kept = [families[name] for name in found.names]
        known = recovery(found, kept, generator=child(seed, "recovery", label)) if len(set(kept)) > 1 else None
    copies = len({second for _, second in found.identical})
    judged = len(found.names) - copies >= 4
    return Arrangement(
        label=label,
        overlaps=found,
        distribution=distribution(found, generator=child(seed, "distribution", label)),
        verdict=hierarchy(found, generator=child(seed, "hierarchy", label)) if judged else None,
        states=states(found),
        recovery=known,
    )


def _branches(count: int) -> tuple[int, ...]:
    """A family tree of two levels with about as many leaves as there are solutions."""
    return (4, 2, max(2, count // 8)) if count >= 16 else (max(2, count // 4), 2, 2)


def _trees(solutions: Mapping[str, Weights], objective: Objective, **settings: Any) -> tuple[Disconnectivity, ...]:
    """The trees of the straight ways between solutions, and of the lowest passes over chains of them."""
    ways = _passes(barriers(list(solutions.values()), objective, names=list(solutions), **settings))
    return ways, disconnectivity(ways.loss, ways.heights, source="minimax", names=ways.names)


def _passes(found: PairBarriers) -> Disconnectivity:
    """The tree of the highest losses on the straight ways between solutions."""
    n = len(found.names)
    heights = torch.zeros(n, n, dtype=torch.float64)
    loss = torch.zeros(n, dtype=torch.float64)
    for (first, second), curve in found.curves.items():
        heights[first, second] = heights[second, first] = curve.loss.max()
        loss[first], loss[second] = curve.loss[0], curve.loss[-1]
    heights += torch.diag(loss)
    return disconnectivity(loss, heights, names=found.names)
