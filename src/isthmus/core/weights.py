"""Weights: a mapping from state-dict names to tensors, and its linear algebra.

Nothing here writes to its arguments. A *stacked* mapping has one leading axis more on every tensor: one entry for each
solution. Half-precision tensors are combined in float32 and rounded once; non-floating entries (counters, index tables)
cannot be mixed and are taken from the nearer or first solution. A complex number counts as two real ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import WeightsError, listed

Weights: TypeAlias = Mapping[str, Tensor]


def check_alike(first: Weights, second: Weights, *, what: str = "the two sets of weights") -> None:
    """Refuse weights that differ in names or shapes.

    Raises:
        WeightsError: names the missing and extra tensors, or those whose shapes differ.
    """
    if missing := [name for name in first if name not in second]:
        raise WeightsError(f"{what} must have the same tensors; the second lacks {listed(missing)}")
    if extra := [name for name in second if name not in first]:
        raise WeightsError(f"{what} must have the same tensors; the second also has {listed(extra)}")
    for name, tensor in first.items():
        if tensor.shape != second[name].shape:
            shapes = f"{tuple(tensor.shape)} and {tuple(second[name].shape)}"
            raise WeightsError(f"{what} must have the same shapes; {name} is {shapes}")


def check_finite(weights: Weights, *, what: str = "weights") -> None:
    """Refuse NaN and infinities, naming the tensors that hold them."""
    bad = [
        name
        for name, tensor in weights.items()
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(torch.isfinite(_readable(tensor)).all())
    ]
    if bad:
        raise WeightsError(f"{what} must be finite; NaN or Inf in {listed(bad)}")


def _readable(tensor: Tensor) -> Tensor:
    """For 8-bit floats most operations are missing."""
    return tensor.float() if tensor.element_size() == 1 and tensor.is_floating_point() else tensor


def numbers(tensor: Tensor) -> Tensor:
    """A tensor as real numbers: of complex ones the real and imaginary parts, on a last axis of 2."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def mixes(tensor: Tensor) -> bool:
    """Whether there is anything between two such tensors: real or complex, no counters."""
    return tensor.is_floating_point() or tensor.is_complex()


def lerp(start: Weights, end: Weights, t: float | Float[Tensor, " points"]) -> dict[str, Tensor]:
    """(1−t)·start + t·end, exactly ``start`` at 0 and exactly ``end`` at 1.

    Args:
        start: weights at t = 0.
        end: weights at t = 1.
        t: one position, or a vector of positions, which gives stacked weights.

    Raises:
        WeightsError: names or shapes differ.
    """
    check_alike(start, end, what="the ends of a line")
    if isinstance(t, Tensor) and t.dim() > 0:
        return stack([lerp(start, end, float(point)) for point in t])
    position = float(t)
    if position in (0.0, 1.0):
        return dict(start if position == 0.0 else end)
    mixed = {}
    for name, tensor in start.items():
        other = end[name].to(tensor.device)
        if not mixes(tensor):
            mixed[name] = tensor if position <= 0.5 else other
        elif tensor.is_floating_point() and tensor.element_size() < 4:
            mixed[name] = torch.lerp(tensor.float(), other.float(), position).to(tensor.dtype)
        else:
            mixed[name] = torch.lerp(tensor, other.to(tensor.dtype), position)
    return mixed


def combine(solutions: Sequence[Weights], coefficients: Sequence[float]) -> dict[str, Tensor]:
    """Σ cᵢ·solutionᵢ, accumulated in at least float32, rounded once; non-floating entries from the first one.

    Raises:
        WeightsError: no solutions, or not one coefficient for each.
    """
    if len(solutions) != len(coefficients) or not solutions:
        given = f"{len(solutions)} solutions and {len(coefficients)} coefficients"
        raise WeightsError(f"combine needs one coefficient for each of at least one solution, got {given}")
    for other in solutions[1:]:
        check_alike(solutions[0], other, what="combined solutions")
    total = {}
    for name, first in solutions[0].items():
        if not mixes(first):
            total[name] = first
            continue
        accumulator = torch.zeros_like(first, dtype=torch.promote_types(first.dtype, torch.float32))
        for solution, coefficient in zip(solutions, coefficients, strict=True):
            accumulator.add_(solution[name].to(accumulator), alpha=float(coefficient))
        total[name] = accumulator.to(first.dtype)
    return total


def mean(solutions: Sequence[Weights]) -> dict[str, Tensor]:
    """The plain average of solutions.

    Raises:
        WeightsError: no solutions, or they do not fit together.
    """
    return combine(solutions, [1 / len(solutions)] * len(solutions) if solutions else [])


def dot(first: Weights, second: Weights, *, tensors: Collection[str] | None = None) -> float:
    """Inner product over the floating tensors (or over ``tensors``), accumulated in float64.

    Raises:
        WeightsError: the two do not fit together, or a name is none of theirs.
    """
    check_alike(first, second)
    total = 0.0
    for name in _floating(first, tensors):
        total += float(
            torch.dot(
                numbers(first[name]).flatten().double(), numbers(second[name]).flatten().to(first[name].device).double()
            )
        )
    return total


def norm(weights: Weights, *, tensors: Collection[str] | None = None) -> float:
    """Euclidean length over the floating tensors (or over ``tensors``)."""
    return math.sqrt(dot(weights, weights, tensors=tensors))


def distance(first: Weights, second: Weights, *, tensors: Collection[str] | None = None) -> float:
    """Euclidean distance over the floating tensors (or over ``tensors``).

    Raises:
        WeightsError: the two do not fit together, or a name is none of theirs.
    """
    check_alike(first, second)
    square = 0.0
    for name in _floating(first, tensors):
        one, other = numbers(first[name]), numbers(second[name]).to(first[name].device)
        square += float((one.double() - other.double()).square().sum())
    return math.sqrt(square)


def cosine(first: Weights, second: Weights, *, tensors: Collection[str] | None = None) -> float:
    """The overlap q: cosine of the angle between two solutions, in [−1, 1].

    Raises:
        WeightsError: one of them is zero everywhere.
    """
    lengths = norm(first, tensors=tensors) * norm(second, tensors=tensors)
    if lengths == 0.0:
        raise WeightsError("an overlap needs weights that are not all zero")
    return max(-1.0, min(1.0, dot(first, second, tensors=tensors) / lengths))  # rounding can leave the range


def stack(solutions: Sequence[Weights]) -> dict[str, Tensor]:
    """Many solutions as one mapping whose tensors have a leading solution axis.

    Raises:
        WeightsError: no solutions, or they do not fit together.
    """
    if not solutions:
        raise WeightsError("stack needs at least one solution, got none")
    for other in solutions[1:]:
        check_alike(solutions[0], other, what="stacked solutions")
    return {name: torch.stack([solution[name] for solution in solutions]) for name in solutions[0]}


def unstack(stacked: Weights) -> list[dict[str, Tensor]]:
    """The solutions of a stacked mapping, as views."""
    return [pick(stacked, index) for index in range(count(stacked))]


def pick(stacked: Weights, index: int | slice) -> dict[str, Tensor]:
    """One solution of a stacked mapping, or some of them stacked, as views."""
    return {name: tensor[index] for name, tensor in stacked.items()}


def count(stacked: Weights) -> int:
    """How many solutions a stacked mapping holds.

    Raises:
        WeightsError: leading axes of different lengths.
    """
    sizes = {tensor.shape[0] if tensor.dim() else -1 for tensor in stacked.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise WeightsError(f"stacked weights must share one leading axis, got lengths {sorted(sizes)}")
    return sizes.pop()


def nbytes(weights: Weights) -> int:
    """Memory of all tensors, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def flatten(weights: Weights, *, tensors: Collection[str] | None = None) -> Float[Tensor, " entries"]:
    """The floating tensors (or ``tensors``, in the mapping's order) as one vector."""
    parts = [numbers(weights[name]).reshape(-1) for name in _floating(weights, tensors)]
    return torch.cat(parts) if parts else torch.empty(0)


def unflatten(
    vector: Float[Tensor, " entries"], like: Weights, *, tensors: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The inverse of :func:`flatten`; tensors outside ``tensors`` are taken from ``like``. Keeps gradients.

    Raises:
        WeightsError: the vector has another length than the tensors together.
    """
    chosen = _floating(like, tensors)
    if vector.numel() != sum(numbers(like[name]).numel() for name in chosen):
        wanted = sum(numbers(like[name]).numel() for name in chosen)
        raise WeightsError(f"the vector must have {wanted} entries, got {vector.numel()}")
    result, position = dict(like), 0
    for name in chosen:
        real = numbers(like[name])
        part = vector[position : position + real.numel()].view(real.shape).to(real.dtype)
        result[name] = torch.view_as_complex(part.contiguous()) if like[name].is_complex() else part
        position += real.numel()
    return result


def to(
    weights: Weights, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Weights on another device or, for floating tensors, in another precision."""
    return {
        name: tensor.to(
            device=device or tensor.device, dtype=dtype if tensor.is_floating_point() and dtype else tensor.dtype
        )
        for name, tensor in weights.items()
    }


def _floating(weights: Weights, tensors: Collection[str] | None) -> list[str]:
    """Names that take part in linear algebra, in the mapping's own order."""
    if tensors is not None:
        if unknown := [name for name in tensors if name not in weights]:
            raise WeightsError(f"tensors must be of the weights; unknown: {listed(unknown)}")
        wanted = set(tensors)
        return [name for name in weights if name in wanted]
    return [name for name, tensor in weights.items() if mixes(tensor)]
