"""The landscape around solutions: how flat, which spectrum, what walkers see."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from isthmus.connect import Line, barrier, reestimate
from isthmus.core.canonical import unit_scale
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective, Score
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.curvature import (
    ClassStructure,
    Density,
    EigenPairs,
    Sharpness,
    Trace,
    adaptive_worst_case,
    class_structure,
    density,
    eigenpairs,
    gauss_newton,
    hessian,
    random_sharpness,
    trace,
    worst_case,
)
from isthmus.walk import (
    Displacement,
    Langevin,
    LevelSet,
    Metropolis,
    PermutationBarriers,
    RandomWalk,
    Ruggedness,
    Walk,
    displacement,
    permutation_barriers,
    ruggedness,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Flatness(Record):
    """How flat each solution is.

    Attributes:
        names: what the solutions are called.
        scores: loss and error of each.
        eigenvalues: the largest eigenvalues of each Hessian, after free scales were removed.
        trace: of each Hessian, after free scales were removed.
        random: mean rise of the loss under filter-normalised random perturbations.
        worst: largest rise in a ball of a fixed radius (SAM's ascent).
        adaptive: largest rise in an ellipsoid that scales with the weights.
        scale_removed: whether the network has free scales of units that were removed first.
        provenance: versions, machine, command.
    """

    names: tuple[str, ...]
    scores: tuple[Score, ...]
    eigenvalues: tuple[EigenPairs, ...]
    trace: tuple[Trace, ...]
    random: tuple[Sharpness, ...]
    worst: tuple[Sharpness, ...]
    adaptive: tuple[Sharpness, ...]
    scale_removed: bool
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def flatness_of(
    solutions: Sequence[Weights],
    objective: Objective,
    *,
    names: Sequence[str],
    symmetry: Symmetry | None = None,
    pairs: int = 3,
    products: int = 60,
    seed: int = 0,
    progress: Progress = silent,
) -> Flatness:
    """Measure every solution with every measure; curvature is that of the loss in evaluation mode.

    Args:
        solutions: at least one.
        objective: the loss and its examples; use training examples for flatness.
        names: what the solutions are called.
        symmetry: its scale groups, if any, are removed before the Hessian is looked at.
        pairs: how many eigenvalues.
        products: to spend on each trace.
        seed: of directions and probes.
        progress: told after every measure.
    """
    scaled = symmetry is not None and any(group.kind == "scale" for group in symmetry.groups)
    found: dict[str, list[Any]] = {
        name: [] for name in ("scores", "eigenvalues", "trace", "random", "worst", "adaptive")
    }
    for place, weights in enumerate(solutions):
        start = unit_scale(symmetry, weights) if symmetry is not None else weights
        operator = hessian(objective, start)
        jobs = {
            "scores": lambda w=weights: objective(w),
            "eigenvalues": lambda o=operator: eigenpairs(o, min(pairs, o.size)),
            "trace": lambda o=operator, p=place: trace(o, generator=child(seed, "trace", p), products=products),
            "random": lambda w=start, p=place: random_sharpness(objective, w, generator=child(seed, "directions", p)),
            "worst": lambda w=start: worst_case(objective, w),
            "adaptive": lambda w=weights: adaptive_worst_case(objective, w),
        }
        for done, (name, job) in enumerate(jobs.items()):
            progress(place + done / len(jobs), len(solutions), f"{names[place]} {name}")
            found[name].append(job())
    columns: dict[str, Any] = {name: tuple(values) for name, values in found.items()}
    return Flatness(tuple(names), scale_removed=scaled, **columns)


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum(Record):
    """The spectrum of a curvature matrix at one solution.

    Attributes:
        name: of the solution.
        matrix: ``hessian`` or ``gauss_newton``.
        score: of the solution.
        largest: eigenpairs at the upper end, with residuals.
        smallest: at the lower end; ``None`` for a Gauss–Newton matrix, which has no negative ones.
        density: by Lanczos quadrature, as a cumulative distribution.
        classes: what the classes explain of the outliers; ``None`` for other losses than cross-entropy.
        provenance: versions, machine, command.
    """

    name: str
    matrix: str
    score: Score
    largest: EigenPairs
    smallest: EigenPairs | None
    density: Density
    classes: ClassStructure | None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def spectrum_of(
    weights: Weights,
    objective: Objective,
    *,
    name: str,
    matrix: str = "hessian",
    pairs: int = 10,
    probes: int = 5,
    steps: int = 60,
    seed: int = 0,
    progress: Progress = silent,
) -> Spectrum:
    """Both ends and the density of the Hessian's or Gauss–Newton matrix's spectrum.

    Raises:
        SettingError: another matrix.
    """
    if matrix not in ("hessian", "gauss_newton"):
        raise SettingError(f"matrix must be hessian or gauss_newton, got {matrix}")
    operator = (hessian if matrix == "hessian" else gauss_newton)(objective, weights)
    k = min(pairs, max(1, operator.size - 2))
    progress(0, 4, "largest eigenvalues")
    largest = eigenpairs(operator, k)
    progress(1, 4, "smallest eigenvalues")
    smallest = eigenpairs(operator, min(k, 3), "smallest") if matrix == "hessian" else None

    def told(done: float, total: float, label: str = "") -> None:
        progress(2 + done / total, 4, f"density {label}".strip())

    found = density(
        operator, generator=child(seed, "density"), probes=probes, steps=min(steps, operator.size), outliers=largest,
        progress=told,
    )  # fmt: skip
    progress(3, 4, "classes")
    classes = None
    if objective.targets.dim() == 1 and not objective.targets.is_floating_point():
        classes = class_structure(objective, weights, outliers=largest)
    return Spectrum(name, matrix, objective(weights), largest, smallest, found, classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Walks(Record):
    """What walkers saw around one solution.

    Attributes:
        name: of the solution.
        walk: loss, error, overlap and distance against steps.
        ruggedness: autocorrelation of the loss; ``None`` for walks of fewer than eight looks.
        displacement: growth of the mean squared distance; ``None`` for very short walks.
        permutations: barriers to copies with k of h units permuted; ``None`` if no symmetry was given.
        provenance: versions, machine, command.
    """

    name: str
    walk: Walk
    ruggedness: Ruggedness | None
    displacement: Displacement | None
    permutations: PermutationBarriers | None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def walk_from(
    weights: Weights,
    objective: Objective,
    *,
    name: str,
    method: str = "random",
    steps: int = 100,
    walkers: int = 8,
    every: int = 1,
    temperature: float = 1e-3,
    rise: float = 0.5,
    size: float | None = None,
    symmetry: Symmetry | None = None,
    inputs: torch.Tensor | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Walks:
    """Walk from a solution, and if a symmetry is given permute parts of its largest group.

    Args:
        weights: the solution.
        objective: the landscape.
        name: of the solution.
        method: ``random`` (on the sphere of the start), ``metropolis``, ``langevin`` or ``level`` (below a loss).
        steps: of each walker.
        walkers: how many.
        every: steps between two looks.
        temperature: of the thermal walks, in units of the loss.
        rise: the level set's loss above the start's.
        size: of a step: relative length (random, metropolis, level) or the learning rate (langevin).
        symmetry: for the permutation walk.
        inputs: training inputs: running statistics are estimated anew after every move where the network has any.
        seed: of the walkers.
        progress: told along the way.

    Raises:
        SettingError: an unknown method or a setting out of range.
    """
    makers = {
        "random": lambda: RandomWalk(step=size or 0.02),
        "metropolis": lambda: Metropolis(step=size or 0.01, temperature=temperature, tune=steps // 4),
        "langevin": lambda: Langevin(temperature=temperature, rate=size or 1e-3),
        "level": lambda: LevelSet(step=size or 0.01, level=objective(weights).loss + rise, tune=steps // 4),
    }
    if method not in makers:
        raise SettingError(f"method must be one of {', '.join(makers)}, got {method}")
    refresh = None
    if objective.network.has_batch_statistics and inputs is not None:
        refresh = functools.partial(_refreshed, objective.network, inputs)
    walk = makers[method]()(
        objective, weights, steps=steps, generator=child(seed, "walk", method), walkers=walkers, every=every,
        refresh=refresh, progress=progress,
    )  # fmt: skip
    looks = len(walk.steps)
    permuted = None
    if symmetry is not None:
        generator = child(seed, "permutations")
        permuted = _permuted(weights, objective, symmetry, inputs=inputs, generator=generator, progress=progress)
    return Walks(
        name=name,
        walk=walk,
        ruggedness=ruggedness(walk) if looks >= 9 and not walk.diverged else None,
        displacement=displacement(walk) if looks >= 5 and not walk.diverged else None,
        permutations=permuted,
    )


def _refreshed(network: Network, inputs: torch.Tensor, moved: Weights) -> Weights:
    return reestimate(network, moved, inputs)


def _permuted(
    weights: Weights,
    objective: Objective,
    symmetry: Symmetry,
    *,
    inputs: torch.Tensor | None,
    generator: torch.Generator,
    progress: Progress,
) -> PermutationBarriers:
    """Loss barriers to copies with more and more units of the largest group permuted."""
    if not symmetry.permutable:
        raise SettingError("a permutation walk must have units that may be permuted, and the model has none")
    group = max((g for g in symmetry.permutable if g.parent is None), key=lambda g: g.size)

    def height(start: Weights, end: Weights) -> float:
        return barrier(Line(start, end), objective, points=7, data=inputs).loss_barrier

    moved = sorted({2, *(max(2, group.size >> power) for power in range(6))} & set(range(2, group.size + 1)))
    return permutation_barriers(
        weights, symmetry, group=group.name, moved=moved, barrier=height, generator=generator,
        draws=3, progress=progress,
    )  # fmt: skip
