"""One stream on its way through the mergers: trainings, merges, heads, accuracies and barriers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect import Line, barrier, reestimate
from isthmus.core.errors import SettingError
from isthmus.core.losses import answers, cross_entropy, error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.weights import Weights
from isthmus.merge import BatchStatisticsWarning
from isthmus.studies.continual.archive import Archive
from isthmus.studies.continual.arms import Trainings, joined
from isthmus.studies.continual.mergers import Merge
from isthmus.zoo.streams import Stream

Start = Literal["base", "previous", "merged"]
Heads = Literal["one", "separate"]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome(Record):
    """One merger over the whole stream.

    With A[k, j] the accuracy on task j after the merge that follows task k, of K tasks:

    Attributes:
        merger: by name.
        accuracy: A of every replica.
        final: mean over j of A[K, j].
        forgetting: mean over j < K of max over k < K of A[k, j], minus A[K, j] (Chaudhry et al., arXiv 1801.10112).
        backward: mean over j < K of A[K, j] − A[j, j] (Lopez-Paz and Ranzato, arXiv 1706.08840).
        forward: mean over j > 1 of A[j − 1, j] − the accuracy of the fresh initialisation on j (the same paper).
        barriers: from the newest end to the ``previous`` merge, the new ``merged`` one and the ``joint`` solution:
            error barriers over the tasks seen so far, (replicas, tasks − 1).
    """

    merger: str
    accuracy: Float[Tensor, "replicas tasks tasks"]
    final: Interval
    forgetting: Interval
    backward: Interval
    forward: Interval
    barriers: Mapping[str, Float[Tensor, "replicas steps"]]


class Course:
    """One stream on its way through all mergers."""

    def __init__(
        self, *, stream: Stream, trainings: Trainings, mergers: Mapping[str, Merge], start: Start, heads: Heads,
        points: int, network: Network, counted: Counted, archive: Archive | None = None,
    ) -> None:  # fmt: skip
        self.stream, self.trainings, self.mergers = stream, trainings, mergers
        self.start, self.heads, self.points = start, heads, points
        self.network, self.counted, self.archive = network, counted, archive
        self.objectives = [self._objective([place]) for place in range(len(stream.tasks))]
        self.own = [Objective(network, part.train_inputs, part.train_targets, batch_size=500) for part in stream.tasks]
        self.head = head_names(network, stream.tasks[0].classes) if heads == "separate" else ()
        self.shared: list[list[Weights]] | None = None

    def first(self) -> tuple[list[Weights], Tensor]:
        """The base, trained on the first task, and the accuracy of its initialisation on every task."""
        base, initial = self.trainings.fresh(self.stream.tasks[0])
        recipe = self.trainings.base_recipe.to_dict()
        self._saved("task 1", base, 0, recipe=recipe, data=self.stream.tasks[0].fingerprint)
        self.counted.step("first task")
        return base, self.accuracies(initial, len(self.stream.tasks) - 1)

    def joint(self, base: Sequence[Weights]) -> list[list[Weights]]:
        """After every later task, networks that were trained on all tasks up to it at once."""
        found = []
        for place in range(1, len(self.stream.tasks)):
            data = joined(self.stream.tasks[: place + 1])
            found.append(self.trainings.continued(f"joint {place}", data, base))
            self.counted.step(f"joint {place + 1}")
        return found

    def outcome(
        self, name: str, base: Sequence[Weights], united: Sequence[Sequence[Weights]], fresh: Tensor
    ) -> Outcome:
        """Everything about one merger."""
        merged: list[Sequence[Weights]] = [base]
        ends: list[Sequence[Weights]] = [base]
        heights: dict[str, list[Tensor]] = {}
        for place in range(1, len(self.stream.tasks)):
            ends.append(self._end(name, place, ends, merged))
            merged.append(self._merged(name, ends))
            if name != "last":
                of = ["task 1", *(self._end_name(name, k) for k in range(1, place + 1))]
                self._saved(f"{name} after task {place + 1}", merged[-1], place, parents=of, recipe={"method": name})
            others = {"previous": merged[-2], "merged": merged[-1]} | ({"joint": united[place - 1]} if united else {})
            for other, solutions in others.items():
                heights.setdefault(other, []).append(self._heights(ends[-1], solutions, place))
        if self.start != "merged":
            self.shared = [list(end) for end in ends]
        self.counted.step(f"measuring {name}")
        accuracy = torch.stack([self.accuracies(row, len(merged) - 1) for row in merged], 1)
        barriers = {other: torch.stack(columns, 1) for other, columns in heights.items()}
        return Outcome(name, accuracy, **summaries(accuracy, fresh), barriers=barriers)

    def accuracies(self, networks: Sequence[Weights], last: int) -> Tensor:
        """(replicas, tasks up to ``last``)."""
        return torch.tensor(
            [[1 - self.objectives[j](weights).error for j in range(last + 1)] for weights in networks],
            dtype=torch.float64,
        )

    def _end(
        self, name: str, place: int, ends: Sequence[Sequence[Weights]], merged: Sequence[Sequence[Weights]]
    ) -> Any:
        if self.shared is not None:
            return self.shared[place]
        starts = {"base": ends[0], "previous": ends[-1], "merged": merged[-1]}[self.start]
        made = self.trainings.continued(f"task {place}", self.stream.tasks[place], starts)
        self.counted.step(f"task {place + 1}")
        before = self._end_name(name, place - 1)
        after = before if place == 1 or name == "last" else f"{name} after task {place}"
        start = {"base": "task 1", "previous": before, "merged": after}[self.start]
        recipe = self.trainings.task_recipe(0, f"task {place}").to_dict()
        self._saved(
            self._end_name(name, place), made, place, parents=[start], recipe=recipe,
            data=self.stream.tasks[place].fingerprint,
        )  # fmt: skip
        return made

    def _end_name(self, merger: str, place: int) -> str:
        """What the network of a task is called; from merges, every merger has its own."""
        own = f"{merger} " if self.start == "merged" and place else ""
        return f"{own}task {place + 1}"

    def _saved(self, name: str, networks: Sequence[Weights], last: int, **told: Any) -> None:
        """Into the archive, with the accuracies on the tasks so far."""
        if self.archive is not None:
            found = self.accuracies(networks, last)
            known = {self.stream.names[j]: found[:, j].tolist() for j in range(last + 1)}
            self.archive(name, networks, capabilities=known, **told)

    def _merged(self, name: str, ends: Sequence[Sequence[Weights]]) -> list[Weights]:
        made: list[Weights] = []
        for replica in range(len(ends[0])):
            own = [end[replica] for end in ends]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BatchStatisticsWarning)  # they are estimated anew below
                weights = dict(self.mergers[name](own, own[0], self.own[: len(own)]))
            for head in self.head:
                rows = weights[head].clone()
                for end, labels in zip(own, self.stream.labels, strict=False):
                    rows[list(labels)] = end[head][list(labels)]
                weights[head] = rows
            if self.network.has_batch_statistics and name != "last":
                weights = reestimate(self.network, weights, self._mixture(len(own)))
            made.append(weights)
        return made

    def _heights(self, starts: Sequence[Weights], ends: Sequence[Weights], place: int) -> Tensor:
        objective = self._objective(range(place + 1))
        lines = [
            barrier(Line(a, b), objective, points=self.points, inputs=self._mixture(place + 1)).error_barrier
            for a, b in zip(starts, ends, strict=True)
        ]
        return torch.tensor(lines, dtype=torch.float64)

    def _mixture(self, tasks: int, *, examples: int = 2000) -> Tensor:
        return torch.cat([part.train_inputs[: max(1, examples // tasks)] for part in self.stream.tasks[:tasks]])

    def _objective(self, places: Sequence[int]) -> Objective:
        """The test examples of some tasks; with separate heads only a task's own outputs compete."""
        parts = [self.stream.tasks[place] for place in places]
        inputs, targets = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("test_inputs", "test_targets")
        )
        if self.heads == "one":
            return Objective(self.network, inputs, targets, batch_size=500)
        owner = torch.full((parts[0].classes,), -1, device=targets.device)
        for place, labels in enumerate(self.stream.labels):
            owner[list(labels)] = place

        def closed(outputs: Any, labels: Tensor) -> Tensor:
            heads = owner.to(labels.device)
            return answers(outputs).masked_fill(heads != heads[labels][:, None], -1e9)

        return Objective(
            self.network, inputs, targets, loss=lambda outputs, labels: cross_entropy(closed(outputs, labels), labels),
            metrics={"error": lambda outputs, labels: error(closed(outputs, labels), labels)}, batch_size=500,
        )  # fmt: skip


class Counted:
    """Progress in whole trainings and measurements; what a training says of itself is a share of one."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self, label: str) -> None:
        """One more is done."""
        self._done += 1
        self._progress(min(self._done, self._total), self._total, label)

    def inside(self, done: float, total: float, label: str = "") -> None:
        """How far the one at hand is."""
        share = done / max(total, 1e-9) % 1.0
        self._progress(min(self._done + share, self._total), self._total, label)


def summaries(
    accuracy: Float[Tensor, "replicas tasks tasks"], fresh: Float[Tensor, "replicas tasks"]
) -> dict[str, Interval]:
    """Final accuracy, forgetting, backward and forward transfer, each as a mean over replicas with an interval."""
    tasks = accuracy.shape[1]
    last = accuracy[:, -1]
    own = torch.diagonal(accuracy, dim1=1, dim2=2)
    best = accuracy[:, : tasks - 1, : tasks - 1].amax(1)
    ahead = torch.stack([accuracy[:, j - 1, j] - fresh[:, j] for j in range(1, tasks)], 1)
    return {
        "final": over_networks(last.mean(1)),
        "forgetting": over_networks((best - last[:, : tasks - 1]).mean(1)),
        "backward": over_networks((last - own)[:, : tasks - 1].mean(1)),
        "forward": over_networks(ahead.mean(1)),
    }


def head_names(network: Network, classes: int) -> tuple[str, ...]:
    """The tensors of the output layer: the last matrix with one row for each class, and its bias.

    Raises:
        SettingError: there is none.
    """
    shapes = {name: tuple(network.weights[name].shape) for name in network.parameter_names}
    matrices = [name for name, shape in shapes.items() if len(shape) >= 2 and shape[0] == classes]
    if not matrices:
        raise SettingError(f"separate heads need an output layer with {classes} rows, but the network has none")
    bias = f"{matrices[-1].rpartition('.')[0]}.bias".lstrip(".")
    return (matrices[-1], bias) if shapes.get(bias) == (classes,) else (matrices[-1],)
