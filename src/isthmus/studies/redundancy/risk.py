"""Before training: how far a loss and an error on these data can be trusted, and which labels to check first.

All of it comes from predictors that are each trained without a part of the data and judge that part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.losses import answers
from isthmus.core.network import Network
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.weights import to
from isthmus.noise import LabelNoise, divided, label_noise, out_of_fold
from isthmus.train import Recipe, train
from isthmus.zoo.data import Data
from isthmus.zoo.models import build

Grade = Literal["low", "mixed", "high"]
_NORMAL = 1.96  # deviations in the half of a 95 % interval
_LOW, _HIGH = 0.1, 1 / 3  # of the number itself: below, a change by a tenth can be seen; above, hardly one by half


@dataclasses.dataclass(frozen=True)
class Risk(Record):
    """One reason why a measured number may mislead.

    Attributes:
        name: ``labels``: the wrong ones among those that the held-out predictors contradict; ``error`` and ``loss``:
            what the size of the test set leaves open; ``rarest``: the same of the error in the rarest class; ``data``:
            other training examples and seeds.
        value: the number that is at risk, as the held-out predictors have it.
        reach: how far it may be off, in its own unit: half a 95 % interval; for ``labels`` the wrong labels' share.
        relative: reach over value; None for a value of zero.
        grade: ``low`` below a tenth, ``high`` above a third.
    """

    name: str
    value: float
    reach: float
    relative: float | None
    grade: Grade


@dataclasses.dataclass(frozen=True)
class ClassRisk(Record):
    """What is uncertain about one class.

    Attributes:
        label: the class.
        examples: training examples that carry it.
        wrong: share of them whose label is estimated to be wrong.
        error: share of them that held-out predictors put elsewhere.
        noise: its share of the gradient's noise; None before training.
        relative_noise: that share over the class's share of the examples: above 1 it is louder than its size.
    """

    label: int
    examples: int
    wrong: float
    error: float
    noise: float | None = None
    relative_noise: float | None = None


@dataclasses.dataclass(frozen=True)
class Suspect(Record):
    """A training label that should be checked.

    Attributes:
        example: its place in the training set.
        label: as given.
        likely: the class that predictors which did not see the example find most likely.
        margin: probability of the given label less that of the most likely other one.
    """

    example: int
    label: int
    likely: int
    margin: float


@dataclasses.dataclass(frozen=True)
class Risks(Record):
    """The risk table.

    Attributes:
        risks: by source.
        floor: the error that even a perfect predictor would show on labels like these, on average: the wrong share.
        loss_floor: the lowest mean cross-entropy that a predictor can have on them, in nats, if the wrong labels are
            spread as estimated.
        labels: confident learning's estimate.
        classes: by class, those without training examples left out.
        suspects: labels to check first.
        folds: of the predictors.
    """

    risks: tuple[Risk, ...]
    floor: float
    loss_floor: float
    labels: LabelNoise
    classes: tuple[ClassRisk, ...]
    suspects: tuple[Suspect, ...]
    folds: int


def before_training(
    data: Data,
    recipe: Recipe,
    *,
    folds: int = 5,
    listed: int = 10,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Risks:
    """The risk table of these data for such a network, and the labels to check first.

    Args:
        data: training labels are checked; of the test set only the size counts.
        recipe: of the predictors that check the labels.
        folds: of them.
        listed: how many suspects to name.
        seed: divides the data.
        device: where the predictors are trained.
        progress: told of every fold.

    Raises:
        DataError: labels all of one class, or fewer examples of a class than folds.

    Cost: ``folds`` trainings.

    Reference: Northcutt, Jiang, Chuang, "Confident learning", JAIR 70 (2021), for the labels.
    """
    given = data.train_targets.cpu()
    fold = divided(given, folds=folds, generator=child(seed, "uncertainty", "folds"))
    probabilities = out_of_fold(
        _trainer(recipe, data, device, _counted(progress, folds)), data.train_inputs, data.train_targets, folds=folds,
        generator=child(seed, "uncertainty", "folds"),
    )  # fmt: skip
    labels = label_noise(probabilities, given)
    wrong = (probabilities.argmax(1) != given).double()
    losses = -probabilities.gather(1, given[:, None]).squeeze(1).clamp(min=1e-12).log()
    risks = (
        _graded("labels", labels.disagreement, labels.share),
        *_of_the_test_set(wrong, losses, data.test_targets.cpu()),
        _of_the_folds(wrong, fold, folds),
    )
    named = zip(labels.suspects[:listed].tolist(), labels.margins[:listed].tolist(), strict=True)
    # Of a suspect the given class is not the likely one, so the best of the others is meant.
    others = probabilities.scatter(1, given[:, None], -1.0).argmax(1)
    return Risks(
        risks=risks,
        floor=labels.share,
        loss_floor=lowest_loss(labels.joint),
        labels=labels,
        classes=_classes(labels, wrong, given),
        suspects=tuple(Suspect(i, int(given[i]), int(others[i]), margin) for i, margin in named),
        folds=folds,
    )


def with_noise(risks: Risks, shares: Float[Tensor, " classes"]) -> Risks:
    """The same table with every class's share of the gradient's noise."""
    examples = sum(one.examples for one in risks.classes)
    classes = tuple(
        dataclasses.replace(
            one, noise=float(shares[one.label]), relative_noise=float(shares[one.label]) * examples / one.examples
        )
        for one in risks.classes
    )
    return dataclasses.replace(risks, classes=classes)


def lowest_loss(joint: Float[Tensor, "given true"]) -> float:
    """The lowest mean cross-entropy that labels of this joint distribution allow, in nats.

    It is the entropy of the given label once the true one is known.
    """
    true = joint.sum(0, keepdim=True)
    shares = joint / true.clamp(min=1e-300)
    return float(-(joint * shares.clamp(min=1e-300).log()).sum())


def _graded(name: str, value: float, reach: float) -> Risk:
    relative = reach / value if value > 0 else None
    measured = math.inf if relative is None and reach > 0 else relative or 0.0
    return Risk(name, value, reach, relative, "low" if measured < _LOW else "high" if measured > _HIGH else "mixed")


def _of_the_test_set(wrong: Tensor, losses: Tensor, targets: Int[Tensor, " tests"]) -> tuple[Risk, ...]:
    """What as many test examples as there are leave open."""
    tests = len(targets)
    counts = torch.bincount(targets)
    rarest = int(counts[counts > 0].min())
    error, loss = float(wrong.mean()), float(losses.mean())
    deviation = math.sqrt(error * (1 - error))
    return (
        _graded("error", error, _NORMAL * deviation / math.sqrt(tests)),
        _graded("loss", loss, _NORMAL * float(losses.std()) / math.sqrt(tests)),
        _graded("rarest", error, _NORMAL * deviation / math.sqrt(rarest)),
    )


def _of_the_folds(wrong: Tensor, fold: Tensor, folds: int) -> Risk:
    """How much the error differs between predictors beyond what the folds' own sizes explain."""
    errors = torch.stack([wrong[fold == part].mean() for part in range(folds)])
    mean = float(wrong.mean())
    sampling = mean * (1 - mean) * folds / len(fold)
    return _graded("data", mean, _NORMAL * math.sqrt(max(0.0, float(errors.var()) - sampling)))


def _classes(labels: LabelNoise, wrong: Tensor, given: Tensor) -> tuple[ClassRisk, ...]:
    found = []
    for label, row in enumerate(labels.joint):
        members = given == label
        if not bool(members.any()):
            continue
        share = 1 - float(row[label] / row.sum().clamp(min=1e-300))
        found.append(ClassRisk(label, int(members.sum()), share, float(wrong[members].mean())))
    return tuple(found)


def _trainer(
    recipe: Recipe, data: Data, device: str, finished: Callable[[], None]
) -> Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]:
    """Inputs and labels → a function from inputs to class probabilities."""

    def fitted(inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        part = dataclasses.replace(data, train_inputs=inputs, train_targets=labels)
        [replica] = train(recipe, data=part, module=build, device=device, scores="never")
        finished()
        network = Network.of(build(recipe).to(device))
        weights: Mapping[str, Tensor] = to(replica.weights, device=device)

        @torch.no_grad()
        def probabilities(held: Tensor) -> Tensor:
            scores = [network(weights, some) for some in held.split(500)]
            return torch.cat([answers(one).double().softmax(1) for one in scores])

        return probabilities

    return fitted


def _counted(progress: Progress, folds: int) -> Callable[[], None]:
    done = 0

    def finished() -> None:
        nonlocal done
        done += 1
        progress(done, folds, "labels")

    return finished
