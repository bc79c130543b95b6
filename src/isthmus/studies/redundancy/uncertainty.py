"""How far the objective can be trusted: what the loss would be with other examples, labels, views, and metrics.

Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.core.errors import SettingError
from isthmus.core.losses import IGNORED, class_scores, error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.curvature import eigenpairs, hessian
from isthmus.noise import (
    GradientNoise,
    InEigenbasis,
    LayerSignal,
    MetricChoice,
    PerExampleGradients,
    Spread,
    gradient_noise,
    gradient_under_augmentation,
    gradient_under_label_noise,
    gradient_under_resampling,
    metric_choice,
    under_augmentation,
    under_label_noise,
    under_resampling,
)
from isthmus.studies.redundancy.risk import Risks, before_training, with_noise
from isthmus.train import Recipe
from isthmus.zoo.data import Data

_SHIFT = 1  # pixels: the least that another view of an image can be
_VIEWS = 20  # draws that cost a gradient of all data each


@dataclasses.dataclass(frozen=True)
class LoudExample(Record):
    """A training example that single gradients disagree with most.

    Attributes:
        example: its place in the training set.
        label: as given.
        share: of the gradient's noise, in units of the mean example's share.
        suspect: whether its label is also among those that should be checked.
    """

    example: int
    label: int
    share: float
    suspect: bool


@dataclasses.dataclass(frozen=True)
class Uncertainty(Record):
    """What is known about the objective's uncertainty.

    Attributes:
        risks: the risk table: known before training.
        spreads: loss, error and Brier score on the test set, and length and direction of the training gradient, under
            each source of uncertainty; empty before training, as all that follows.
        start_scale: noise scale of the training gradient at the network's initial weights, in examples; known before
            training, too.
        noise_scale: the same at the first solution, in examples; None where the gradient cannot be told from zero.
        layers: signal-to-noise of the training gradient by layer.
        noise_rank: how many of the covariance's leading directions hold half of its trace; None if more than were
            found.
        eigenbasis: the gradient's noise along the Hessian's leading eigenvectors.
        loudest: training examples with the largest shares of the noise.
        metrics: whether loss and metrics choose the same solution; None for a single one.
        provenance: versions, machine, data.
    """

    risks: Risks
    start_scale: float | None
    spreads: tuple[Spread, ...]
    noise_scale: float | None
    layers: Mapping[str, LayerSignal]
    noise_rank: int | None
    eigenbasis: InEigenbasis | None
    loudest: tuple[LoudExample, ...]
    metrics: MetricChoice | None
    provenance: Mapping[str, Any]


def brier(outputs: Any, targets: Tensor) -> Tensor:
    """The Brier score of each label: squared distance of the class probabilities from it, in 0 … 2; 0 for −100."""
    scores, labels = class_scores(outputs, targets)
    truth = functional.one_hot(labels.clamp_min(0), scores.shape[1]).movedim(-1, 1)
    return torch.where(labels == IGNORED, 0.0, (scores.double().softmax(1) - truth).square().sum(1))


def assess(
    network: Network,
    solutions: Sequence[Weights],
    data: Data,
    recipe: Recipe,
    *,
    folds: int = 5,
    listed: int = 10,
    label_noise: Sequence[float] = (0.05,),
    directions: int = 10,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Uncertainty:
    """Measure every source of uncertainty at the first solution.

    Args:
        network: of the solutions, with the weights that training starts from.
        solutions: without any, only what is known before training; with two or more the choice of metric is judged,
            too.
        data: the test set is what the spreads are of; training labels are checked; the gradient is the training set's.
        recipe: of the predictors that check the labels.
        folds: of them.
        listed: how many suspects and examples to name.
        label_noise: shares of wrong labels to inject, besides the estimated one.
        directions: leading eigenvectors of the Hessian along which the gradient's noise is measured.
        seed: of folds and draws.
        device: where the predictors are trained.
        progress: told after each part.

    Raises:
        DataError: labels all of one class, or fewer examples of a class than folds.
        SettingError: a share of wrong labels outside 0 … 1.

    Cost: ``folds`` trainings, some 80 gradients of all data, 20 to 60 Hessian products, and 20 to 60 passes of single
        gradients if they do not fit in memory.
    """
    if wrong := [share for share in label_noise if not 0 <= share <= 1]:
        raise SettingError(f"label noise must be shares between 0 and 1, got {wrong[0]:g}")
    risks = before_training(
        data, recipe, folds=folds, listed=listed, seed=seed, device=device,
        progress=within(progress, 0, 4, share=2),
    )  # fmt: skip
    made_by = {**provenance(), "data": data.fingerprint}
    trained = Objective(network, data.train_inputs, data.train_targets)
    start = gradient_noise(trained, network.weights, leading=1).noise_scale
    if not solutions:
        return Uncertainty(risks, start, (), None, {}, None, None, (), None, made_by)
    metrics = {"error": error, "brier": brier}
    tested = Objective(network, data.test_inputs, data.test_targets, metrics=metrics)
    shares = [share for share in dict.fromkeys((risks.labels.share, *label_noise)) if share > 0]
    spreads = _of_the_loss(tested, solutions[0], data, shares, seed)
    progress(2.5, 4, "gradient")
    operator = hessian(trained, solutions[0])
    pairs = eigenpairs(operator, min(directions, operator.size))
    noise = gradient_noise(trained, solutions[0], eigenbasis=(pairs.values, pairs.vectors))
    progress(3, 4, "gradient")
    spreads += _of_the_gradient(trained, solutions[0], data, shares, seed)
    choice = None
    if len(solutions) > 1:
        choice = metric_choice(tested, solutions, generator=child(seed, "uncertainty", "metrics"))
    half = (noise.values.cumsum(0) >= noise.total.variance / 2).nonzero().flatten()
    return Uncertainty(
        risks=risks if noise.class_share is None else with_noise(risks, noise.class_share),
        start_scale=start,
        spreads=tuple(spreads),
        noise_scale=noise.noise_scale,
        layers=noise.layers,
        noise_rank=int(half[0]) + 1 if len(half) else None,
        eigenbasis=noise.eigenbasis,
        loudest=_loudest(noise, data, risks, listed),
        metrics=choice,
        provenance=made_by,
    )


def _of_the_loss(
    objective: Objective, weights: Weights, data: Data, shares: Sequence[float], seed: int
) -> list[Spread]:
    """Loss and metrics under other examples, labels and views."""
    found = list(under_resampling(objective, weights, generator=child(seed, "uncertainty", "examples")))
    for share in shares:
        found += under_label_noise(
            objective, weights, share=share, classes=data.classes, generator=child(seed, "uncertainty", "labels")
        )
    if len(data.shape) == 3:
        found += under_augmentation(objective, weights, shifted, generator=child(seed, "uncertainty", "views"))
    return found


def _of_the_gradient(
    objective: Objective, weights: Weights, data: Data, shares: Sequence[float], seed: int
) -> list[Spread]:
    """Length and direction of the training gradient under the same."""
    gradients = PerExampleGradients.at(objective, weights)
    found = list(gradient_under_resampling(gradients, generator=child(seed, "uncertainty", "gradient", "examples")))
    for share in shares:
        found += gradient_under_label_noise(
            objective, weights, share=share, classes=data.classes, draws=_VIEWS,
            generator=child(seed, "uncertainty", "gradient", "labels"),
        )  # fmt: skip
    if len(data.shape) == 3:
        found += gradient_under_augmentation(
            objective, weights, shifted, draws=_VIEWS, generator=child(seed, "uncertainty", "gradient", "views")
        )
    return found


def _loudest(noise: GradientNoise, data: Data, risks: Risks, listed: int) -> tuple[LoudExample, ...]:
    suspects = set(risks.labels.suspects.tolist())
    return tuple(
        LoudExample(
            index, int(data.train_targets[index]), float(noise.example_share[index]) * noise.examples, index in suspects
        )
        for index in noise.loudest(listed).tolist()
    )


def shifted(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Each image moved by up to one pixel in each direction, its edge repeated."""
    [images] = inputs
    height, width = images.shape[-2:]
    padded = functional.pad(images, [_SHIFT] * 4, mode="replicate")
    starts = torch.randint(2 * _SHIFT + 1, (len(images), 2), generator=generator)
    rows = (starts[:, :1] + torch.arange(height)).to(images.device)
    columns = (starts[:, 1:] + torch.arange(width)).to(images.device)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return (padded[batch, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1),)
