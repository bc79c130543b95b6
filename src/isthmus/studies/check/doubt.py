"""How far the objective that decides can be trusted itself: wrong labels, and the gradient's noise against its signal.

Reference: Northcutt et al., "Confident learning", JAIR 70 (2021); McCandlish et al., arXiv 1812.06162, appendix A.1,
whose two batch sizes are here one part of the examples and all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.objective import Objective
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.noise import label_noise
from isthmus.studies.check.views import View

_PARTS = 8  # means of eight parts give the gradient's variance to about half of itself, enough for its order
_SUSPECTS = 20  # as many labels as a person looks at in one sitting


@dataclasses.dataclass(frozen=True)
class Signal(Record):
    """The gradient of one model's training loss against its noise.

    Attributes:
        name: of the model.
        to_noise: squared length of the gradient over the variance of its estimate from all examples looked at; 0 where
            it cannot be told from zero, as at a minimum.
        noise_scale: examples at which signal and noise are equal; ``None`` where there is no signal.
        examples: that were looked at.
    """

    name: str
    to_noise: float
    noise_scale: float | None
    examples: int


@dataclasses.dataclass(frozen=True)
class Doubt(Record):
    """What limits every number of a check.

    Attributes:
        label_share: estimated share of wrong labels among those that decide; ``None`` where the models were trained on
            them, or have learned too little to contradict anybody.
        disagreement: share of labels that the models together contradict: wrong labels and wrong models.
        suspects: examples whose labels to check first, the most doubtful first.
        signals: of each model.
    """

    label_share: float | None
    disagreement: float
    suspects: tuple[int, ...]
    signals: tuple[Signal, ...]


def doubt(
    views: Sequence[View],
    training: Objective,
    solutions: Sequence[Weights],
    *,
    names: Sequence[str],
    unseen: bool,
) -> Doubt:
    """Look at labels through what all models say of them, and at every model's gradient.

    Args:
        views: of the models, with their probabilities.
        training: the loss that they were trained on, over the examples to spend on gradients.
        solutions: the models' weights.
        names: of the models.
        unseen: whether the models never saw the labels that decide. A model that fits its labels hides every error.

    Cost: one pass forwards and backwards over the training examples for each model.
    """
    kept = [view.probabilities for view in views if view.probabilities is not None]
    together, labels = torch.stack(kept).mean(0), views[0].targets
    share, suspects = None, ()
    if unseen:
        try:
            found = label_noise(together, labels)
        except DataError:
            pass  # labels of one class only: there is nothing to mistake one for
        else:
            share, suspects = found.share, tuple(found.suspects[:_SUSPECTS].tolist())
    contradicted = float((together.argmax(1) != labels).double().mean())
    signals = tuple(signal(training, weights, name=name) for name, weights in zip(names, solutions, strict=True))
    return Doubt(share, contradicted, suspects, signals)


def signal(objective: Objective, weights: Weights, *, name: str = "") -> Signal:
    """The gradient against its noise, from the gradients of eight parts of the examples.

    With parts of b of N examples the spread of the parts' means estimates the variance of one example over b; the
    squared length of the whole mean, less its own variance, estimates that of the true gradient without bias.

    Raises:
        DataError: fewer than two examples.
    """
    size = len(objective.targets) // _PARTS or 1
    count = min(_PARTS, len(objective.targets) // size)
    if count < 2:
        raise DataError(f"a gradient's noise needs at least 2 examples, got {len(objective.targets)}")
    gradients = [_gradient(objective.over(slice(place * size, (place + 1) * size)), weights) for place in range(count)]
    mean = sum(gradients[1:], gradients[0]) / count
    spread = sum(float((one - mean).square().sum()) for one in gradients) / (count - 1)
    variance, examples = spread * size, size * count
    length = float(mean.square().sum()) - variance / examples
    if length <= 0 or variance <= 0:
        return Signal(name, 0.0, None, examples)
    return Signal(name, length * examples / variance, variance / length, examples)


def _gradient(objective: Objective, weights: Weights) -> Tensor:
    """Of all trainable tensors, in at least float32, as one vector."""
    _, found = objective.gradient(weights)
    return torch.cat([part.flatten().to(torch.promote_types(part.dtype, torch.float32)) for part in found.values()])
