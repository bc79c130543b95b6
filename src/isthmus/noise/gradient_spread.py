"""How far the gradient itself can be trusted: its length and direction under other samples, labels and views."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.objective import Objective
from isthmus.core.weights import Weights, flatten
from isthmus.noise.per_example import PerExampleGradients
from isthmus.noise.resampling import (
    AUGMENTED,
    RESAMPLED,
    Augment,
    Spread,
    check_draws,
    flipped,
    spreads,
    viewed,
    wrong_labels,
)

MEASURES = ("gradient", "turn")


def gradient_under_resampling(
    gradients: PerExampleGradients, *, generator: torch.Generator, draws: int = 100
) -> tuple[Spread, ...]:
    """Length and direction of the mean gradient over examples drawn anew with replacement.

    ``gradient`` is the length; ``turn`` is 1 less the cosine to the gradient of the data as they are: 0 for the same
    direction, 1 where nothing of it is left.

    Args:
        gradients: of single examples.
        generator: draws the samples.
        draws: how many, at least 2.

    Raises:
        SettingError: fewer than two draws.

    Cost: one pass of single gradients, and draws × examples × entries multiplications.
    """
    check_draws(draws)
    examples = gradients.examples
    drawn = torch.randint(examples, (draws, examples), generator=generator, device=generator.device).cpu()
    counts = torch.zeros(draws, examples, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(1).double().expand_as(drawn)
    )
    total = torch.zeros(draws, gradients.size, dtype=torch.float64, device=gradients.vector.device)
    mean, first = torch.zeros_like(total[0]), 0
    for chunk in gradients.chunks():
        part = counts[:, first : first + len(chunk)].to(total.device)
        total += part @ chunk.double()
        mean += chunk.double().sum(0)
        first += len(chunk)
    # A sample of examples with many tokens has more values to divide by.
    values = counts.sum(1) if gradients.shares is None else counts @ gradients.shares.cpu()
    return _of(RESAMPLED, mean / examples, total / values.clamp_min(1e-300).to(total.device)[:, None])


def gradient_under_label_noise(
    objective: Objective,
    weights: Weights,
    *,
    share: float,
    classes: int,
    generator: torch.Generator,
    draws: int = 20,
) -> tuple[Spread, ...]:
    """The same where a share of the labels, drawn anew each time, is replaced by a uniform other class.

    Args:
        objective: whose targets are labels 0 … classes − 1.
        weights: of one solution.
        share: of labels that are wrong, between 0 and 1.
        classes: how many there are, at least 2.
        generator: draws which and what.
        draws: how many, at least 2.

    Raises:
        SettingError: a share outside 0 … 1, fewer than two classes or draws.

    Cost: ``draws`` + 1 gradients of all data.
    """
    changed = (
        dataclasses.replace(objective, targets=flipped(objective.targets, share, classes=classes, generator=generator))
        for _ in range(draws)
    )
    return _over(wrong_labels(share), objective, weights, changed, draws)


def gradient_under_augmentation(
    objective: Objective, weights: Weights, augment: Augment, *, generator: torch.Generator, draws: int = 20
) -> tuple[Spread, ...]:
    """The same where every draw shows the inputs another way.

    Args:
        objective: network, data, loss.
        weights: of one solution.
        augment: a batch's inputs and a generator → inputs of the same number.
        generator: draws the views.
        draws: how many, at least 2.

    Raises:
        SettingError: fewer than two draws.

    Cost: ``draws`` + 1 gradients of all data.
    """
    changed = (viewed(objective, augment, generator) for _ in range(draws))
    return _over(AUGMENTED, objective, weights, changed, draws)


def _over(
    source: str, objective: Objective, weights: Weights, changed: Iterable[Objective], draws: int
) -> tuple[Spread, ...]:
    check_draws(draws)
    names = objective.network.parameter_names

    def gradient(of: Objective) -> Tensor:
        return flatten(of.gradient(weights)[1], tensors=names).double().cpu()

    return _of(source, gradient(objective), torch.stack([gradient(one) for one in changed]))


def _of(source: str, given: Float[Tensor, " size"], drawn: Float[Tensor, "draws size"]) -> tuple[Spread, ...]:
    lengths, length = drawn.norm(dim=1), given.norm()
    turns = 1 - (drawn @ given) / (lengths * length).clamp(min=1e-300)
    value = torch.stack([length, torch.zeros_like(length)])
    return spreads(source, MEASURES, value.cpu(), torch.stack([lengths, turns], 1).cpu())
