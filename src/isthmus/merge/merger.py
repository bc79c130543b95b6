"""What every merger has in common: checks of what is merged, one rounding, counters, and a word about BatchNorm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError, listed
from isthmus.core.weights import Weights, check_alike, check_finite
from isthmus.merge.fitting import running_statistic


class Merger(Protocol):
    """A value that makes one solution of many. It writes to none of them, and its result shares no memory with them."""

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        ...


class TaskMerger(Protocol):
    """A merger of task vectors: differences from the base that all solutions started from."""

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        ...


class BatchStatisticsWarning(UserWarning):
    """Running statistics were merged like weights, which they are not."""


Rule = Callable[[str, list[Tensor]], Tensor]


def check_solutions(solutions: Sequence[Weights], *, base: Weights | None = None, least: int = 1) -> None:
    """Refuse what cannot be merged.

    Raises:
        WeightsError: too few, or they differ in names, shapes or precision, or hold NaN; says which.
    """
    if len(solutions) < least:
        raise WeightsError(f"a merge needs at least {least} solution{'s' * (least > 1)}, got {len(solutions)}")
    named = [*((f"solution {place}", weights) for place, weights in enumerate(solutions))]
    named += [("the base", base)] if base is not None else []
    first = solutions[0]
    for what, weights in named:
        check_alike(first, weights, what=f"solution 0 and {what}")
        if differing := [name for name in first if first[name].dtype != weights[name].dtype]:
            name = differing[0]
            raise WeightsError(
                f"solutions must have one precision, but {name} is {first[name].dtype} in solution 0 and "
                f"{weights[name].dtype} in {what}; convert them with weights.to(…, dtype=…)"
            )
        check_finite(weights, what=what)


def merge_tensors(solutions: Sequence[Weights], rule: Rule, *, base: Weights | None = None) -> dict[str, Tensor]:
    """Apply a rule to every floating tensor and round its result once.

    Args:
        solutions: checked already.
        rule: name and the solutions' tensors in working precision → merged tensor.
        base: if given, its tensor comes last in the rule's list. Running statistics are then averaged instead:
            arithmetic on variances can go below zero.

    Of names that are one tensor (see :func:`tied`) the first is merged, and the others get the same.
    """
    merged: dict[str, Tensor] = {}
    same = tied(*solutions, *([base] if base is not None else []))
    for name, first in solutions[0].items():
        if name in same:
            merged[name] = merged[same[name]].clone()
            continue
        tensors = [weights[name] for weights in solutions]
        if not first.is_floating_point():
            merged[name] = whole_numbers(name, tensors)
            continue
        kind = working_precision(first)
        wide = [tensor.detach().to(device=first.device, dtype=kind) for tensor in tensors]
        if base is not None and running_statistic(name):
            merged[name] = average(wide).to(first.dtype)
            continue
        if base is not None:
            wide.append(base[name].detach().to(device=first.device, dtype=kind))
        result = rule(name, wide).to(first.dtype)
        merged[name] = result.clone() if any(result.data_ptr() == tensor.data_ptr() for tensor in tensors) else result
    warn_of_batch_statistics(solutions)
    return merged


def tied(*weights: Weights) -> dict[str, str]:
    """Names that hold the numbers of an earlier name in all of some weights, and that earlier name.

    Such names are one tensor of the network that is stored twice: merged apart, by what is known of each name
    (gradients, masks, coefficients), they would become two, of which a network can use only one.
    """
    alike: dict[tuple[object, ...], list[str]] = {}
    found = {}
    for name, tensor in weights[0].items():
        if not tensor.is_floating_point() or running_statistic(name) or tensor.numel() == 0:
            continue
        earlier = alike.setdefault((tensor.shape, tensor.dtype, *_probe(tensor)), [])
        first = next((n for n in earlier if all(_equal(one[n], one[name]) for one in weights)), None)
        if first is None:
            earlier.append(name)
        else:
            found[name] = first
    return found


def _probe(tensor: Tensor) -> list[float]:
    """A few entries along the diagonal, which tell most tensors apart without a look at the rest."""
    known = tensor.detach()
    return [float(known[tuple(length * quarter // 4 for length in known.shape)]) for quarter in range(4)]


def _equal(one: Tensor, other: Tensor) -> bool:
    same_memory = one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
    return same_memory or torch.equal(one, other.to(one.device))


def working_precision(tensor: Tensor) -> torch.dtype:
    """float32 for 16-bit floats, float64 for float32 (where the device has it), so that a sum is rounded once."""
    if tensor.dtype in (torch.float16, torch.bfloat16) or tensor.device.type == "mps":
        return torch.float32
    return torch.float64


def average(tensors: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Σ wᵢ·tensorᵢ / Σ wᵢ of tensors in working precision."""
    shares = [1.0] * len(tensors) if weights is None else list(weights)
    return weighted_sum(tensors, shares).div_(sum(shares))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ weightᵢ·tensorᵢ."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total


def whole_numbers(name: str, tensors: Sequence[Tensor]) -> Tensor:
    """Equal tensors as they are; of counters the largest; anything else is refused.

    Raises:
        WeightsError: an index table or quantised weights differ.
    """
    first = tensors[0]
    others = [tensor.to(first.device) for tensor in tensors[1:]]
    if all(torch.equal(first, other) for other in others):
        return first.clone()
    if first.numel() == 1 and not first.is_complex() and first.dtype != torch.bool:
        return torch.stack([first, *others]).amax(0)
    raise WeightsError(
        f"tensors that are not floating-point must be equal to be merged, but {name} ({first.dtype}) differs; "
        "expand quantised weights to a floating type first"
    )


def warn_of_batch_statistics(solutions: Sequence[Weights]) -> None:
    """Say that averaged running statistics describe none of the networks, where they differ."""
    names = [name for name in solutions[0] if running_statistic(name)]
    first = solutions[0]
    differing = [n for n in names if any(not torch.equal(first[n], s[n].to(first[n].device)) for s in solutions[1:])]
    if differing:
        warnings.warn(
            f"running statistics of {listed(differing, 2)} were averaged, but the merged network has others (its "
            "activations usually vary less); estimate them anew on training data before using it",
            BatchStatisticsWarning,
            stacklevel=4,
        )


def check_weights(weights: Sequence[float] | None, solutions: Sequence[Weights], *, normalised: bool) -> list[float]:
    """One finite coefficient for each solution; all 1 by default.

    Raises:
        SettingError: the wrong number, NaN or infinities, or their sum cannot be divided by.
    """
    if weights is None:
        return [1.0] * len(solutions)
    values = [float(weight) for weight in weights]
    if len(values) != len(solutions):
        raise SettingError(f"weights must be one for each of {len(solutions)} solutions, got {len(values)}")
    if not all(map(math.isfinite, values)):
        raise SettingError(f"weights must be finite, got {values}")
    if normalised and not abs(sum(values)) > 1e-8:
        raise SettingError(f"weights must not sum to zero when they are normalised, got {values}")
    return values


def check_share(name: str, value: float, *, zero: bool = False) -> None:
    """Refuse a share outside (0, 1], or [0, 1] where zero makes sense."""
    if not (0 <= value <= 1 if zero else 0 < value <= 1):
        raise SettingError(f"{name} must lie between 0 and 1{'' if zero else ' (not 0)'}, got {value}")
