"""Noisy gradients of many walkers at once: the ways in which an objective can be uncertain at every step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.losses import answers
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights
from isthmus.noise.per_example import PerExampleGradients

# Gradients of many walkers at once: positions (walkers, size) and a generator → (walkers, size).
Gradients = Callable[[Float[Tensor, "walkers size"], torch.Generator], Float[Tensor, "walkers size"]]

_TOGETHER = 2**26  # entries of gradients of as many walkers as go through the network at once


@dataclasses.dataclass(frozen=True, eq=False)
class Bowl:
    """A quadratic ½Σλθ² with noisy gradients, for which the stationary law is exact.

    Attributes:
        values: eigenvalues λ.
        noise: variance C of a single example's gradient along each of them. C ∝ λ is label noise, constant C is
            isotropic, C ∝ λ² is an optimum that moves about.
        batch_size: examples in each step.
    """

    values: Float[Tensor, " size"]
    noise: Float[Tensor, " size"]
    batch_size: int = 1

    def __call__(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient at every walker's place, each with noise of its own."""
        drawn = _normal(positions, generator)
        return self.values.to(positions) * positions + (self.noise.to(positions) / self.batch_size).sqrt() * drawn


@dataclasses.dataclass(frozen=True, eq=False)
class Sampled:
    """Gradients of batches drawn with replacement, if asked for with labels drawn anew.

    Attributes:
        examples: single gradients at the minimum; its objective's data are sampled.
        batch_size: examples in each step.
        relabel: changes the targets of a drawn batch (targets, generator) → targets: fresh label noise at every step.
        weight_decay: ½·weight_decay·‖θ‖² is part of what is minimised.
    """

    examples: PerExampleGradients
    batch_size: int
    relabel: Callable[[Tensor, torch.Generator], Tensor] | None = None
    weight_decay: float = 0.0

    def __call__(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient at every walker's place over a batch of its own."""
        objective = self.examples.objective
        drawn = torch.randint(
            len(objective.targets), (len(positions), self.batch_size), generator=generator, device=generator.device
        )
        targets = objective.targets[drawn.to(objective.targets.device)]
        if self.relabel is not None:
            targets = self.relabel(targets, generator)
        inputs = [part[drawn.to(part.device)] for part in objective.parts]
        slopes = _slopes(self.examples, positions, targets, inputs, own=True)
        return slopes + self.weight_decay * positions if self.weight_decay else slopes


@dataclasses.dataclass(frozen=True, eq=False)
class Shaken:
    """The whole data's gradient with noise that knows nothing of the data.

    Attributes:
        examples: single gradients at the minimum.
        deviation: of the noise. ``isotropic``: of every entry of the gradient, so that C/n = deviation² everywhere;
            ``moving``: of every entry of the optimum's place, drawn anew at each step, so that C/n = (λ·deviation)².
        kind: ``isotropic`` or ``moving``.
        weight_decay: ½·weight_decay·‖θ‖² is part of what is minimised.
    """

    examples: PerExampleGradients
    deviation: float
    kind: str = "isotropic"
    weight_decay: float = 0.0

    def __call__(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient of all data at every walker's place, each with noise of its own."""
        drawn = self.deviation * _normal(positions, generator)
        places = positions + drawn if self.kind == "moving" else positions
        objective = self.examples.objective
        slopes = _slopes(self.examples, places, objective.targets, list(objective.parts), own=False)
        slopes = slopes + self.weight_decay * places if self.weight_decay else slopes
        return slopes + drawn if self.kind == "isotropic" else slopes


def teaching(objective: Objective, weights: Weights) -> Objective:
    """The objective whose labels are the network's own predictions: its targets are class probabilities.

    With :func:`drawn_labels` every step draws labels from them. The place itself is then the global minimum, whatever
    training left, the Hessian is the Gauss–Newton matrix exactly, and the noise of single gradients has that matrix as
    its covariance: pure label noise, C = λ.
    """
    scores = [answers(outputs) for outputs, _ in objective.outputs(weights)]
    # Double precision: probabilities of a sure network must still add up to one.
    return dataclasses.replace(objective, targets=torch.cat([part.double().softmax(1) for part in scores]), metrics={})


def drawn_labels(probabilities: Float[Tensor, "*examples classes"], generator: torch.Generator) -> Tensor:
    """One label for each row of class probabilities."""
    ends = probabilities.cumsum(-1)
    drawn = torch.rand(ends.shape[:-1], generator=generator, device=generator.device, dtype=torch.float64)
    # Rounding may leave the last end below 1.
    return (drawn[..., None].to(ends) >= ends[..., :-1]).sum(-1)


def _slopes(
    examples: PerExampleGradients, positions: Tensor, targets: Tensor, inputs: list[Tensor], *, own: bool
) -> Float[Tensor, "walkers size"]:
    """Each walker's gradient of the mean loss, over a batch of its ``own`` or over one that all share."""
    cast = [part.to(positions.dtype) if part.is_floating_point() else part for part in inputs]
    slope = torch.func.grad(examples.loss_of)
    axis = 0 if own else None
    if examples.vectorises:
        many = torch.func.vmap(slope, in_dims=(0, axis, *[axis] * len(cast)))
        most = max(1, _TOGETHER // max(1, examples.size, *(part[0].numel() if own else part.numel() for part in cast)))
        with contextlib.suppress(RuntimeError, NotImplementedError):
            rows = []
            for first in range(0, len(positions), most):
                part = slice(first, first + most)
                data = [tensor[part] for tensor in (targets, *cast)] if own else [targets, *cast]
                rows.append(many(positions[part], *data))
            return torch.cat(rows).detach()
    pick = (lambda tensor, index: tensor[index]) if own else (lambda tensor, index: tensor)
    return torch.stack([
        slope(position, pick(targets, index), *[pick(part, index) for part in cast])
        for index, position in enumerate(positions)
    ]).detach()  # fmt: skip


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
