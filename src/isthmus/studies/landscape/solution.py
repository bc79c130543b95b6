"""The landscape at solutions: how flat, which spectrum."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.canonical import unit_scale
from isthmus.core.errors import DataError, SettingError
from isthmus.core.objective import Objective
from isthmus.core.operator import Operator
from isthmus.core.progress import Progress, silent, within
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.score import Score
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.curvature import (
    ClassStructure,
    Density,
    EigenPairs,
    Sharpness,
    Trace,
    adaptive_worst_case,
    by_layer,
    class_structure,
    density,
    eigenpairs,
    gauss_newton,
    hessian,
    random_sharpness,
    trace,
    worst_case,
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
            # The same probes and directions for all: a solution's numbers do not depend on its place among them.
            "trace": lambda o=operator: trace(o, generator=child(seed, "trace"), products=products),
            "random": lambda w=start: random_sharpness(objective, w, generator=child(seed, "directions")),
            "worst": lambda w=start: worst_case(objective, w),
            "adaptive": lambda w=weights: adaptive_worst_case(objective, w),
        }
        for done, (name, job) in enumerate(jobs.items()):
            progress(place + done / len(jobs), len(solutions), f"{names[place]} {name}")
            found[name].append(job())
    columns: dict[str, Any] = {name: tuple(values) for name, values in found.items()}
    return Flatness(tuple(names), scale_removed=scaled, **columns)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCurvature(Record):
    """The curvature of the loss in one layer's tensors, the others held fixed.

    Attributes:
        size: how many numbers the layer has.
        largest: its largest eigenpair.
        trace: of its block; the blocks' traces add up to the whole one.
    """

    size: int
    largest: EigenPairs
    trace: Trace


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
        layers: the diagonal block of every layer; empty if they were not asked for.
        provenance: versions, machine, command.
    """

    name: str
    matrix: str
    score: Score
    largest: EigenPairs
    smallest: EigenPairs | None
    density: Density
    classes: ClassStructure | None
    layers: Mapping[str, LayerCurvature] = dataclasses.field(default_factory=dict)
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
    layers: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Spectrum:
    """Both ends and the density of the Hessian's or Gauss–Newton matrix's spectrum.

    Args:
        weights: the solution.
        objective: the loss and its examples; in evaluation mode.
        name: of the solution.
        matrix: ``hessian`` or ``gauss_newton``.
        pairs: how many of the largest eigenvalues.
        probes: of the density.
        steps: Lanczos steps of each probe.
        layers: also look at the diagonal block of every layer.
        seed: of the probes.
        progress: told along the way.

    Raises:
        SettingError: another matrix, or no pairs.
    """
    if matrix not in ("hessian", "gauss_newton"):
        raise SettingError(f"matrix must be hessian or gauss_newton, got {matrix}")
    if pairs < 1:
        raise SettingError(f"pairs must be at least 1, got {pairs}")
    curvature = hessian if matrix == "hessian" else gauss_newton
    operator = curvature(objective, weights)
    k = min(pairs, max(1, operator.size - 2))
    progress(0, 4, "largest eigenvalues")
    largest = eigenpairs(operator, k)
    progress(1, 4, "smallest eigenvalues")
    smallest = eigenpairs(operator, min(k, 3), "smallest") if matrix == "hessian" else None

    found = density(
        operator, generator=child(seed, "density"), probes=probes, steps=min(steps, operator.size), outliers=largest,
        progress=within(progress, 2, 4, label="density"),
    )  # fmt: skip
    progress(3, 4, "classes")
    classes = None
    if objective.targets.dim() == 1 and not objective.targets.is_floating_point():
        with contextlib.suppress(DataError):  # more classes than their squares fit: the spectrum is the answer without
            classes = class_structure(objective, weights, outliers=largest)

    def block(one: Operator) -> LayerCurvature:
        return LayerCurvature(
            one.size, eigenpairs(one, 1), trace(one, generator=child(seed, "layer", one.size), products=30)
        )

    blocks = by_layer(objective, weights, block, matrix=curvature) if layers else {}
    return Spectrum(name, matrix, objective(weights), largest, smallest, found, classes, blocks)
