"""Losses and metrics with one value for each example or target, and what they find in a network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.core.errors import DataError, WeightsError

PerExample = Callable[[Any, Tensor], Tensor]
IGNORED = -100  # torch's own default, which data collators fill padding with


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy in nats for each target; classes are the last axis if the shapes say so, else axis 1."""
    outputs, targets = class_scores(outputs, targets)
    return functional.cross_entropy(outputs, targets, reduction="none", ignore_index=IGNORED)


def error(outputs: Any, targets: Tensor) -> Tensor:
    """1 where the most likely class is wrong, else 0; 0 for labels of −100."""
    outputs, targets = class_scores(outputs, targets)
    return ((outputs.argmax(1) != targets) & (targets != IGNORED)).to(torch.float32)


def squared_error(outputs: Any, targets: Tensor) -> Tensor:
    """Squared error, averaged over output coordinates, for each example.

    Raises:
        WeightsError: outputs and targets have other shapes; a last axis of length 1 may be left out of either.
    """
    outputs, shape = answers(outputs), targets.shape
    if not isinstance(outputs, Tensor):
        raise WeightsError(f"predictions must be a tensor, got {type(outputs).__name__}")
    if outputs.dim() == targets.dim() + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    elif targets.dim() == outputs.dim() + 1 and targets.shape[-1] == 1:
        targets = targets.squeeze(-1)
    if outputs.shape != targets.shape:  # they would be broadcast: each prediction against each target
        raise WeightsError(f"predictions must have the targets' shape {tuple(shape)}, got {tuple(outputs.shape)}")
    return (outputs - targets.to(outputs.dtype)).square().reshape(len(outputs), -1).mean(1)


def counted(values: Tensor, targets: Tensor) -> Tensor:
    """Which values of a loss count: all but those of ignored labels, whose loss is 0.

    Args:
        values: a loss's values, one for each target or for each example.
        targets: a whole number −100 marks padding, if there is one target for each value.

    Returns:
        Booleans of the values' shape.
    """
    if targets.is_floating_point() or targets.shape != values.shape:
        return torch.ones_like(values, dtype=torch.bool)
    # A loss that knows no padding gives something else than 0 there: to a regression −100 is a number.
    return (targets != IGNORED) | (values != 0)


def check_labels(targets: Tensor, classes: int, *, what: str = "") -> None:
    """Refuse labels outside 0 … classes − 1; ``what`` names the data in the message.

    Where an example has several labels (one for each token or pixel), −100 stands for none.

    Raises:
        DataError: names the range that was found.
    """
    name = f"{what}: labels" if what else "labels"
    if targets.is_floating_point():
        raise DataError(f"{name} must be whole numbers, got {targets.dtype}")
    targets = targets[targets != IGNORED] if targets.dim() > 1 else targets
    if targets.numel() == 0:
        raise DataError(f"{name} must hold one that counts, but all are {IGNORED}")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise DataError(f"{name} must lie in 0 … {classes - 1} (the model has {classes} outputs), got {low} … {high}")


def answers(outputs: Any) -> Any:
    """The tensor of scores or predictions in what a network returns.

    A tensor is itself; else the field or key ``logits`` (as Hugging Face names it) or ``out`` (torchvision's
    segmentation), the first part of a tuple, the only entry of a mapping. What holds none of these comes back as it is.
    """
    if isinstance(outputs, Tensor):
        return outputs
    for name in ("logits", "out"):
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if isinstance(found, Tensor | tuple):
            return answers(found)
    if isinstance(outputs, Mapping):
        return answers(next(iter(outputs.values()))) if len(outputs) == 1 else outputs
    return answers(outputs[0]) if isinstance(outputs, tuple | list) and outputs else outputs


def class_scores(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Class scores and labels with the classes on axis 1, found in what a network returns by :func:`answers`.

    Raises:
        WeightsError: the outputs have not one axis more than the labels.
    """
    logits = answers(outputs)
    if not isinstance(logits, Tensor) or logits.dim() != targets.dim() + 1:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(outputs).__name__
        raise WeightsError(f"class scores must have one axis more than the labels {tuple(targets.shape)}, got {shape}")
    if targets.dim() > 1 and logits.shape[:-1] == targets.shape:
        logits = logits.movedim(-1, 1)
    return logits, targets
