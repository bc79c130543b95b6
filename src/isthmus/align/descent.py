"""What matchers that look at the loss share: batches, the loss between networks, and keeping the best that was seen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.core.losses import counted
from isthmus.core.objective import Objective
from isthmus.core.symmetry import Permutation
from isthmus.core.weights import Weights, combine


def draw(objective: Objective, size: int, generator: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
    """A random batch of examples, with replacement."""
    chosen = torch.randint(len(objective.targets), (size,), generator=generator)
    return tuple(part[chosen.to(part.device)] for part in objective.parts), objective.targets[
        chosen.to(objective.targets.device)
    ]


def loss_on(objective: Objective, weights: Weights, inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The mean loss on a batch, with gradients; networks with BatchNorm use the batch's own statistics.

    Running statistics belong to one point in weight space; between two networks they are wrong. Nothing else is in
    training mode: dropout would draw from PyTorch's global generator, and the best that was seen would be the luckiest.
    """
    return objective.mean_loss(_outputs(objective, weights, inputs), targets)


@torch.no_grad()
def loss_over(objective: Objective, weights: Weights) -> float:
    """The mean loss over all examples, without metrics; with BatchNorm by the statistics of each of the batches."""
    batches = _batches(objective) if objective.network.has_batch_statistics else objective.batches()
    total, count = 0.0, 0
    for inputs, targets in batches:
        values = objective.loss(_outputs(objective, weights, inputs), targets)
        total += float(values.double().sum())
        count += int(counted(values, targets).sum())
    return total / max(count, 1)


def _batches(objective: Objective) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """The objective's batches; a last example by itself, which has no statistics, joins the batch before it."""
    size, examples = objective.batch_size, len(objective.targets)
    edges = [*range(0, max(examples - 1, 1), size), examples]
    for first, last in itertools.pairwise(edges):
        yield tuple(part[first:last] for part in objective.parts), objective.targets[first:last]


def _outputs(objective: Objective, weights: Weights, inputs: Sequence[Tensor]) -> Any:
    network, given = objective.network, [fitted(part, weights) for part in inputs]
    return network.by_batch(weights, *given) if network.has_batch_statistics else network(weights, *given)


def fitted(value: Any, weights: Weights) -> Any:
    """An input in the weights' own precision, if they have one."""
    dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(dtypes) == 1 and isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtypes.pop())
    return value


@dataclasses.dataclass
class Best:
    """The permutations with the lowest loss at the solutions' mean so far. Mutable, private to one call."""

    objective: Objective
    solutions: Sequence[Weights]
    permutations: list[Permutation] = dataclasses.field(default_factory=list)
    loss: float = float("inf")
    history: list[float] = dataclasses.field(default_factory=list)

    def offer(self, permutations: Sequence[Permutation]) -> float:
        """Evaluate permutations, one for each solution, and keep them if they are better; return their loss."""
        moved = [p.apply(solution) for p, solution in zip(permutations, self.solutions, strict=True)]
        loss = loss_over(self.objective, combine(moved, [1 / len(moved)] * len(moved)))
        if loss < self.loss:
            self.loss, self.permutations = loss, list(permutations)
        self.history.append(-self.loss)
        return loss
