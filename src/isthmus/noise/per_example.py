"""The gradient of every single example, in chunks, kept where they fit in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import WeightsError, listed
from isthmus.core.losses import IGNORED, counted
from isthmus.core.objective import Objective
from isthmus.core.operator import Operator
from isthmus.core.weights import Weights, unflatten

_CHUNK_BYTES = 2**28  # gradients that exist at once; the activations of as many examples come on top
_KEPT_BYTES = 2**30  # gradients that are kept between passes


@dataclasses.dataclass(frozen=True, eq=False)
class PerExampleGradients:
    """Gradients of the loss of single examples at one place, in evaluation mode and in at least float32.

    An example's loss is the mean of its values (tokens). Where labels are ignored and examples have unequal numbers of
    values, each is weighted by its own number over the mean number, as the objective weights it: the mean of these
    gradients is the objective's gradient in every case.

    Attributes:
        objective: network, data and loss.
        names: the tensors that vary, in the order of the vector's entries.
        vector: their values.
        fixed: all weights, in the working precision.
        kept: gradients of all examples if they fit.
        memory: bytes that they may take to be kept.
    """

    objective: Objective
    names: tuple[str, ...]
    vector: Float[Tensor, " entries"]
    fixed: Weights
    kept: list[Tensor] = dataclasses.field(default_factory=list, repr=False)
    memory: int = _KEPT_BYTES

    @classmethod
    def at(
        cls,
        objective: Objective,
        weights: Weights,
        *,
        tensors: Collection[str] | None = None,
        dtype: torch.dtype | None = None,
        memory: int = _KEPT_BYTES,
    ) -> PerExampleGradients:
        """Prepare them; nothing is computed yet.

        Args:
            objective: network, data and loss.
            weights: where.
            tensors: those that vary; all trainable ones by default.
            dtype: working precision; by default the weights' own, but at least float32.
            memory: bytes of gradients that may be kept between passes.

        Raises:
            WeightsError: names that are not trainable tensors.
        """
        network = objective.network
        wanted = set(network.parameter_names) if tensors is None else {network.tied.get(name, name) for name in tensors}
        if unknown := sorted(wanted - set(network.parameter_names)):
            raise WeightsError(f"names must be trainable tensors of the network; unknown: {listed(unknown)}")
        chosen = tuple(name for name in network.parameter_names if name in wanted)
        if dtype is None:
            dtype = torch.float32
            for name in chosen:
                dtype = torch.promote_types(dtype, weights[name].dtype)
        own = {name: tensor.detach() for name, tensor in weights.items() if name not in network.tied}
        fixed = {name: t.to(dtype) if t.is_floating_point() else t for name, t in own.items()}
        vector = torch.cat([fixed[name].reshape(-1) for name in chosen])
        return cls(objective, chosen, vector, fixed, memory=memory)

    @property
    def examples(self) -> int:
        """How many."""
        return len(self.objective.targets)

    @property
    def size(self) -> int:
        """Entries of one gradient."""
        return self.vector.numel()

    @functools.cached_property
    def shares(self) -> Float[Tensor, " examples"] | None:
        """Each example's number of values over the mean number; ``None`` where no label is ignored."""
        targets = self.objective.targets
        if targets.is_floating_point() or not bool((targets == IGNORED).any()):
            return None
        parts = [
            counted(self.objective.loss(outputs, some), some).reshape(len(some), -1).sum(1)
            for outputs, some in self.objective.outputs(self.fixed)
        ]
        counts = torch.cat(parts).to(self.vector.device, torch.float64)
        return counts / counts.mean().clamp_min(1e-300)

    def places(self) -> dict[str, slice]:
        """Where each tensor's entries lie in a gradient."""
        places, first = {}, 0
        for name in self.names:
            places[name] = slice(first, first + self.fixed[name].numel())
            first += self.fixed[name].numel()
        return places

    def chunks(self) -> Iterator[Float[Tensor, "examples entries"]]:
        """The gradients in the examples' order, some at a time; computed once if they fit in memory."""
        if self.kept:
            yield from self.kept
            return
        bytes_each = self.size * self.vector.element_size()
        fits = bytes_each * self.examples <= self.memory
        most = max(1, min(_CHUNK_BYTES // max(1, bytes_each), self.objective.batch_size, self.examples))
        collected = []
        for first in range(0, self.examples, most):
            part = slice(first, first + most)
            gradients = self.of([inputs[part] for inputs in self.objective.parts], self.objective.targets[part])
            if self.shares is not None:
                gradients = gradients * self.shares[part, None].to(gradients.dtype)
            if fits:
                collected.append(gradients)
            yield gradients
        self.kept.extend(collected)

    def of(self, inputs: list[Tensor], targets: Tensor) -> Float[Tensor, "examples entries"]:
        """The gradients of given examples, not weighted."""
        cast = [part.to(self.vector.dtype) if part.is_floating_point() else part for part in inputs]
        single = torch.func.grad(self.loss)
        if self.vectorises:
            with contextlib.suppress(RuntimeError, NotImplementedError):
                many = torch.func.vmap(single, in_dims=(None, 0, *[0] * len(cast)))
                return many(self.vector, targets, *cast).detach()
        rows = zip(targets, *cast, strict=True)
        return torch.stack([single(self.vector, target, *parts) for target, *parts in rows]).detach()

    @property
    def vectorises(self) -> bool:
        """Whether to try all examples at once: recurrent cells have no rule for it, and torch only warns."""
        return not any(isinstance(layer, nn.RNNBase) for layer in self.objective.network.modules().values())

    def loss(self, vector: Tensor, target: Tensor, *inputs: Any) -> Tensor:
        """The loss of one example, without its leading axis."""
        return self.loss_of(vector, target.unsqueeze(0), *[part.unsqueeze(0) for part in inputs])

    def loss_of(self, vector: Tensor, targets: Tensor, *inputs: Any) -> Tensor:
        """The mean loss of a batch of examples."""
        weights = unflatten(vector, self.fixed, tensors=self.names)
        return self.objective.mean_loss(self.objective.network(weights, *inputs), targets)

    def mean(self) -> Float[Tensor, " entries"]:
        """The gradient of the objective, accumulated in float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.vector.device)
        for gradients in self.chunks():
            total += gradients.double().sum(0)
        return total / self.examples

    def covariance(self, mean: Float[Tensor, " entries"]) -> Operator:
        """The covariance of single gradients (over examples − 1), by products."""

        def products(columns: Tensor) -> Tensor:
            total = torch.zeros_like(columns)
            for gradients in self.chunks():
                centred = gradients - mean.to(gradients)
                total += centred.T @ (centred @ columns)
            return total / max(1, self.examples - 1)

        return Operator(self.size, products, dtype=self.vector.dtype, device=self.vector.device)
