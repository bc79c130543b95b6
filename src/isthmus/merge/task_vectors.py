"""Merging what fine-tuning changed: task vectors, trimmed, thinned out, elected, added to the common base."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.weights import Weights
from isthmus.merge.fitting import running_statistic
from isthmus.merge.kernels import crumbs_of, kept_of
from isthmus.merge.merger import (
    check_share,
    check_solutions,
    check_weights,
    merge_tensors,
    tied,
    weighted_sum,
    working_precision,
)
from isthmus.merge.selection import dare_masks

_PART = 1 << 16
Scope = Literal["tensor", "model"]


@dataclasses.dataclass(frozen=True)
class TaskArithmetic:
    """base + scale·Σ wᵢ(solutionᵢ − base).

    Attributes:
        scale: factor of the sum (λ); 1/n makes it the average of n solutions. A negative one makes the base forget.
        weights: one for each solution; all 1 by default.

    Reference: Ilharco et al., "Editing models with task arithmetic" (2212.04089), section 2.
    """

    scale: float = 1.0
    weights: tuple[float, ...] | None = None

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        shares = check_weights(self.weights, solutions, normalised=False)
        return _merge(solutions, base, self.scale, lambda _, vectors: weighted_sum(vectors, shares))


@dataclasses.dataclass(frozen=True)
class TIES:
    """Trim small changes, elect a sign for each entry, average the changes that agree with it.

    Attributes:
        density: share of each task vector that is kept, the largest by magnitude.
        scale: factor of the merged task vector (λ).
        weights: one for each solution; all 1 by default.
        scope: trim within each ``tensor``, or over the whole ``model`` as in the paper. Streaming trims within tensors.

    Exactly int(density·entries) are kept; of equal magnitudes those that come first. Magnitudes are ranked in the
    solutions' own precision. The sum of zero elects the positive sign.

    Reference: Yadav et al., "TIES-merging: resolving interference when merging models" (2306.01708), Algorithm 1.

    Example:
        >>> base, one = {"w": torch.zeros(4)}, {"w": torch.tensor([4.0, 3.0, 0.1, 0.2])}
        >>> other = {"w": torch.tensor([2.0, -1.0, 0.3, 0.1])}
        >>> TIES(density=0.5)([one, other], base=base)["w"]
        tensor([3., 3., 0., 0.])
    """

    density: float = 0.2
    scale: float = 1.0
    weights: tuple[float, ...] | None = None
    scope: Scope = "tensor"

    def __post_init__(self) -> None:
        check_share("density", self.density)
        if self.scope not in ("tensor", "model"):
            raise SettingError(f"scope must be tensor or model, got {self.scope}")

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        shares = check_weights(self.weights, solutions, normalised=False)
        check_solutions(solutions, base=base)
        masks = _model_masks(solutions, base, self.density) if self.scope == "model" else None

        def rule(name: str, vectors: list[Tensor]) -> Tensor:
            kind = solutions[0][name].dtype
            for place, vector in enumerate(vectors):
                if masks is not None:
                    vector.mul_(masks[place][name])
                elif self.density < 1:
                    magnitude = vector.to(kind).abs().flatten()
                    vector.mul_(largest_entries(magnitude, kept_of(vector.numel(), self.density)).view_as(vector))
            return elect(vectors, shares)

        return _merge(solutions, base, self.scale, rule)


@dataclasses.dataclass(frozen=True)
class DARE:
    """Drop changes at random, make up for it by a factor, then add them up or merge them as TIES does.

    Attributes:
        density: probability that an entry is kept (1 − p in the paper).
        then: ``linear`` sums, ``ties`` elects signs and averages what agrees.
        scale: factor of the merged task vector (λ).
        weights: one for each solution; all 1 by default.
        seed: of the masks, which depend on it, the tensor's name and the solution's place alone: the same on every
            device, and the same as in streaming.

    Reference: Yu et al., "Language models are super Mario" (2311.03099). The factor is 1/density; mergekit
        0.1.5 restores the sum of magnitudes instead.
    """

    density: float = 0.5
    then: Literal["linear", "ties"] = "linear"
    scale: float = 1.0
    weights: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("density", self.density)
        if self.then not in ("linear", "ties"):
            raise SettingError(f"then must be linear or ties, got {self.then}")

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        shares = check_weights(self.weights, solutions, normalised=False)

        def rule(name: str, vectors: list[Tensor]) -> Tensor:
            for place, vector in enumerate(vectors):
                parts = list(
                    dare_masks(vector.numel(), self.density, seed=self.seed, name=name, solution=place, part=_PART)
                )
                if parts:
                    mask = torch.cat([torch.from_numpy(mask) for mask, _ in parts]).view_as(vector)
                    vector.mul_(mask.to(vector.device)).div_(parts[0][1])
            return elect(vectors, shares) if self.then == "ties" else weighted_sum(vectors, shares)

        return _merge(solutions, base, self.scale, rule)


@dataclasses.dataclass(frozen=True)
class MagnitudeMax:
    """For each entry the change of largest magnitude.

    Equal magnitudes are averaged, so the order of the solutions does not matter.

    Attributes:
        scale: factor of the merged task vector (λ).

    Reference: Marczak et al., "MagMax: leveraging model merging for seamless continual learning" (2407.06322).
    """

    scale: float = 1.0

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""

        def rule(_: str, vectors: list[Tensor]) -> Tensor:
            stacked = torch.stack(vectors)
            largest = stacked.abs() == stacked.abs().amax(0)
            return (stacked * largest).sum(0) / largest.sum(0)

        return _merge(solutions, base, self.scale, rule)


@dataclasses.dataclass(frozen=True)
class ModelBreadcrumbs:
    """Add up changes of middling size: both the largest and the smallest of every tensor are dropped.

    Attributes:
        density: share of each tensor's entries that is kept (the paper's 1 − β − γ).
        outliers: share of the largest entries that is dropped (γ); less where density leaves no room.
        scale: factor of the sum (λ).
        weights: one for each solution; all 1 by default.

    Reference: Davari and Belilovsky, "Model breadcrumbs: scaling multi-task model merging with sparse masks"
        (2312.06795).
    """

    density: float = 0.85
    outliers: float = 0.01
    scale: float = 1.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_share("density", self.density)
        check_share("outliers", self.outliers, zero=True)

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        shares = check_weights(self.weights, solutions, normalised=False)

        def rule(name: str, vectors: list[Tensor]) -> Tensor:
            if self.density < 1:
                for vector in vectors:
                    dropped, kept = crumbs_of(vector.numel(), self.density, self.outliers)
                    order = vector.to(solutions[0][name].dtype).abs().flatten().argsort(stable=True)
                    mask = torch.zeros(vector.numel(), dtype=torch.bool, device=vector.device)
                    mask[order[dropped : dropped + kept]] = True
                    vector.mul_(mask.view_as(vector))
            return weighted_sum(vectors, shares)

        return _merge(solutions, base, self.scale, rule)


def elect(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted average, entry by entry, of those vectors whose weighted sign is that of the weighted sum."""
    weighted = [vector * weight for vector, weight in zip(vectors, weights, strict=True)]
    sign = torch.where(torch.stack(weighted).sum(0) >= 0, 1.0, -1.0).to(weighted[0].dtype)
    total, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for vector, weight in zip(weighted, weights, strict=True):
        agrees = vector * sign > 0
        total += vector * agrees
        divisor += agrees * weight
    return total / torch.where(divisor == 0, 1.0, divisor)


def _merge(
    solutions: Sequence[Weights], base: Weights, scale: float, rule: Callable[[str, list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    """Base + scale·rule(task vectors), tensor by tensor."""
    check_solutions(solutions, base=base)

    def shifted(name: str, tensors: list[Tensor]) -> Tensor:
        *wide, origin = tensors
        return origin + scale * rule(name, [tensor - origin for tensor in wide])

    return merge_tensors(solutions, shifted, base=base)


def widened(tensor: Tensor) -> Tensor:
    """The tensor in the precision that differences are taken in, at least float32."""
    return tensor.detach().to(working_precision(tensor))


def largest_entries(magnitudes: Tensor, kept: int) -> Tensor:
    """Mask of exactly ``kept`` entries: the largest, and of equal ones those that come first."""
    size = magnitudes.numel()
    if kept >= size:
        return torch.ones(size, dtype=torch.bool, device=magnitudes.device)
    wide = magnitudes.float() if magnitudes.element_size() < 4 else magnitudes
    threshold = wide.kthvalue(size - kept + 1).values
    mask = wide > threshold
    ties = (wide == threshold).nonzero().flatten()
    mask[ties[: kept - int(mask.sum())]] = True
    return mask


def _model_masks(solutions: Sequence[Weights], base: Weights, density: float) -> list[dict[str, Tensor]]:
    """For each solution, which entries of all its floating tensors together are the largest."""
    twice = tied(*solutions, base)
    names = [n for n, t in base.items() if t.is_floating_point() and not running_statistic(n) and n not in twice]
    masks = []
    for weights in solutions:
        parts = [
            (widened(weights[n]) - widened(base[n]).to(weights[n].device)).to(weights[n].dtype).abs() for n in names
        ]
        flat = torch.cat([part.flatten() for part in parts])
        mask = largest_entries(flat, kept_of(flat.numel(), density))
        pieces = mask.split([part.numel() for part in parts])
        masks.append({n: piece.view_as(part) for n, piece, part in zip(names, pieces, parts, strict=True)})
    return masks
