"""Capabilities as sets of examples: each divided once, a half to choose by and a half to judge by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import DataError, SettingError, listed
from isthmus.core.losses import IGNORED, error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, ratio_of_shares
from isthmus.core.weights import Weights
from isthmus.merge.front import Aim
from isthmus.zoo.examples import Examples

# Fewer say nothing about a floor: with ten in a half, one example is a tenth of the accuracy.
LEAST = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Wish:
    """A capability that a merge must keep.

    Attributes:
        name: of the capability.
        examples: on which it shows.
        floor: least share of the expert's accuracy that must remain, in (0, 1].
        priority: weight of a shortfall against those of other wishes; by default 1 for the first wish, 1/2 for the
            second, 1/3 for the third, …
        expert: name of the model whose accuracy counts; by default the one that is best at it.
    """

    name: str
    examples: Examples
    floor: float
    priority: float | None = None
    expert: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Half(Record):
    """One half of a capability's examples.

    Attributes:
        examples: how many.
        expert: accuracy of the expert.
        merged: accuracy of the merge.
        retained: merged / expert, with an interval for the number of examples.
        met: whether the estimate is at least the floor.
    """

    examples: int
    expert: float
    merged: float
    retained: Interval
    met: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Kept(Record):
    """What became of one wish.

    Attributes:
        name: of the capability.
        data: where the examples came from.
        fingerprint: of them.
        floor: least share of the expert's accuracy.
        priority: of a shortfall.
        expert: name of the model that it is compared with.
        selection: on the examples that the merge was chosen by.
        verification: on the others, which nothing was chosen by.
    """

    name: str
    data: str
    fingerprint: str
    floor: float
    priority: float
    expert: str
    selection: Half
    verification: Half

    @property
    def met(self) -> bool:
        """Whether the floor is reached on both halves."""
        return self.selection.met and self.verification.met


class Capability:
    """One wish with its examples divided, and what the solutions get right of them.

    Raises:
        SettingError: an impossible floor or priority, or an unknown expert.
        DataError: examples that the network does not take, labels outside its outputs, too few examples, or none that
            any solution gets right.
    """

    def __init__(self, network: Network, wish: Wish, solutions: Mapping[str, Weights], *, rank: int, seed: int) -> None:
        priority = 1 / (rank + 1) if wish.priority is None else wish.priority
        Aim(wish.name, wish.floor, priority)  # refuses what is impossible before anything is measured
        if wish.expert is not None and wish.expert not in solutions:
            raise SettingError(f"the expert of {wish.name} must be one of {listed(solutions)}, got {wish.expert}")
        whole = Objective(network, wish.examples.inputs, targets := wish.examples.targets, batch_size=500)
        self.wish, self.sampled = wish, _sampled(whole, wish.name)
        order = torch.randperm(len(targets), generator=child(seed, "keep", wish.name)).to(targets.device)
        edge = (len(targets) + 1) // 2
        self.selection, self.verification = whole.over(order[:edge]), whole.over(order[edge:])
        right = {name: _right(self.selection, weights) for name, weights in solutions.items()}
        self.expert = wish.expert or max(right, key=lambda name: float(right[name].mean()))
        self._known = right[self.expert], _right(self.verification, solutions[self.expert])
        if min(float(part.mean()) for part in self._known) == 0.0:
            raise DataError(
                f"a capability is kept from a model that has it, but {self.expert}, the best at {wish.name}, gets "
                "nothing right in one half of its examples"
            )
        level, count = float(self._known[0].mean()), len(self._known[0])
        share = min(wish.floor * level, 1 - 0.5 / count)
        self.aim = Aim(wish.name, wish.floor, priority, math.sqrt(share * (1 - share) / count) / level)

    def retained(self, weights: Weights) -> float:
        """The share that remains, on the examples for selection."""
        return (1 - self.selection(weights).error) / float(self._known[0].mean())

    def kept(self, weights: Weights) -> Kept:
        """What became of the wish, on both halves."""
        halves = [
            _half(_right(objective, weights), known, self.wish.floor)
            for objective, known in zip((self.selection, self.verification), self._known, strict=True)
        ]
        examples = self.wish.examples
        return Kept(
            self.wish.name, examples.name, examples.fingerprint, self.aim.floor, self.aim.priority, self.expert,
            halves[0], halves[1],
        )  # fmt: skip


def capabilities(
    network: Network, wishes: Sequence[Wish], solutions: Mapping[str, Weights], *, seed: int
) -> list[Capability]:
    """All wishes, checked and divided.

    Raises:
        SettingError: none, or two of one name.
    """
    if not wishes:
        raise SettingError("at least one capability must be named that is to be kept, got none")
    names = [wish.name for wish in wishes]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise SettingError(f"each capability must be named once, got {twice[0]} twice")
    return [Capability(network, wish, solutions, rank=place, seed=seed) for place, wish in enumerate(wishes)]


def _half(right: Float[Tensor, " examples"], known: Float[Tensor, " examples"], floor: float) -> Half:
    """The ratio of two accuracies on the same examples, the models fixed."""
    found = ratio_of_shares(right, known)
    met = found.estimate >= floor - 1e-12
    return Half(len(right), float(known.mean()), float(right.mean()), found, met)


def _right(objective: Objective, weights: Weights) -> Float[Tensor, " examples"]:
    """1 for each label that is given rightly, else 0; ignored labels are left out."""
    parts = []
    for outputs, targets in objective.outputs(weights):
        wrong = error(outputs, targets)
        parts.append(1 - wrong[targets.to(wrong.device) != IGNORED])
    return torch.cat(parts).double().cpu()


def _sampled(objective: Objective, name: str) -> bool:
    """Whether outputs are (examples, classes); refuses examples that do not fit the network."""
    labels = objective.targets
    if len(labels) < LEAST:
        raise DataError(f"{name} must have at least {LEAST} examples, half of them to verify by, got {len(labels)}")
    scores = objective.tried(name)
    if not isinstance(scores, Tensor) or scores.dim() != labels.dim() + 1:
        raise DataError(f"the model must give class scores for every label of {name}, whose labels have the shape "
                        f"{tuple(labels.shape)}")  # fmt: skip
    return scores.dim() == 2
