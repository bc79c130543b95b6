"""Objective: mean loss and metrics of a network over a fixed set of examples, for one or for many weights.

Losses and metrics give one value for each example; the objective takes the mean over examples, never over batches, so
an uneven last batch has just its share. Labels of −100, torch's mark for padding, count in no mean.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from isthmus.core.errors import DataError, first_line
from isthmus.core.losses import IGNORED, PerExample, answers, check_labels, counted, cross_entropy, error
from isthmus.core.network import Network
from isthmus.core.portions import Portions
from isthmus.core.score import Score, Scores, Tally
from isthmus.core.weights import Weights, count, pick, stack, unstack

# Places (pixels) of the inputs that a core takes through convolutions at once: 64 images of 32 × 32, so that a layer's
# output is a few MiB. A gradient of ResNet-20 over 500 images was measured to take 490 MB so instead of 1,460, at the
# same speed; larger outputs are of memory that the system hands out anew each time. Never fewer examples than these.
_PLACES, _FEWEST = 2**16, 8


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """Mean loss of a network over a fixed set of examples.

    Attributes:
        network: the function.
        inputs: all inputs, examples first; a tuple for modules of several inputs.
        targets: all targets, examples first; labels of −100 count in no mean.
        loss: outputs, targets → one value for each example, or for each target.
        metrics: further functions of the same form.
        batch_size: how many examples go through the network at once, at most; changes memory and speed, not results.
            All of them where the network normalises by the batch that it sees (BatchNorm without running statistics):
            there the batches would decide the result.

    Raises:
        DataError: no examples, or unequal numbers of them; a module in place of its network.

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
        if isinstance(self.network, nn.Module):
            name = type(self.network).__name__
            raise DataError(f"network must be a Network, got the module {name}; wrap it: Network.of(module)")
        if self.batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {self.batch_size}")
        if len(self.targets) == 0:
            raise DataError("an objective needs at least one example, got none")
        for part in self.parts:
            if len(part) != len(self.targets):
                raise DataError(f"inputs and targets must be equally many, got {len(part)} and {len(self.targets)}")
        if len(self.targets) > self.batch_size and self.network.batch_dependent:
            object.__setattr__(self, "batch_size", len(self.targets))

    def __repr__(self) -> str:
        called = getattr(self.loss, "__name__", type(self.loss).__name__)
        count = sum(self.network.weights[name].numel() for name in self.network.parameter_names)
        return f"<Objective: {called} over {len(self.targets):,} examples, of a network of {count:,} parameters>"

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
        return self._with(lambda data: data.to(device))

    def over(self, which: slice | Tensor) -> Objective:
        """The same objective over some of the examples only."""
        return self._with(lambda data: data[which])

    def limited(self, examples: int) -> Objective:
        """The same objective over the first ``examples`` only."""
        return self.over(slice(examples))

    def _with(self, change: Callable[[Tensor], Tensor]) -> Objective:
        parts = tuple(change(part) for part in self.parts)
        inputs = parts if isinstance(self.inputs, tuple) else parts[0]
        return dataclasses.replace(self, inputs=inputs, targets=change(self.targets))

    @torch.no_grad()
    def tried(self, what: str) -> Any:
        """The network's own answers for the first two examples, to say what does not fit before the work begins.

        Args:
            what: the data's name, for the message.

        Raises:
            DataError: the network does not take the inputs, or there are labels outside its classes.
        """
        inputs = tuple(part[:2] for part in self.parts)
        try:
            found = answers(self.network(self.network.weights, *_cast(inputs, self._kind(self.network.weights))))
        except (RuntimeError, TypeError, IndexError, ValueError) as problem:
            shapes = " and ".join(str(tuple(part.shape[1:])) for part in inputs)
            reason = first_line(problem)
            raise DataError(f"the model must take inputs of shape {shapes} of {what}, but: {reason}") from problem
        if isinstance(found, Tensor) and found.dim() == self.targets.dim() + 1 == 2:
            check_labels(self.targets, found.shape[1], what=what)
        return found

    @torch.no_grad()
    def __call__(self, weights: Weights) -> Score:
        """Score one solution; sums are kept in float64."""
        tally, kind = Tally(), self._kind(weights)
        for inputs, targets in self._pieces(kind):
            tally.add(self._sums(self.network(weights, *_cast(inputs, kind)), targets, padded=self._padded))
        return tally.score()

    def mean_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The mean loss of a batch that went through the network, to be differentiated."""
        total, values = self._sums(outputs, targets, metrics=False)["loss"]
        return total / values.clamp_min(1)

    @torch.no_grad()
    def outputs(self, weights: Weights) -> Iterator[tuple[Any, Tensor]]:
        """The network's outputs and the targets, batch by batch, for measures that are no mean over examples."""
        for inputs, targets in self.batches():
            yield self.network(weights, *_cast(inputs, self._kind(weights))), targets

    @torch.no_grad()
    def many(self, stacked: Weights, *, together: bool | None = None) -> Scores:
        """Score many solutions.

        Args:
            stacked: tensors with a leading solution axis.
            together: whether all go through the network at once; changes memory and speed, not results. By default as
                many do as fit on a GPU, and on a CPU they go one after the other, which was measured to be faster there
                (vectorising 25 points of a path gives .36 to .81 of the loop's speed, except for tiny data).

        Raises:
            torch.cuda.OutOfMemoryError: they must go together and do not fit.
        """
        solutions = count(stacked)
        if together is None and next(iter(stacked.values())).device.type != "cpu":
            parts = Portions()(solutions, lambda part: self.many(pick(stacked, part), together=True))
            return Scores.joined(parts)
        if not together:
            return Scores.of([self(weights) for weights in unstack(stacked)])
        tally, kind = Tally(), self._kind(stacked)
        for inputs, targets in self.batches():
            outputs = self.network.many(stacked, *_cast(inputs, kind))
            tally.add(torch.func.vmap(lambda output, t=targets: self._sums(output, t, padded=self._padded))(outputs))
        return tally.scores()

    def gradient(self, weights: Weights) -> tuple[Score, dict[str, Tensor]]:
        """The score and the gradient of the mean loss for each trainable tensor, in evaluation mode."""
        names = self.network.parameter_names
        leaves = {name: weights[name].detach().requires_grad_() for name in names}
        fixed = {name: tensor.detach() for name, tensor in weights.items() if name not in leaves}
        wide = {n: torch.promote_types(t.dtype, torch.float32) for n, t in leaves.items()}
        gradient = {name: torch.zeros_like(leaf, dtype=wide[name]) for name, leaf in leaves.items()}
        tally, kind = Tally(), self._kind(weights)
        for inputs, targets in self._pieces(kind):
            outputs = self.network({**fixed, **leaves}, *_cast(inputs, kind))
            sums = self._sums(outputs, targets, padded=self._padded)
            total, values = sums["loss"]
            # Of the batch's mean: the gradient of a sum over a thousand examples can leave the range of float16.
            parts = torch.autograd.grad(total / values.clamp_min(1), list(leaves.values()), allow_unused=True)
            for name, part in zip(names, parts, strict=True):
                if part is not None:
                    gradient[name] += part.to(wide[name]) * values
            tally.add(sums)
        score = tally.score()
        return score, {name: (gradient[name] / score.examples).to(leaf.dtype) for name, leaf in leaves.items()}

    def gradients(self, stacked: Weights, *, together: bool | None = None) -> tuple[Scores, dict[str, Tensor]]:
        """The scores and, for each trainable tensor, the stacked gradients of many solutions, in evaluation mode.

        Args:
            stacked: tensors with a leading solution axis.
            together: as for :meth:`many`; one backward pass for all solutions, or one for each.

        Raises:
            torch.cuda.OutOfMemoryError: they must go together and do not fit.
        """
        if together is None and next(iter(stacked.values())).device.type != "cpu":
            found = Portions()(count(stacked), lambda part: self.gradients(pick(stacked, part), together=True))
            gradient = {name: torch.cat([part[name] for _, part in found]) for name in found[0][1]}
            return Scores.joined([scores for scores, _ in found]), gradient
        if not together:
            pairs = [self.gradient(weights) for weights in unstack(stacked)]
            return Scores.of([score for score, _ in pairs]), stack([gradient for _, gradient in pairs])
        leaves = {name: stacked[name].detach().clone().requires_grad_() for name in self.network.parameter_names}
        fixed = {name: tensor.detach() for name, tensor in stacked.items() if name not in leaves}
        wide = {n: torch.promote_types(t.dtype, torch.float32) for n, t in leaves.items()}
        gradient = {name: torch.zeros_like(leaf, dtype=wide[name]) for name, leaf in leaves.items()}
        tally, kind = Tally(), self._kind(stacked)
        for inputs, targets in self.batches():
            outputs = self.network.many({**fixed, **leaves}, *_cast(inputs, kind))
            sums = torch.func.vmap(lambda output, t=targets: self._sums(output, t, padded=self._padded))(outputs)
            total, values = sums["loss"]
            # Solutions do not touch each other: the gradient of the sum of their means holds each one's own gradient.
            means = (total / values.clamp_min(1)).sum()
            parts = torch.autograd.grad(means, list(leaves.values()), allow_unused=True)
            for name, part in zip(leaves, parts, strict=True):
                if part is not None:
                    gradient[name] += part.to(wide[name]) * values.view(-1, *[1] * (part.dim() - 1))
            tally.add(sums)
        scores = tally.scores()
        return scores, {name: (part / scores.examples).to(leaves[name].dtype) for name, part in gradient.items()}

    def _sums(
        self, outputs: Any, targets: Tensor, *, metrics: bool = True, padded: bool = True
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """For the loss and each metric the sum of its values in float64, and how many count: all, unless ``padded``."""
        leaves = (outputs,) if isinstance(outputs, Tensor) else tree_leaves(outputs)
        targets = targets.to(next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), targets.device))
        losses = self.loss(outputs, targets)
        if losses.dim() == 0:
            raise DataError("a loss must give one value for each example, got a single number; use reduction='none'")
        asked = self.metrics if metrics else {}
        if not padded:
            values = {"loss": losses, **{name: metric(outputs, targets) for name, metric in asked.items()}}
            return {name: (v.sum(dtype=torch.float64), _number(v.numel(), v)) for name, v in values.items()}
        count = counted(losses, targets)
        found = {"loss": (losses.double().sum(), count.sum())}
        for name, metric in asked.items():
            value = metric(outputs, targets)
            counts = count if value.shape == count.shape else torch.ones_like(value, dtype=torch.bool)
            found[name] = (torch.where(counts, value.double(), 0.0).sum(), counts.sum())
        return found

    @functools.cached_property
    def _padded(self) -> bool:
        """Whether there are ignored labels among the targets."""
        return not self.targets.is_floating_point() and bool((self.targets == IGNORED).any())

    def _pieces(self, kind: _Kind) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """The batches; on a CPU those of convolutional networks in smaller parts, whose values stay in its caches."""
        most = self._at_once if kind is not None and kind[0].type == "cpu" else None
        for inputs, targets in self.batches():
            if most is None or len(targets) <= most:
                yield inputs, targets
                continue
            parts = math.ceil(len(targets) / most)  # nearly equal: some networks refuse one example alone
            pieces = zip(*(part.tensor_split(parts) for part in inputs), strict=True)
            yield from zip(pieces, targets.tensor_split(parts), strict=True)

    @functools.cached_property
    def _at_once(self) -> int | None:
        """How many examples a CPU takes at once; ``None``: all of a batch."""
        shape, layers = self.parts[0].shape, self.network.modules().values()
        if not any(isinstance(layer, nn.modules.conv._ConvNd) for layer in layers) or self.network.batch_dependent:
            return None
        return max(_FEWEST, _PLACES // max(1, math.prod(shape[2:]))) * torch.get_num_threads()

    def _kind(self, weights: Weights) -> _Kind:
        """The parameters' device and their one precision (buffers may have another)."""
        names = self.network.parameter_names or tuple(weights)
        found = [weights[name] for name in names if weights[name].is_floating_point()]
        dtypes = {tensor.dtype for tensor in found}
        return (found[0].device, dtypes.pop() if len(dtypes) == 1 else None) if found else None


# A device and a precision; None: of weights without floating numbers.
_Kind = tuple[torch.device, torch.dtype | None] | None


def _cast(inputs: tuple[Tensor, ...], kind: _Kind) -> tuple[Tensor, ...]:
    """Inputs on the weights' device, floating ones in the parameters' own precision."""
    if kind is None:
        return inputs
    device, dtype = kind
    return tuple(part.to(device, dtype if part.is_floating_point() else None) for part in inputs)


def _number(value: int, like: Tensor) -> Tensor:
    return like.new_full((), value, dtype=torch.int64)
