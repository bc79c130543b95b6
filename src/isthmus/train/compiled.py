"""A whole training step of all replicas as one compiled function that writes into their weights.

Everything is in it: the batch is gathered (and altered), the losses, the gradients and the optimiser. What Python has
to do for a step is one call, and no weights are copied.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from isthmus.train import products
from isthmus.train.batches import Batches, Stretch
from isthmus.train.steps import Layout, simplify, whole_step
from isthmus.train.task import State, Task

Step = Callable[..., object]


class Compiled:
    """The compiled step of a task, made anew for every shape of state and batch that it meets."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._made: dict[tuple[object, ...], Step] = {}

    def advance(self, state: State, stretch: Stretch) -> None:
        """Train over a stretch of full batches."""
        taken = torch.tensor(float(stretch.start), device=state.losses.device)
        memory = [tensor for part in state.memory for tensor in part]
        held = [*_data(stretch.batches), *state.inputs(), *memory, state.losses]
        step: Step | None = None
        for moving in _batches(stretch):
            if step is None:
                step = self._step(state, stretch.batches, [taken, *moving, *held])
            step(taken, *moving, *held)

    def _step(self, state: State, batches: Batches, given: Sequence[Tensor]) -> Step:
        layout = Layout.of(state)
        key = (layout, *((tensor.shape, tensor.stride(), tensor.dtype) for tensor in given))
        if key not in self._made:
            self._made[key] = self._compile(layout, batches, given, written=[*state.tensors(), given[0]])
        return self._made[key]

    def _compile(self, layout: Layout, batches: Batches, given: Sequence[Tensor], *, written: Sequence[Tensor]) -> Step:
        from torch._inductor import compile as compile_graph
        from torch.fx.experimental.proxy_tensor import make_fx

        def step(*tensors: Tensor) -> None:
            _take(self.task, layout, batches, tensors)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about operations that vmap runs one by one
            # Tracing takes the step, on copies of what it writes.
            mine = {id(tensor) for tensor in written}
            traced = make_fx(step)(*(tensor.clone() if id(tensor) in mine else tensor for tensor in given))
            simplify(traced.graph)
            if self.task.device.type == "cpu":
                products.take_over(traced.graph)
            traced.recompile()
            # Without dynamo's guards: shapes are checked above.
            made: Step = compile_graph(traced, list(given))  # type: ignore[assignment]
            return made


def _take(task: Task, layout: Layout, batches: Batches, tensors: Sequence[Tensor]) -> None:
    """One step, written into the tensors that hold the state."""
    rest = iter(tensors)
    taken, rate, order = next(rest), next(rest), next(rest)
    alterations = next(rest) if task.recipe.augmentation else None
    named = {name: next(rest) for name in _names(batches)}
    batch = dataclasses.replace(batches, **named).fetch(order, alterations)
    *held, losses = rest
    fixed = layout.parameters + layout.buffers + layout.masks
    inputs, memory = held[:fixed], held[fixed:]
    masks = inputs[layout.parameters + layout.buffers :]
    after, count = layout.state(whole_step(task, layout, [*inputs, *batch, *memory, rate, taken, losses]), masks=masks)
    before = [*inputs[: layout.parameters + layout.buffers], *memory, losses, taken]
    for old, new in zip(before, [*after.tensors(), count], strict=True):
        old.copy_(new)


def _batches(stretch: Stretch) -> Iterator[list[Tensor]]:
    """What differs from step to step: the learning rate, the positions, how examples are altered."""
    size = stretch.batches.batch_size
    part = slice(stretch.first * size, stretch.last * size)
    columns = [stretch.rates[stretch.start : stretch.start + stretch.last - stretch.first].unbind()]
    columns.append(stretch.plan.order[:, part].split(size, dim=1))
    if stretch.plan.alterations is not None:
        columns.append(stretch.plan.alterations[:, part].split(size, dim=1))
    return (list(row) for row in zip(*columns, strict=True))


def _names(batches: Batches) -> list[str]:
    return [name for name in ("inputs", "targets", "subsets") if getattr(batches, name) is not None]


def _data(batches: Batches) -> list[Tensor]:
    return [getattr(batches, name) for name in _names(batches)]
