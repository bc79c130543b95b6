"""The course of one group's training: epochs, checkpoints, losses, and which engine is at work."""

from __future__ import annotations

import dataclasses

import torch

from isthmus.core.progress import Progress
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.train.batches import Batches, Examples
from isthmus.train.choice import choose
from isthmus.train.engines import Engine, Stretch
from isthmus.train.evaluate import evaluate
from isthmus.train.task import State, Task


@dataclasses.dataclass(frozen=True)
class Epoch(Record):
    """One pass over the training set.

    Attributes:
        number: from 0.
        steps: taken so far, at the end of this epoch.
        loss: mean over the epoch's batches, as trained.
        train_loss: in evaluation mode on the replica's own training examples, if asked for; so the others.
        train_error: 1 − accuracy.
        test_loss: on the test set.
        test_error: 1 − accuracy.
    """

    number: int
    steps: int
    loss: float
    train_loss: float | None = None
    train_error: float | None = None
    test_loss: float | None = None
    test_error: float | None = None


class Run:
    """Drives an engine from event to event and keeps what happened.

    Attributes:
        history: epochs of each replica.
        checkpoints: step → weights of each replica.
        diverged: replicas whose loss left the finite range.
        engine: the name of the last engine.
        notes: what the choice of engines had to say.
    """

    def __init__(self, task: Task, data: Examples, *, total: int, engine: str, scores: str, progress: Progress) -> None:
        self.task, self.data, self.total = task, data, total
        self.wanted, self.scores, self.progress = engine, scores, progress
        self.history: list[list[Epoch]] = []
        self.checkpoints: dict[int, list[Weights]] = {}
        self.diverged: set[int] = set()
        self.engine, self.notes = "none", []
        self._engines: dict[int, Engine] = {}
        self._step = self._seen = 0
        dtype = torch.float64 if task.dtype is torch.float64 else torch.float32
        rates = [task.recipe.rate_at(step, total) for step in range(total)]
        self._rates = torch.tensor(rates, dtype=dtype, device=task.device)

    def advance(self, state: State, batches: Batches, *, until: int, apart: bool) -> None:
        """Train to step ``until``, writing into the state."""
        if not self.history:
            self.history = [[] for _ in range(state.count)]
        self._keep(state)
        length = self.task.recipe.steps_in_epoch(batches.examples)
        engine: Engine | None = None
        plan, planned = None, -1
        while self._step < until:
            epoch, first = divmod(self._step, length)
            if plan is None or planned != epoch:
                plan, planned = batches.plan(epoch, apart=apart), epoch
            ends = [until, (epoch + 1) * length, *(s for s in self.task.recipe.checkpoints if s > self._step)]
            last = min(ends) - epoch * length
            stretch = Stretch(batches, plan, first, last, self._step, self._rates)
            if engine is None:
                engine = self._chosen(state, stretch, until - self._step)
            engine.advance(state, stretch)
            self._step += last - first
            state.steps += last - first
            self._seen += last - first
            self._keep(state)
            if last == length or self._step == self.total:
                self._close(epoch, state, batches)
            self.progress(self._step, self.total, f"{state.count} replicas, {engine.name}")

    def split(self, stems: list[int]) -> None:
        """Go on with copies of the replicas: number i continues what number ``stems[i]`` began."""
        self.history = [list(self.history[stem]) for stem in stems]
        self.checkpoints = {step: [saved[stem] for stem in stems] for step, saved in self.checkpoints.items()}
        self.diverged = {index for index, stem in enumerate(stems) if stem in self.diverged}

    def rewind(self, step: int) -> None:
        """Go on from an earlier step; checkpoints after it are those of the last round."""
        self._step, self._seen = step, 0

    def _chosen(self, state: State, stretch: Stretch, steps: int) -> Engine:
        if state.count not in self._engines:
            engine, notes = choose(self.task, state, stretch, steps=steps, engine=self.wanted)
            self._engines[state.count] = engine
            self.notes += [note for note in notes if note not in self.notes]
        self.engine = self._engines[state.count].name
        return self._engines[state.count]

    def _keep(self, state: State) -> None:
        if self._step in self.task.recipe.checkpoints:
            self.checkpoints[self._step] = [self.task.export(state, index) for index in range(state.count)]

    def _close(self, number: int, state: State, batches: Batches) -> None:
        """The end of an epoch, or of the training within one."""
        losses = (state.losses / max(1, self._seen)).tolist()
        state.losses.zero_()
        self._seen = 0
        scores = evaluate(self.task, state, batches, self.data) if self.scores == "epochs" else None
        for index, loss in enumerate(losses):
            more = {}
            if scores:
                train, test = scores[0][index], scores[1][index]
                more = {
                    "train_loss": train.loss,
                    "train_error": train.error,
                    "test_loss": test.loss,
                    "test_error": test.error,
                }
            self.history[index].append(Epoch(number, self._step, loss, **more))
            if not torch.isfinite(torch.tensor(loss)):
                self.diverged.add(index)
