"""Loss and error of a group's replicas in evaluation mode."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from isthmus.core.objective import Objective, Score
from isthmus.core.objective import error as wrong
from isthmus.core.progress import Progress, silent
from isthmus.train.batches import Batches, Examples
from isthmus.train.task import State, Task


def evaluate(
    task: Task, state: State, batches: Batches, data: Examples, *, progress: Progress = silent
) -> tuple[list[Score], list[Score]]:
    """Scores of every replica on its own training examples and labels, and on the test set; no label smoothing in them.

    Cost: one forward pass over both sets for each replica.
    """
    weights = [task.export(state, index, device=task.device) for index in range(state.count)]
    test_inputs = data.test_inputs.to(task.device)
    test_targets = data.test_targets.to(task.device)
    train, test = [], []
    for index, one in enumerate(weights):
        inputs, targets = batches.own(index)
        for place, (scores, objective) in enumerate(
            ((train, _objective(task, inputs, targets)), (test, _objective(task, test_inputs, test_targets)))
        ):
            progress(2 * index + place, 2 * state.count, f"{index + 1} of {state.count}")
            with task.autocast():
                score = objective(one)
            # A regression has no error; its place is held, so that all scores have the same fields.
            scores.append(dataclasses.replace(score, metrics={"error": float("nan"), **score.metrics}))
    return train, test


def _objective(task: Task, inputs: Tensor, targets: Tensor) -> Objective:
    if task.recipe.loss == "cross_entropy":
        return Objective(task.network, inputs, targets)

    def squared(outputs: Tensor, labels: Tensor) -> Tensor:
        return task.loss(outputs, labels, reduction="none")

    metrics = {} if targets.is_floating_point() else {"error": wrong}
    with torch.no_grad():
        return Objective(task.network, inputs, targets, loss=squared, metrics=metrics)
