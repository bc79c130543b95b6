"""How far the objective can be trusted: what the loss would be with other examples, labels, views, and metrics.

Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.noise import (
    LayerSignal,
    MetricChoice,
    Spread,
    gradient_noise,
    label_noise,
    metric_choice,
    out_of_fold,
    under_augmentation,
    under_label_noise,
    under_resampling,
)
from isthmus.train import Recipe, train
from isthmus.zoo.data import Data
from isthmus.zoo.models import build

_SHIFT = 1  # pixels: the least that another view of an image can be


@dataclasses.dataclass(frozen=True)
class Suspect(Record):
    """A training label that should be checked.

    Attributes:
        example: its place in the training set.
        label: as given.
        margin: probability of the given label less that of the most likely other one, by predictors that did not see
            the example.
    """

    example: int
    label: int
    margin: float


@dataclasses.dataclass(frozen=True)
class Uncertainty(Record):
    """What is known about the objective's uncertainty.

    Attributes:
        spreads: loss and error on the test set under each source of uncertainty.
        label_noise: share of wrong training labels, by confident learning on out-of-fold predictions.
        disagreement: share of training labels that those predictions contradict.
        suspects: labels to check first.
        noise_scale: of the training gradient, in examples: a batch size beyond which larger ones buy little; None where
            the gradient cannot be told from zero.
        layers: signal-to-noise of the training gradient by layer.
        noise_rank: how many of the covariance's leading directions hold half of its trace; None if more than were
            found.
        class_share: every class's share of the gradient's noise.
        loudest: training examples with the largest shares.
        metrics: whether loss and error choose the same solution; None for a single one.
        provenance: versions, machine, data.
    """

    spreads: tuple[Spread, ...]
    label_noise: float
    disagreement: float
    suspects: tuple[Suspect, ...]
    noise_scale: float
    layers: Mapping[str, LayerSignal]
    noise_rank: int | None
    class_share: tuple[float, ...]
    loudest: tuple[int, ...]
    metrics: MetricChoice | None
    provenance: Mapping[str, Any]


def assess(
    network: Network,
    solutions: Sequence[Weights],
    data: Data,
    recipe: Recipe,
    *,
    folds: int = 5,
    listed: int = 10,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Uncertainty:
    """Measure every source of uncertainty at the first solution.

    Args:
        network: of the solutions.
        solutions: at least one; with two or more the choice of metric is judged, too.
        data: the test set is what the spreads are of; training labels are checked; the gradient is the training set's.
        recipe: of the predictors that check the labels.
        folds: of them.
        listed: how many suspects and examples to name.
        seed: of folds and draws.
        device: where the predictors are trained.
        progress: told after each part.

    Raises:
        DataError: labels all of one class, or fewer examples of a class than folds.

    Cost: ``folds`` trainings, a few passes over the data, and 20 to 60 passes of single gradients if they do not fit.
    """
    weights = solutions[0]
    probabilities = out_of_fold(
        _trainer(recipe, data, device), data.train_inputs, data.train_targets, folds=folds,
        generator=child(seed, "uncertainty", "folds"),
    )  # fmt: skip
    progress(2, 4, "labels")
    labels = label_noise(probabilities, data.train_targets)
    objective = Objective(network, data.test_inputs, data.test_targets)
    spreads = list(under_resampling(objective, weights, generator=child(seed, "uncertainty", "examples")))
    spreads += under_label_noise(
        objective, weights, share=labels.share, classes=data.classes, generator=child(seed, "uncertainty", "labels")
    )
    if len(data.shape) == 3:
        generator = child(seed, "uncertainty", "views")
        spreads += under_augmentation(objective, weights, _shifted, generator=generator)
    progress(3, 4, "gradient")
    found = gradient_noise(Objective(network, data.train_inputs, data.train_targets), weights)
    metrics = None
    if len(solutions) > 1:
        metrics = metric_choice(objective, solutions, generator=child(seed, "uncertainty", "metrics"))
    half = (found.values.cumsum(0) >= found.total.variance / 2).nonzero().flatten()
    named = zip(labels.suspects[:listed].tolist(), labels.margins[:listed].tolist(), strict=True)
    return Uncertainty(
        spreads=tuple(spreads),
        label_noise=labels.share,
        disagreement=labels.disagreement,
        suspects=tuple(Suspect(index, int(data.train_targets[index]), margin) for index, margin in named),
        noise_scale=found.noise_scale,
        layers=found.layers,
        noise_rank=int(half[0]) + 1 if len(half) else None,
        class_share=tuple(found.class_share.tolist()) if found.class_share is not None else (),
        loudest=tuple(found.loudest(listed).tolist()),
        metrics=metrics,
        provenance={**provenance(), "data": data.fingerprint},
    )


def _trainer(recipe: Recipe, data: Data, device: str) -> Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]:
    """Inputs and labels → a function from inputs to class probabilities."""

    def fitted(inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        part = dataclasses.replace(data, train_inputs=inputs, train_targets=labels)
        [replica] = train(recipe, data=part, module=build, device=device, scores="never")
        network = Network.of(build(recipe).to(device))
        weights = {name: tensor.to(device) for name, tensor in replica.weights.items()}

        @torch.no_grad()
        def probabilities(held: Tensor) -> Tensor:
            return torch.cat([network(weights, some).double().softmax(1) for some in held.split(500)])

        return probabilities

    return fitted


def _shifted(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Each image moved by up to one pixel in each direction, its edge repeated."""
    [images] = inputs
    height, width = images.shape[-2:]
    padded = functional.pad(images, [_SHIFT] * 4, mode="replicate")
    starts = torch.randint(2 * _SHIFT + 1, (len(images), 2), generator=generator)
    rows = (starts[:, :1] + torch.arange(height)).to(images.device)
    columns = (starts[:, 1:] + torch.arange(width)).to(images.device)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return (padded[batch, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1),)
