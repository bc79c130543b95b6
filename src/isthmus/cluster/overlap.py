"""Overlaps q between solutions: in weight space raw or aligned, whole or by layer, and in function space."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.cluster.products import cka_gram, cosines, gram_of
from isthmus.cluster.solutions import LeftOut, Sifted, sift
from isthmus.core.errors import DataError, SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights, check_alike, dot

Alignment = Literal["raw", "reference", "pairwise"]
Measure = Literal["correlation", "agreement", "cka"]
Aligner = Callable[[Weights, Weights], Any]
Normalise = Callable[[Weights], Weights]


@dataclasses.dataclass(frozen=True)
class Overlaps(Record):
    """Cosines between solutions.

    Attributes:
        names: of the solutions, in the order of rows and columns.
        q: overlaps in [−1, 1], symmetric, 1 on the diagonal.
        layers: the same for each layer alone; empty in function space. A layer that is zero somewhere is NaN there.
        space: ``weights``, or the measure of function space.
        alignment: ``raw``, ``reference`` or ``pairwise``.
        reference: the name of the solution that all were aligned to, if they were.
        entries: how many numbers each overlap is over; structureless solutions have overlaps of about 1/√entries.
        left_out: solutions that were not used, and why.
        identical: pairs of solutions that are the same; with pairwise alignment, the same up to the aligner's moves.
        layer_entries: how many numbers the overlaps of each layer are over.
    """

    names: tuple[str, ...]
    q: Float[Tensor, "networks networks"]
    layers: Mapping[str, Float[Tensor, "networks networks"]]
    space: str
    alignment: Alignment
    reference: str | None
    entries: int
    left_out: tuple[LeftOut, ...]
    identical: tuple[tuple[str, str], ...]
    layer_entries: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def distances(self) -> Float[Tensor, "networks networks"]:
        """The distances √(2 − 2q) between the solutions' directions, from 0 to 2."""
        return distances(self.q)

    def layer(self, name: str) -> Overlaps:
        """The overlaps of one layer as if it were the whole network; solutions that are zero there are left out.

        Raises:
            SettingError: there is no such layer.
        """
        if name not in self.layers:
            raise SettingError(f"layer must be one of {', '.join(self.layers) or 'none'}, got {name}")
        entries = self.layer_entries.get(name, self.entries)
        alone = dataclasses.replace(self, q=self.layers[name], layers={}, entries=entries, layer_entries={})
        zero = [label for label, q in zip(self.names, alone.q.diagonal().tolist(), strict=True) if math.isnan(q)]
        return alone.without(zero, reason=f"all zero in {name}: it has no direction") if zero else alone

    def without(self, names: Sequence[str], *, reason: str) -> Overlaps:
        """The overlaps of the other solutions."""
        stay = [index for index, name in enumerate(self.names) if name not in set(names)]
        return dataclasses.replace(
            self,
            names=tuple(self.names[index] for index in stay),
            q=self.q[stay][:, stay],
            layers={name: q[stay][:, stay] for name, q in self.layers.items()},
            left_out=(*self.left_out, *(LeftOut(name, reason) for name in names)),
            identical=tuple(pair for pair in self.identical if not set(pair) & set(names)),
        )


def distances(q: Float[Tensor, "networks networks"]) -> Float[Tensor, "networks networks"]:
    """The distances √(2 − 2q) that belong to overlaps q."""
    return (2 - 2 * torch.as_tensor(q, dtype=torch.float64)).clamp_min(0).sqrt()


def overlaps(
    solutions: Sequence[Weights],
    *,
    names: Sequence[str] | None = None,
    tensors: Sequence[str] | None = None,
    alignment: Alignment = "raw",
    aligner: Aligner | None = None,
    reference: int | str = 0,
    normalise: Normalise | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Overlaps:
    """Overlaps of a set of solutions in weight space, whole and by layer.

    Args:
        solutions: weights of one architecture; one that diverged is named and left out.
        names: what they are called; by default their numbers from 0.
        tensors: tensors to compare, such as ``network.parameter_names``; by default all floating ones except running
            statistics. Name them for networks with tied tensors, which would count twice.
        alignment: ``raw``; ``reference``: all aligned to one solution; ``pairwise``: of each pair the later aligned to
            the earlier.
        aligner: (moving, fixed) → a permutation, a result that holds one as ``permutation``, or the moved weights.
        reference: number or name of the solution that the others are aligned to.
        normalise: applied to every solution first; for networks whose units have a free scale
            ``functools.partial(isthmus.core.canonical.unit_scale, symmetry)``.
        threads: alignments at once; by default as many as PyTorch may use.
        progress: hears of every alignment.

    Raises:
        SettingError: fewer than two solutions left, or an alignment without an aligner.
        WeightsError: solutions of other shapes.

    Cost: one matrix product for each tensor; with ``pairwise``, n(n−1)/2 alignments.

    Example:
        >>> found = overlaps([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([1.0, 1.0])}])
        >>> round(float(found.q[0, 1]), 3)
        0.707
    """
    if alignment not in ("raw", "reference", "pairwise"):
        raise SettingError(f"alignment must be raw, reference or pairwise, got {alignment!r}")
    if alignment != "raw" and aligner is None:
        raise SettingError(f"alignment {alignment!r} needs an aligner; pass aligner=")
    kept = sift(solutions, names=names, tensors=tensors)
    if normalise is not None:
        kept = dataclasses.replace(kept, solutions=tuple(normalise(solution) for solution in kept.solutions))
    name = None
    if alignment == "reference":
        assert aligner is not None
        name = _reference(kept, reference)
        kept = _aligned(kept, name, aligner, threads=threads, progress=progress)
    if alignment == "pairwise":
        assert aligner is not None
        grams = _pairwise_grams(kept, aligner, threads=threads, progress=progress)
    else:
        grams = {tensor: gram_of([s[tensor] for s in kept.solutions]) for tensor in kept.tensors}
    return _from_grams(kept, grams, alignment=alignment, reference=name)


def function_overlaps(
    outputs: Float[Tensor, "networks examples outputs"] | Sequence[Tensor],
    *,
    measure: Measure = "correlation",
    names: Sequence[str] | None = None,
) -> Overlaps:
    """Overlaps of what networks compute on the same examples; permutations of hidden units do not matter here.

    All three measures are cosines between feature vectors, so d = √(2−2q) is a Euclidean distance for each.

    Args:
        outputs: logits or activations; further axes are flattened.
        measure: ``correlation``: cosine after every output's mean over the examples is removed; ``agreement``: share of
            examples with the same largest output; ``cka``: linear centred kernel alignment, blind to rotations of the
            outputs, for hidden activations.
        names: what they are called; by default their numbers from 0.

    Raises:
        DataError: fewer than two examples.
        SettingError: fewer than two networks left, or an unknown measure.

    Reference: Kornblith et al., "Similarity of neural network representations revisited" (2019), for CKA.
    """
    if measure not in ("correlation", "agreement", "cka"):
        raise SettingError(f"measure must be correlation, agreement or cka, got {measure!r}")
    if measure == "agreement":
        # A zero output is a legitimate vote; only its direction would be missing.
        flat = [torch.as_tensor(part).flatten(1) for part in outputs]
        features = [torch.nn.functional.one_hot(part.argmax(1), part.shape[1]).double() for part in flat]
        for part, feature in zip(flat, features, strict=True):
            feature[~torch.isfinite(part).all(1)] = torch.nan
    else:
        features = [torch.as_tensor(part).flatten(1).double() for part in outputs]
        features = [part - part.mean(0, keepdim=True) for part in features]
    if features and len(features[0]) < 2:
        raise DataError(f"function overlaps need at least two examples, got {len(features[0])}")
    kept = sift([{"outputs": feature} for feature in features], names=names)
    stacked = torch.stack([solution["outputs"] for solution in kept.solutions])
    gram = cka_gram(stacked) if measure == "cka" else gram_of(list(stacked))
    found = _from_grams(kept, {"outputs": gram}, alignment="raw", reference=None)
    return dataclasses.replace(found, space=measure, layers={}, layer_entries={})


def _reference(kept: Sifted, reference: int | str) -> str:
    if isinstance(reference, str) and reference in kept.names:
        return reference
    if isinstance(reference, int) and 0 <= reference < len(kept.names):
        return kept.names[reference]
    raise SettingError(f"reference must be one of the solutions {', '.join(kept.names[:5])}, …, got {reference}")


def _aligned(kept: Sifted, reference: str, aligner: Aligner, *, threads: int | None, progress: Progress) -> Sifted:
    fixed = kept.solutions[kept.names.index(reference)]

    def one(pair: tuple[str, Weights]) -> Weights:
        name, solution = pair
        return solution if name == reference else _moved(aligner(solution, fixed), solution)

    pairs = list(zip(kept.names, kept.solutions, strict=True))
    moved = in_threads(one, pairs, threads=threads, progress=progress, label="aligning")
    return dataclasses.replace(kept, solutions=tuple(moved))


def _pairwise_grams(kept: Sifted, aligner: Aligner, *, threads: int | None, progress: Progress) -> dict[str, Tensor]:
    """Inner products tensor by tensor, each pair in its own alignment; norms are those of the solutions themselves."""
    size = len(kept.solutions)
    pairs = list(combinations(range(size), 2))

    def one(pair: tuple[int, int]) -> list[float]:
        fixed, moving = (kept.solutions[index] for index in pair)
        moved = _moved(aligner(moving, fixed), moving)
        return [dot(fixed, moved, tensors=[name]) for name in kept.tensors]

    products = in_threads(one, pairs, threads=threads, progress=progress, label="aligning")
    rows, columns = torch.tensor(pairs).T
    grams = {}
    for place, name in enumerate(kept.tensors):
        gram = torch.diag(torch.tensor([dot(s, s, tensors=[name]) for s in kept.solutions], dtype=torch.float64))
        values = torch.tensor([product[place] for product in products], dtype=torch.float64)
        gram[rows, columns] = gram[columns, rows] = values
        grams[name] = gram
    return grams


def _moved(answer: Any, moving: Weights) -> Weights:
    """What an aligner's answer makes of the moving weights."""
    if isinstance(answer, Mapping):
        check_alike(moving, answer, what="moving and aligned weights")
        return answer
    permutation = getattr(answer, "permutation", answer)
    if not hasattr(permutation, "apply"):
        given = type(answer).__name__
        raise SettingError(f"an aligner must return a permutation, a result that holds one, or weights, got {given}")
    return permutation.apply(moving)


def _from_grams(kept: Sifted, grams: Mapping[str, Tensor], *, alignment: Alignment, reference: str | None) -> Overlaps:
    """Cosines from inner products, whole and by layer."""
    by_layer: dict[str, Tensor] = {}
    entries: dict[str, int] = {}
    for name, gram in grams.items():
        layer = name.rpartition(".")[0] or name
        by_layer[layer] = by_layer[layer] + gram if layer in by_layer else gram
        entries[layer] = entries.get(layer, 0) + kept.solutions[0][name].numel()
    whole = torch.stack(list(by_layer.values())).sum(0)
    q = cosines(whole)
    close = ((q > 1 - 1e-12).triu(1)).nonzero().tolist()
    # Only solutions that are equal to the last bit are the same; in pairwise alignment no one order shows that.
    same = [
        (i, j)
        for i, j in close
        if alignment == "pairwise" or _equal(kept.solutions[i], kept.solutions[j], kept.tensors)
    ]
    for i, j in same:
        q[i, j] = q[j, i] = 1.0
    return Overlaps(
        names=kept.names,
        q=q,
        layers={layer: cosines(gram) for layer, gram in by_layer.items()},
        space="weights",
        alignment=alignment,
        reference=reference,
        entries=sum(entries.values()),
        left_out=kept.left_out,
        identical=tuple((kept.names[i], kept.names[j]) for i, j in same),
        layer_entries=entries,
    )


def _equal(first: Weights, second: Weights, tensors: Sequence[str]) -> bool:
    return all(torch.equal(first[name], second[name].to(first[name].device)) for name in tensors)
