"""What an objective says of one solution, and of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.losses import IGNORED
from isthmus.core.record import Record


@dataclasses.dataclass(frozen=True)
class Score(Record):
    """What an objective says of one solution.

    Attributes:
        loss: mean over the examples.
        metrics: further means, such as ``error`` (1 − accuracy, between 0 and 1).
        examples: how many values each mean is over (tokens, for a language model).
    """

    loss: float
    metrics: Mapping[str, float]
    examples: int

    @property
    def error(self) -> float:
        """1 − accuracy."""
        return self.metrics["error"]


@dataclasses.dataclass(frozen=True)
class Scores(Record):
    """What an objective says of many solutions; one entry for each."""

    loss: Float[Tensor, " solutions"]
    metrics: Mapping[str, Float[Tensor, " solutions"]]
    examples: int

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Scores:
        """Scores that were taken one after the other, at least one."""
        losses = torch.tensor([score.loss for score in scores], dtype=torch.float64)
        metrics = {
            name: torch.tensor([score.metrics[name] for score in scores], dtype=torch.float64)
            for name in scores[0].metrics
        }
        return cls(losses, metrics, scores[0].examples)

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """The scores of several portions of solutions, one after the other."""
        if len(parts) == 1:
            return parts[0]
        metrics = {name: torch.cat([part.metrics[name] for part in parts]) for name in parts[0].metrics}
        return cls(torch.cat([part.loss for part in parts]), metrics, parts[0].examples)

    @property
    def error(self) -> Float[Tensor, " solutions"]:
        """1 − accuracy."""
        return self.metrics["error"]

    def __getitem__(self, index: int) -> Score:
        return Score(float(self.loss[index]), {k: float(v[index]) for k, v in self.metrics.items()}, self.examples)


@dataclasses.dataclass(eq=False)
class Tally:
    """Sums and counts so far, of one solution or of many; read from the device once, at the end."""

    sums: dict[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)

    def add(self, more: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take in further sums and counts by name."""
        for name, (total, values) in more.items():
            before, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (before + total.detach(), count + values)

    def score(self) -> Score:
        """The means of one solution.

        Raises:
            DataError: nothing counts.
        """
        means = {name: float(total) / max(int(values), 1) for name, (total, values) in self.sums.items()}
        return Score(means.pop("loss"), means, self._examples(int(self.sums["loss"][1])))

    def scores(self) -> Scores:
        """The means of many solutions.

        Raises:
            DataError: nothing counts.
        """
        means = {name: (total / values.clamp_min(1)).cpu() for name, (total, values) in self.sums.items()}
        return Scores(means.pop("loss"), means, self._examples(int(self.sums["loss"][1][0])))

    @staticmethod
    def _examples(values: int) -> int:
        if values == 0:
            raise DataError(f"an objective needs at least one label that counts, but all are {IGNORED}")
        return values
