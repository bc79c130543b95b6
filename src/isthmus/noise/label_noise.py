"""How many labels are wrong, and which: confident learning on predictions that never saw the label they judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import DataError, SettingError
from isthmus.core.losses import check_labels
from isthmus.core.record import Record

# Training inputs and labels → a function from inputs to class probabilities.
Train = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]


@dataclasses.dataclass(frozen=True)
class LabelNoise(Record):
    """The estimated share of wrong labels.

    Attributes:
        share: by confident learning, between 0 and 1.
        disagreement: the share of labels that are not the most likely class: label noise and the predictor's own
            errors.
        joint: estimated joint distribution of given (rows) and true (columns) labels; adds up to 1.
        suspects: examples outside the joint's diagonal, the most doubtful first: whose labels to check first.
        margins: for each suspect, the probability of its given label less that of the most likely other one.
        examples: how many there were.
    """

    share: float
    disagreement: float
    joint: Float[Tensor, "given true"]
    suspects: Int[Tensor, " suspects"]
    margins: Float[Tensor, " suspects"]
    examples: int


def label_noise(probabilities: Float[Tensor, "examples classes"], labels: Int[Tensor, " examples"]) -> LabelNoise:
    """Estimate how many labels are wrong from out-of-sample probabilities.

    An example counts for class j if its probability of j is at least the mean probability of j among examples that
    carry that label; among several the most likely. The counts, scaled to the labels' own frequencies, estimate the
    joint distribution of given and true labels.

    Args:
        probabilities: of each class for each example, from predictors that did not see its label (:func:`out_of_fold`).
            In-sample probabilities of a network that fits its labels hide every error.
        labels: the given ones.

    Raises:
        DataError: labels out of range, all of one class, or probabilities that are none.

    Reference: Northcutt, Jiang, Chuang, "Confident learning", JAIR 70 (2021), equations 1 to 3.

    Example:
        >>> sure = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.05, 0.95]])
        >>> label_noise(sure, torch.tensor([0, 0, 1, 0])).suspects.tolist()
        [3]
    """
    table, given = _checked(probabilities, labels)
    examples, classes = table.shape
    member = torch.nn.functional.one_hot(given, classes).bool()
    counts = member.sum(0)
    thresholds = torch.where(member, table, 0.0).sum(0) / counts.clamp(min=1)
    # A class that no label names has no threshold: nothing can be said to belong to it.
    reaches = (table >= thresholds - 1e-12) & (counts > 0)
    confident = reaches.any(1)
    guess = torch.where(reaches, table, -1.0).argmax(1)
    joint = torch.zeros(classes, classes, dtype=torch.float64)
    joint.index_put_((given[confident], guess[confident]), torch.ones(int(confident.sum())).double(), accumulate=True)
    # Labels of which nobody is confident keep to themselves.
    empty = joint.sum(1) == 0
    joint[empty, empty] = counts[empty].double()
    joint = joint / joint.sum(1, keepdim=True).clamp(min=1) * counts[:, None] / examples
    suspects = (confident & (guess != given)).nonzero().flatten()
    margins = table.gather(1, given[:, None]).squeeze(1) - torch.where(member, -1.0, table).max(1).values
    order = margins[suspects].argsort(stable=True)
    share = 1 - float(joint.diagonal().sum())
    disagreement = float((table.argmax(1) != given).double().mean())
    return LabelNoise(share, disagreement, joint, suspects[order], margins[suspects][order], examples)


def divided(labels: Int[Tensor, " examples"], *, folds: int, generator: torch.Generator) -> Int[Tensor, " examples"]:
    """The fold of every example, 0 … folds − 1; every fold holds its share of each class.

    Args:
        labels: the given ones.
        folds: how many, at least 2 and no more than the examples of the rarest class.
        generator: divides the examples.

    Raises:
        DataError: labels all of one class, or fewer examples of a class than folds.
        SettingError: fewer than two folds.
    """
    if folds < 2:
        raise SettingError(f"folds must be at least 2, got {folds}")
    counts = torch.bincount(labels)
    present = counts[counts > 0]
    if len(present) < 2:
        raise DataError("label noise needs at least two classes among the labels, got one")
    if int(present.min()) < folds:
        raise DataError(
            f"every class must have at least as many examples as folds; the rarest has {int(present.min())}, folds are "
            f"{folds}"
        )
    shuffled = torch.randperm(len(labels), generator=generator)
    # Sorted by class and dealt in turn: every fold gets its share of every class.
    dealt = shuffled[labels.cpu()[shuffled].argsort(stable=True)]
    fold = torch.empty(len(labels), dtype=torch.long)
    fold[dealt] = torch.arange(len(labels)) % folds
    return fold


def out_of_fold(
    train: Train, inputs: Tensor, labels: Int[Tensor, " examples"], *, generator: torch.Generator, folds: int = 5
) -> Float[Tensor, "examples classes"]:
    """Probabilities for every example from a predictor that was trained without it.

    Args:
        train: inputs and labels → a function from inputs to probabilities.
        inputs: examples first.
        labels: the given ones; every fold holds its share of each class.
        generator: divides the examples.
        folds: how many, at least 2 and no more than the examples of the rarest class.

    Raises:
        DataError: labels all of one class, or fewer examples of a class than folds.
        SettingError: fewer than two folds.

    Cost: ``folds`` trainings on (folds − 1)/folds of the data.
    """
    fold = divided(labels, folds=folds, generator=generator)
    result = None
    for part in range(folds):
        held, rest = (fold == part).nonzero().flatten(), (fold != part).nonzero().flatten()
        found = train(inputs[rest], labels[rest])(inputs[held]).detach().double().cpu()
        result = found.new_zeros(len(labels), found.shape[1]) if result is None else result
        result[held] = found
    assert result is not None
    return result


def _checked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    table, given = probabilities.detach().double().cpu(), labels.detach().cpu().long()
    if table.dim() != 2 or given.shape != table.shape[:1] or not len(given):
        raise DataError(f"each label needs a row of probabilities, got {tuple(table.shape)} and {tuple(given.shape)}")
    check_labels(labels, table.shape[1])
    if len(given.unique()) < 2:
        raise DataError("label noise needs at least two classes among the labels, got one")
    if not bool((table >= -1e-6).all()) or not bool(((table.sum(1) - 1).abs() < 1e-3).all()):
        raise DataError("probabilities must be zero or more and add up to 1 for each example; apply a softmax first")
    return table, given
