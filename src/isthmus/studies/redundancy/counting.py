"""The redundancy of one network by layer, of its family by width and depth, and what training leaves of it.

Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import isthmus.discover as discovery
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.network import Network
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.noise import redundancy, silent_units, writing_axes
from isthmus.noise.redundancy import EffectiveRedundancy, Redundancy, effective_redundancy
from isthmus.zoo.remedies import free_parameters

_FACTORS_UP_TO = 2_000_000  # parameters: signs and scales cost some network calls in float64 for every group

# Ainsworth et al., "Git Re-Basin", arXiv 2209.04836: log10 of the permutations, floored for each layer. VGG16 is
# configuration D of Simonyan & Zisserman with its wide classifier.
PUBLISHED: Mapping[str, tuple[tuple[int, ...], int]] = {
    "MLP, 3 × 512": ((512,) * 3, 3498),
    "VGG16": ((64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6 + (4096,) * 2, 35160),
}


@dataclasses.dataclass(frozen=True)
class LayerCount(Record):
    """One layer's part.

    Attributes:
        layer: the first tensor's layer that writes the units.
        units: that may be exchanged.
        groups: how many sets they fall into; units of different sets cannot be exchanged.
        log10_permutations: Σ log10(size!) over the sets.
        floored: the same with every set's power rounded down.
        log10_signs: flips of single units.
        scale_dimensions: continuous rescalings of single units.
    """

    layer: str
    units: int
    groups: int
    log10_permutations: float
    floored: int
    log10_signs: float
    scale_dimensions: int


@dataclasses.dataclass(frozen=True)
class Size(Record):
    """One member of the family."""

    width: int
    depth: int
    parameters: int
    log10_copies: float
    scale_dimensions: int


@dataclasses.dataclass(frozen=True)
class Reference(Record):
    """A published count beside ours.

    Attributes:
        name: of the network.
        published: log10 of its permutations, floored for each layer.
        counted: ours from its widths, in the same way.
    """

    name: str
    published: int
    counted: int


@dataclasses.dataclass(frozen=True)
class Redundancies(Record):
    """Everything that was counted.

    Attributes:
        model: its name.
        parameters: what training may change.
        layers: in the order of the network.
        total: of the whole network.
        factors: whether signs and scales were looked for; where not, their counts are zero.
        sizes: of the family.
        effective: by checkpoint: what its weights tell apart.
        noise: deviation of a weight that counted as indistinguishable, largest over the tensors; 0 is exact equality.
        noise_from: ``given``, ``aligned checkpoints`` or ``exact equality``.
        examples: so many were shown to find silent units; 0 if none.
        references: published counts, for the order of magnitude.
        obstacles: how many operations pinned units.
        provenance: versions and machine.
    """

    model: str
    parameters: int
    layers: tuple[LayerCount, ...]
    total: Redundancy
    factors: bool
    sizes: tuple[Size, ...]
    effective: Mapping[str, EffectiveRedundancy]
    noise: float
    noise_from: str
    examples: int
    references: tuple[Reference, ...]
    obstacles: int
    provenance: Mapping[str, Any]


def count(
    module: nn.Module,
    example: Any,
    *,
    name: str = "own",
    family: Mapping[tuple[int, int], Callable[[], nn.Module]] | None = None,
    solutions: Mapping[str, Weights] | None = None,
    inputs: Tensor | tuple[Tensor, ...] | None = None,
    factors: bool | None = None,
    noise: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Redundancies:
    """Count by discovery: the symmetry is found in the module's graph and proved, not looked up by its kind.

    Args:
        module: any that ``torch.export`` accepts.
        example: an input or a tuple of inputs.
        name: of the model.
        family: (width, depth) → a function that builds that member; it must take the same example.
        solutions: weights by name, for the effective count.
        inputs: data on which units that never do anything are found; without them only equal and unheard units are.
        factors: whether to look for signs and scales; by default up to two million parameters.
        noise: standard deviation of a weight; by default, with two solutions or more, the deviation between the first
            and each other one after aligning (over √2), by tensor, else exact equality.
        seed: of proofs and aligning.
        progress: told after each member of the family.

    Raises:
        SymmetryError: the module cannot be exported, or a proof fails.

    Cost: about 20 network calls in float64 for each member, and with factors about two for each site of each group.
    """
    family, solutions = family or {}, solutions or {}
    factors = free_parameters(module) <= _FACTORS_UP_TO if factors is None else factors
    kinds = ("permutation", "sign", "scale") if factors else ("permutation",)
    jobs = len(family) + 1
    symmetry = discovery.discover(module, example, kinds=kinds, generator=child(seed, "proof"))
    progress(1, jobs, name)
    sizes = []
    for place, ((width, depth), build) in enumerate(family.items()):
        member = build()
        found = redundancy(discovery.discover(member, example, kinds=kinds, generator=child(seed, "proof")))
        sizes.append(Size(width, depth, free_parameters(member), found.log10_copies, found.scale_dimensions))
        progress(place + 2, jobs, f"{width} × {depth}")
    spread, source = _noise(symmetry, solutions, noise, seed)
    effective = _effective(module, symmetry, solutions, inputs, example, spread, seed)
    largest = max(spread.values(), default=0.0) if isinstance(spread, dict) else float(spread)
    total = redundancy(symmetry)
    return Redundancies(
        name, free_parameters(module), _layers(total), total, factors, tuple(sizes), effective, largest, source,
        _examples(inputs), references(), len(symmetry.obstacles), provenance(),
    )  # fmt: skip


def references() -> tuple[Reference, ...]:
    """Published counts, and ours from the same widths."""
    return tuple(
        Reference(name, published, sum(math.floor(math.lgamma(width + 1) / math.log(10)) for width in widths))
        for name, (widths, published) in PUBLISHED.items()
    )


def _effective(  # noqa: PLR0917
    module: nn.Module,
    symmetry: Symmetry,
    solutions: Mapping[str, Weights],
    inputs: Tensor | tuple[Tensor, ...] | None,
    example: Any,
    spread: float | Mapping[str, float],
    seed: int,
) -> dict[str, EffectiveRedundancy]:
    """What every solution's weights tell apart, with its silent units where there are data."""
    if not solutions:
        return {}
    network = Network.of(module)
    writes = writing_axes(module, example if isinstance(example, tuple) else (example,))
    found = {}
    for label, weights in solutions.items():
        quiet = None
        if inputs is not None:
            quiet = silent_units(network, symmetry, weights, inputs, generator=child(seed, "silent", label))
        found[label] = effective_redundancy(symmetry, weights, noise=spread, silent=quiet, writes=writes)
    return found


def _examples(inputs: Tensor | tuple[Tensor, ...] | None) -> int:
    return 0 if inputs is None else len(inputs[0] if isinstance(inputs, tuple) else inputs)


def _layers(total: Redundancy) -> tuple[LayerCount, ...]:
    """Groups gathered by the layer that their names begin with."""
    by_layer: dict[str, list[Any]] = {}
    for group in total.groups:
        by_layer.setdefault(group.name.partition(" ")[0], []).append(group)
    found = []
    for layer, groups in by_layer.items():
        parts = [group for group in groups if group.symmetry == "permutation"]
        found.append(
            LayerCount(
                layer=layer,
                units=sum(group.size for group in parts),
                groups=len(parts),
                log10_permutations=sum(group.log10_copies for group in parts),
                floored=sum(math.floor(group.log10_copies + 1e-9) for group in parts),
                log10_signs=sum(group.log10_copies for group in groups if group.symmetry == "sign"),
                scale_dimensions=sum(group.size for group in groups if group.symmetry == "scale"),
            )
        )
    return tuple(found)


def _noise(
    symmetry: Symmetry, solutions: Mapping[str, Weights], noise: float | None, seed: int
) -> tuple[float | dict[str, float], str]:
    """A deviation for every tensor, and where it is from."""
    if noise is not None:
        return noise, "given"
    if len(solutions) < 2 or not symmetry.permutable:
        return 0.0, "exact equality"
    first, *others = solutions.values()
    squares: dict[str, list[float]] = {}
    for index, other in enumerate(others):
        match = WeightMatching()(symmetry, other, first, generator=child(seed, "counting", index))
        for name, tensor in match.permutation.apply(other).items():
            if tensor.is_floating_point():
                squares.setdefault(name, []).append(float((tensor - first[name]).double().square().mean()))
    return {
        name: float(torch.tensor(all_of).mean().div(2).sqrt()) for name, all_of in squares.items()
    }, "aligned checkpoints"
