"""Sharpness as a rise of the loss: under random perturbations, in the worst case of a ball, free of scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.weights import Weights
from isthmus.curvature.kept import chosen_names, working_precision

Perturbation = Literal["filter-normalised random", "worst case in a ball", "adaptive worst case"]


@dataclasses.dataclass(frozen=True)
class Sharpness(Record):
    """How much the loss rises.

    Attributes:
        perturbation: which kind; numbers of different kinds cannot be compared.
        rise: loss after less loss before: the mean over directions, or the largest that was found (a lower bound of the
            true maximum).
        interval: of the mean over directions; ``None`` for a worst case.
        rises: every direction's, or the best after every step of the ascent.
        loss: before the perturbation.
        radius: how far, in the measure of the kind.
    """

    perturbation: Perturbation
    rise: float
    interval: Interval | None
    rises: Float[Tensor, " trials"]
    loss: float
    radius: float


def random_sharpness(
    objective: Objective,
    weights: Weights,
    *,
    generator: torch.Generator,
    radius: float = 0.1,
    directions: int = 20,
    tensors: Collection[str] | None = None,
    progress: Progress = silent,
) -> Sharpness:
    """Mean rise of the loss under random perturbations whose filters are as long as the network's, times ``radius``.

    Every row along the first axis of a tensor with two or more axes is a filter; vectors (biases, normalisation) stay.
    So the measure does not change when ReLU units are rescaled without biases; with biases take the scale out first
    (:func:`isthmus.core.canonical.unit_scale`), for they stay where they are while their unit's length changes.

    Args:
        objective: network, data and loss, in evaluation mode.
        weights: where; perturbed in at least float32.
        generator: draws the directions.
        radius: length of each filter's perturbation relative to the filter, positive.
        directions: how many, at least 2.
        tensors: tensors to perturb; all trainable ones with two or more axes by default.
        progress: told of the directions done.

    Raises:
        SettingError: a radius that is not positive, fewer than two directions.
        WeightsError: no tensor with two or more axes.

    Cost: ``directions`` + 1 evaluations.

    Reference: Li et al., "Visualizing the loss landscape of neural nets" (NeurIPS 2018), section 4.
    """
    _check(radius, directions, least=2, what="directions")
    start, chosen = _start(objective, weights, tensors)
    chosen = tuple(name for name in chosen if start[name].dim() >= 2)
    if not chosen:
        raise WeightsError("filter-normalised perturbations need a tensor with two or more axes, found none")
    loss = objective(start).loss
    rises = []
    for done in range(directions):
        progress(done, directions, "directions")
        moved = dict(start)
        for name in chosen:
            moved[name] = start[name] + radius * _filter_normalised(start[name], generator)
        rises.append(objective(moved).loss - loss)
    progress(directions, directions, "directions")
    interval = dataclasses.replace(over_networks(rises), method="Student's t over directions")
    sample = torch.tensor(rises, dtype=torch.float64)
    return Sharpness("filter-normalised random", interval.estimate, interval, sample, loss, radius)


def worst_case(
    objective: Objective,
    weights: Weights,
    *,
    radius: float = 0.05,
    steps: int = 20,
    start: Float[Tensor, " size"] | None = None,
    tensors: Collection[str] | None = None,
    progress: Progress = silent,
) -> Sharpness:
    """The largest rise of the loss found in the Euclidean ball, by repeating SAM's ascent.

    Each step goes to the point of the sphere that the gradient points to, which never descends where the loss is
    convex; the first step is SAM's own. The best point is kept. Not invariant to rescaling: take the scale out first,
    or use :func:`adaptive_worst_case`.

    Args:
        objective: network, data and loss, in evaluation mode.
        weights: where; moved in at least float32.
        radius: of the ball, positive.
        steps: gradients taken, at least 1; 1 is SAM's estimate.
        start: a direction to begin with, such as the top eigenvector: at a minimum the gradient says little.
        tensors: tensors to perturb; all trainable ones by default.
        progress: told of the steps done.

    Raises:
        SettingError: a radius that is not positive, no steps.
        WeightsError: ``start`` has not one entry for each weight that moves, or a tensor is none of the network's.

    Cost: ``steps`` gradients and one evaluation.

    Reference: Foret et al., "Sharpness-aware minimization" (ICLR 2021), equation 2, repeated.
    """
    return _ascent(
        objective, weights, torch.ones_like, perturbation="worst case in a ball", radius=radius, steps=steps,
        start=start, tensors=tensors, progress=progress,
    )  # fmt: skip


def adaptive_worst_case(
    objective: Objective,
    weights: Weights,
    *,
    radius: float = 0.5,
    steps: int = 20,
    start: Float[Tensor, " size"] | None = None,
    tensors: Collection[str] | None = None,
    progress: Progress = silent,
) -> Sharpness:
    """The largest rise of the loss found where every weight may move in proportion to itself: ‖ε / |w|‖ ≤ radius.

    Unchanged when units are rescaled, so that flatness of different networks can be compared. Arguments as in
    :func:`worst_case`; ``start`` is a direction of ε / |w|. Weights that are exactly zero cannot move.

    Raises:
        SettingError: as there.
        WeightsError: as there.

    Reference: Kwon et al., "ASAM" (ICML 2021), definition 2 with the element-wise operator |w|, repeated.
    """
    return _ascent(
        objective, weights, torch.abs, perturbation="adaptive worst case", radius=radius, steps=steps,
        start=start, tensors=tensors, progress=progress,
    )  # fmt: skip


def _ascent(
    objective: Objective,
    weights: Weights,
    length: Callable[[Tensor], Tensor],
    *,
    perturbation: Perturbation,
    radius: float,
    steps: int,
    start: Tensor | None,
    tensors: Collection[str] | None,
    progress: Progress,
) -> Sharpness:
    """Frank–Wolfe with full steps on the ball of ε / length(w)."""
    _check(radius, steps, least=1, what="steps")
    centre, chosen = _start(objective, weights, tensors)
    lengths = {name: length(centre[name]) for name in chosen}
    here = dict(centre)
    if start is not None:
        here = _on_sphere(centre, lengths, _parts(start, centre, chosen), radius)
    loss = objective(centre).loss
    best, rises = 0.0, []
    for done in range(steps):
        progress(done, steps, "ascent")
        score, gradient = objective.gradient(here)
        if done or start is not None:
            best = max(best, score.loss - loss)
            rises.append(best)
        here = _on_sphere(centre, lengths, {name: lengths[name] * gradient[name] for name in chosen}, radius)
    best = max(best, objective(here).loss - loss)
    progress(steps, steps, "ascent")
    return Sharpness(perturbation, best, None, torch.tensor([*rises, best], dtype=torch.float64), loss, radius)


def _on_sphere(
    centre: dict[str, Tensor], lengths: dict[str, Tensor], direction: dict[str, Tensor], radius: float
) -> dict[str, Tensor]:
    """The point centre + lengths ∘ δ, δ along the direction with ‖δ‖ = radius; the centre if that is zero."""
    total = sum(float(part.double().square().sum()) for part in direction.values()) ** 0.5
    step = radius / total if total > 0 else 0.0
    return {**centre, **{name: centre[name] + step * lengths[name] * part for name, part in direction.items()}}


def _parts(vector: Tensor, centre: dict[str, Tensor], chosen: tuple[str, ...]) -> dict[str, Tensor]:
    sizes = [centre[name].numel() for name in chosen]
    if vector.numel() != sum(sizes):
        raise WeightsError(
            f"start must have {sum(sizes)} entries, one for each weight that moves, got {vector.numel()}"
        )
    pieces = zip(chosen, vector.split(sizes), strict=True)
    return {name: piece.to(centre[name]).view_as(centre[name]) for name, piece in pieces}


def _start(
    objective: Objective, weights: Weights, tensors: Collection[str] | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights in at least float32, tied copies left to their first name, and the names that move."""
    chosen = chosen_names(objective, tensors)
    dtype = working_precision([weights[name] for name in chosen])
    kept = {name: tensor for name, tensor in weights.items() if name not in objective.network.tied}
    return {n: t.detach().to(dtype) if t.is_floating_point() else t for n, t in kept.items()}, chosen


def _filter_normalised(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A random tensor whose rows along the first axis are as long as the tensor's."""
    drawn = torch.randn(tensor.shape, generator=generator, device=generator.device).to(tensor)
    rows = drawn.flatten(1)
    lengths = tensor.flatten(1).norm(dim=1) / rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    return (rows * lengths[:, None]).view_as(tensor)


def _check(radius: float, count: int, *, least: int, what: str) -> None:
    if not radius > 0:
        raise SettingError(f"radius must be positive, got {radius}")
    if count < least:
        raise SettingError(f"{what} must be at least {least}, got {count}")
