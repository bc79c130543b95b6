"""Objective: mean loss and metrics of a network over a fixed set of examples, for one or for many weights.

Losses and metrics give one value for each example; the objective takes the mean over examples, never over batches, so
an uneven last batch has just its share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from isthmus.core.errors import DataError, WeightsError
from isthmus.core.network import Network
from isthmus.core.score import Score, Scores
from isthmus.core.weights import Weights, count, pick, stack

PerExample = Callable[[Any, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats for each target; classes are the last axis if the shapes say so, else axis 1."""
    outputs, targets = class_scores(outputs, targets)
    return functional.cross_entropy(outputs, targets, reduction="none")


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the most likely class is wrong, else 0."""
    outputs, targets = class_scores(outputs, targets)
    return (outputs.argmax(1) != targets).to(torch.float32)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error, averaged over output coordinates, for each example."""
    return (outputs - targets.to(outputs.dtype)).square().flatten(1).mean(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """Mean loss of a network over a fixed set of examples.

    Attributes:
        network: the function.
        inputs: all inputs, examples first; a tuple for modules of several inputs.
        targets: all targets, examples first.
        loss: outputs, targets → one value for each example.
        metrics: further functions of the same form.
        batch_size: how many examples go through the network at once; changes memory and speed, not results.

    Example:
        >>> network = Network.of(torch.nn.Linear(2, 3))
        >>> objective = Objective(network, torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]), batch_size=2)
        >>> objective(network.weights).examples
        5
    """

    network: Network
    inputs: Tensor | tuple[Tensor, ...]
    targets: Tensor
    loss: PerExample = cross_entropy
    metrics: Mapping[str, PerExample] = dataclasses.field(default_factory=lambda: {"error": error})
    batch_size: int = 1000

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {self.batch_size}")
        if len(self.targets) == 0:
            raise DataError("an objective needs at least one example, got none")
        for part in self.parts:
            if len(part) != len(self.targets):
                raise DataError(f"inputs and targets must be equally many, got {len(part)} and {len(self.targets)}")

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The inputs as a tuple, also where there is one."""
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def batches(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """The examples in their fixed order, ``batch_size`` at a time; the last batch may be smaller."""
        for first in range(0, len(self.targets), self.batch_size):
            part = slice(first, first + self.batch_size)
            yield tuple(tensor[part] for tensor in self.parts), self.targets[part]

    def to(self, device: str | torch.device) -> Objective:
        """The same objective with its data on another device."""
        parts = tuple(part.to(device) for part in self.parts)
        inputs = parts if isinstance(self.inputs, tuple) else parts[0]
        return dataclasses.replace(self, inputs=inputs, targets=self.targets.to(device))

    def limited(self, examples: int) -> Objective:
        """The same objective over the first ``examples`` only."""
        parts = tuple(part[:examples] for part in self.parts)
        inputs = parts if isinstance(self.inputs, tuple) else parts[0]
        return dataclasses.replace(self, inputs=inputs, targets=self.targets[:examples])

    @torch.no_grad()
    def __call__(self, weights: Weights) -> Score:
        """Score one solution; sums are kept in float64."""
        totals, examples = self._sums(lambda inputs: self.network(weights, *self._cast(inputs, weights)), many=False)
        means = {name: float(total) / examples for name, total in totals.items()}
        return Score(means.pop("loss"), means, examples)

    @torch.no_grad()
    def outputs(self, weights: Weights) -> Iterator[tuple[Any, Tensor]]:
        """The network's outputs and the targets, batch by batch, for measures that are no mean over examples."""
        for inputs, targets in self.batches():
            yield self.network(weights, *self._cast(inputs, weights)), targets

    @torch.no_grad()
    def many(self, stacked: Weights, *, together: bool | None = None) -> Scores:
        """Score many solutions.

        Args:
            stacked: tensors with a leading solution axis.
            together: whether all go through the network at once; changes memory and speed, not results. By default they
                do on a GPU, and on a CPU go one after the other, which was measured to be faster there (vectorising 25
                points of a path gives .36 to .81 of the loop's speed, except for tiny data).
        """
        solutions = count(stacked)
        if together is None:
            together = next(iter(stacked.values())).device.type != "cpu"
        if not together:
            return Scores.of([self(pick(stacked, index)) for index in range(solutions)])
        totals, examples = self._sums(
            lambda inputs: self.network.many(stacked, *self._cast(inputs, stacked)), many=True
        )
        means = {name: (total / examples).cpu() for name, total in totals.items()}
        return Scores(means.pop("loss"), means, examples)

    def gradient(self, weights: Weights) -> tuple[Score, dict[str, Tensor]]:
        """The score and the gradient of the mean loss for each trainable tensor, in evaluation mode."""
        names = self.network.parameter_names
        leaves = {name: weights[name].detach().requires_grad_() for name in names}
        fixed = {name: tensor.detach() for name, tensor in weights.items() if name not in leaves}
        gradient: dict[str, Tensor] = {}
        totals: dict[str, float] = {}
        examples = 0
        for inputs, targets in self.batches():
            outputs = self.network({**fixed, **leaves}, *self._cast(inputs, weights))
            values = self._values(outputs, targets)
            parts = torch.autograd.grad(values["loss"].sum(), list(leaves.values()), allow_unused=True)
            for name, part in zip(names, parts, strict=True):
                if part is not None:
                    gradient[name] = gradient[name] + part if name in gradient else part
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach().double().sum())
            examples += values["loss"].numel()
        means = {name: total / examples for name, total in totals.items()}
        gradient = {
            name: gradient[name] / examples if name in gradient else torch.zeros_like(leaf)
            for name, leaf in leaves.items()
        }
        return Score(means.pop("loss"), means, examples), gradient

    def gradients(self, stacked: Weights, *, together: bool | None = None) -> tuple[Scores, dict[str, Tensor]]:
        """The scores and, for each trainable tensor, the stacked gradients of many solutions, in evaluation mode.

        Args:
            stacked: tensors with a leading solution axis.
            together: as for :meth:`many`; one backward pass for all solutions, or one for each.
        """
        if together is None:
            together = next(iter(stacked.values())).device.type != "cpu"
        if not together:
            pairs = [self.gradient(pick(stacked, index)) for index in range(count(stacked))]
            return Scores.of([score for score, _ in pairs]), stack([gradient for _, gradient in pairs])
        leaves = {name: stacked[name].detach().clone().requires_grad_() for name in self.network.parameter_names}
        fixed = {name: tensor.detach() for name, tensor in stacked.items() if name not in leaves}
        gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        totals: dict[str, Tensor] = {}
        examples = 0
        for inputs, targets in self.batches():
            outputs = self.network.many({**fixed, **leaves}, *self._cast(inputs, stacked))
            values = torch.func.vmap(lambda output, t=targets: self._values(output, t))(outputs)
            # Solutions do not touch each other, so the gradient of the sum holds each one's own gradient.
            parts = torch.autograd.grad(values["loss"].sum(), list(leaves.values()), allow_unused=True)
            for name, part in zip(leaves, parts, strict=True):
                if part is not None:
                    gradient[name] += part
            for name, value in values.items():
                total = value.detach().double().flatten(1).sum(1)
                totals[name] = totals[name] + total if name in totals else total
            examples += values["loss"][0].numel()
        means = {name: (total / examples).cpu() for name, total in totals.items()}
        scores = Scores(means.pop("loss"), means, examples)
        return scores, {name: part / examples for name, part in gradient.items()}

    def _sums(self, forward: Callable[[tuple[Tensor, ...]], Any], *, many: bool) -> tuple[dict[str, Tensor], int]:
        """Sums over all examples of the loss and of every metric, and the number of values in each sum."""
        totals: dict[str, Tensor] = {}
        examples = 0
        for inputs, targets in self.batches():
            outputs = forward(inputs)
            if many:
                values = torch.func.vmap(lambda output, t=targets: self._values(output, t))(outputs)
                sums = {name: value.double().flatten(1).sum(1) for name, value in values.items()}
                examples += values["loss"][0].numel()
            else:
                values = self._values(outputs, targets)
                sums = {name: value.double().sum() for name, value in values.items()}
                examples += values["loss"].numel()
            totals = {name: totals[name] + value if name in totals else value for name, value in sums.items()}
        return totals, examples

    def _values(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        place = next((leaf.device for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)), targets.device)
        targets = targets.to(place)
        values = {"loss": self.loss(outputs, targets)}
        if values["loss"].dim() == 0:
            raise DataError("a loss must give one value for each example, got a single number; use reduction='none'")
        return {**values, **{name: metric(outputs, targets) for name, metric in self.metrics.items()}}

    def _cast(self, inputs: tuple[Tensor, ...], weights: Weights) -> tuple[Tensor, ...]:
        """Inputs on the weights' device, floating ones in the parameters' own precision (buffers may have another)."""
        names = self.network.parameter_names or tuple(weights)
        found = [weights[name] for name in names if weights[name].is_floating_point()]
        if not found:
            return inputs
        dtypes = {tensor.dtype for tensor in found}
        dtype, device = dtypes.pop() if len(dtypes) == 1 else None, found[0].device
        return tuple(part.to(device, dtype if part.is_floating_point() else None) for part in inputs)


def check_labels(targets: Tensor, classes: int) -> None:
    """Refuse labels outside 0 … classes − 1.

    Raises:
        DataError: names the range that was found.
    """
    if targets.is_floating_point():
        raise DataError(f"labels must be whole numbers, got {targets.dtype}")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise DataError(f"labels must lie in 0 … {classes - 1} (the model has {classes} outputs), got {low} … {high}")


def class_scores(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Class scores and labels with the classes on axis 1, also out of a result that has ``logits``.

    Raises:
        WeightsError: the outputs have not one axis more than the labels.
    """
    logits = getattr(outputs, "logits", outputs)
    if isinstance(logits, tuple):
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.dim() != targets.dim() + 1:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(outputs).__name__
        raise WeightsError(f"class scores must have one axis more than the labels {tuple(targets.shape)}, got {shape}")
    if targets.dim() > 1 and logits.shape[:-1] == targets.shape:
        logits = logits.movedim(-1, 1)
    return logits, targets
