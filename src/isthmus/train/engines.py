"""How a group is trained: one replica after the other, or all at once, plain or compiled. The results are the same.

An engine advances a :class:`State` in place over some steps of one epoch. All engines take the same batches in the same
order and the same optimiser arithmetic; they differ in rounding only.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from isthmus.core.randomness import child_seed
from isthmus.train import optimisers
from isthmus.train.batches import Batches, Plan
from isthmus.train.task import State, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Stretch:
    """Some steps of one epoch.

    Attributes:
        batches: the group's data.
        plan: the epoch's order.
        first: the first step, counted within the epoch.
        last: one past the last step, counted within the epoch.
        start: what the first step is counted over the whole training.
        rates: the learning rate of every step of the whole training, on the device.
    """

    batches: Batches
    plan: Plan
    first: int
    last: int
    start: int
    rates: Tensor

    def part(self, first: int, last: int) -> Stretch:
        """The same steps for some of the replicas."""
        alterations = self.plan.alterations
        plan = Plan(self.plan.order[first:last], None if alterations is None else alterations[first:last])
        return dataclasses.replace(self, batches=self.batches.select(range(first, last)), plan=plan)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of one step of the epoch, with a leading replica axis."""
        size = self.batches.batch_size
        part = slice(step * size, (step + 1) * size)
        alterations = self.plan.alterations
        return self.batches.fetch(self.plan.order[:, part], None if alterations is None else alterations[:, part])


class Engine(Protocol):
    """One way of training a group."""

    name: str

    def advance(self, state: State, stretch: Stretch) -> None:
        """Train every replica over the stretch, writing into the state."""
        ...


class Sequential:
    """One replica after the other, as a plain loop would: the oracle for all other engines, and the one for any module."""

    name = "sequential"

    def __init__(self, task: Task) -> None:
        self.task = task
        self._parameters = dict(task.module.named_parameters())
        self._owners = {name: _owner(task.module, name) for name in task.buffers}

    def advance(self, state: State, stretch: Stretch) -> None:
        """See :class:`Engine`."""
        for replica in range(state.count):
            self._advance(state.part(replica, replica + 1), stretch.part(replica, replica + 1))

    def _advance(self, state: State, stretch: Stretch) -> None:
        one = state.map(lambda tensor: tensor[0])
        parameters = [self._parameters[name] for name in self.task.parameters]
        for parameter, view in zip(parameters, one.parameters, strict=True):
            parameter.data = view  # the module's own tensors now are the state's
        self._bind(one.buffers)
        step = torch.tensor(float(stretch.start), device=one.losses.device)
        devices = [self.task.device] if self.task.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=self.task.stochastic):
            if self.task.stochastic:
                torch.manual_seed(child_seed(stretch.batches.recipes[0].augmentation_seed, "dropout", stretch.start))
            for index in range(stretch.first, stretch.last):
                inputs, targets = (part[0] for part in stretch.batch(index))
                rate = stretch.rates[stretch.start + index - stretch.first]
                loss, gradients = self._gradients(parameters, one, inputs, targets)
                optimisers.step_(self.task.recipe, one.parameters, gradients, one.memory, rate=rate, step=step)
                one.losses += loss
                step += 1
        self._collect(one.buffers)

    def _gradients(
        self, parameters: Sequence[nn.Parameter], one: State, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        loss, gradients = self._differentiate(parameters, one, inputs, targets)
        if self.task.recipe.optimiser != "sam":
            return loss, gradients
        kept = [[tensor.clone() for tensor in part] for part in (one.parameters, one.buffers)]
        length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        with torch.no_grad():
            for parameter, gradient in zip(one.parameters, gradients, strict=True):
                parameter += gradient * (self.task.recipe.radius / (length + _TINY))
        _, gradients = self._differentiate(parameters, one, inputs, targets)
        self._collect(one.buffers)
        for part, values in zip((one.parameters, one.buffers), kept, strict=True):
            for tensor, value in zip(part, values, strict=True):
                tensor.copy_(value)  # running statistics count the unperturbed pass only
        return loss, gradients

    def _differentiate(
        self, parameters: Sequence[nn.Parameter], one: State, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        with self.task.autocast():
            from isthmus.train.task import scores

            loss = self.task.loss(scores(self.task.module(inputs)), targets)
        given = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, given, strict=True)]
        return loss.detach(), [g * m for g, m in zip(gradients, one.masks, strict=True)] if one.masks else gradients

    def _bind(self, buffers: Sequence[Tensor]) -> None:
        for name, view in zip(self.task.buffers, buffers, strict=True):
            owner, leaf = self._owners[name]
            if leaf in owner._buffers:
                owner._buffers[leaf] = view
            else:
                self._parameters[name].data = view  # a frozen parameter

    def _collect(self, buffers: Sequence[Tensor]) -> None:
        """Buffers that the module replaced, rather than wrote into, are brought home."""
        for name, view in zip(self.task.buffers, buffers, strict=True):
            owner, leaf = self._owners[name]
            held = owner._buffers.get(leaf)
            if held is not None and held.data_ptr() != view.data_ptr():
                view.copy_(held)
                owner._buffers[leaf] = view


_TINY = 1e-12  # keeps SAM's direction finite where the gradient vanishes


class Vectorised:
    """All replicas at once: the forward pass under ``torch.vmap``, traced once to plain tensor operations.

    Args:
        task: what the group shares.
        compiled: hand the traced step, optimiser included, to ``torch.compile`` (needs a C++ compiler on a CPU).
        chunk: train so many replicas at once at most; None means all.
    """

    def __init__(self, task: Task, *, compiled: bool = False, chunk: int | None = None) -> None:
        self.task, self.compiled, self.chunk = task, compiled, chunk
        self.name = "vectorised and compiled" if compiled else "vectorised"
        if chunk is not None:
            self.name += f", in chunks of {chunk}"
        self._traced: dict[tuple[int, ...], Callable[..., list[Tensor]]] = {}

    def advance(self, state: State, stretch: Stretch) -> None:
        """See :class:`Engine`."""
        width = self.chunk or state.count
        for first in range(0, state.count, width):
            last = min(first + width, state.count)
            whole = last - first == state.count
            run = self._compiled if self.compiled else self._eager
            run(state if whole else state.part(first, last), stretch if whole else stretch.part(first, last))

    def _eager(self, state: State, stretch: Stretch) -> None:
        step = torch.tensor(float(stretch.start), device=state.losses.device)
        for index in range(stretch.first, stretch.last):
            inputs, targets = stretch.batch(index)
            arguments = [*state.parameters, *state.buffers, *state.masks, inputs, targets]
            results = self._function(gradients, state, arguments)(*arguments)
            losses, slopes, buffers = self._split(results, state)
            rate = stretch.rates[stretch.start + index - stretch.first]
            optimisers.step_(self.task.recipe, state.parameters, slopes, state.memory, rate=rate, step=step)
            if buffers:
                torch._foreach_copy_(state.buffers, buffers)
            state.losses += losses
            step += 1

    def _compiled(self, state: State, stretch: Stretch) -> None:
        now = dataclasses.replace(state)
        step = torch.tensor(float(stretch.start), device=state.losses.device)
        count = len(state.parameters)
        for index in range(stretch.first, stretch.last):
            inputs, targets = stretch.batch(index)
            memory = [tensor for part in now.memory for tensor in part]
            rate = stretch.rates[stretch.start + index - stretch.first]
            arguments = [*now.parameters, *now.buffers, *now.masks, inputs, targets, *memory, rate, step, now.losses]
            results = self._function(whole_step, state, arguments)(*arguments)
            now.losses, step = results[0], results[1]
            now.parameters, rest = results[2 : 2 + count], results[2 + count :]
            now.buffers, rest = rest[: len(state.buffers)], rest[len(state.buffers) :]
            now.memory = [rest[i * count : (i + 1) * count] for i in range(len(state.memory))]
        state.copy_(now)

    def _split(self, results: list[Tensor], state: State) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        count = len(state.parameters)
        return results[0], results[1 : 1 + count], results[1 + count :]

    def _function(
        self, whole: Callable[..., list[Tensor]], state: State, arguments: Sequence[Tensor]
    ) -> Callable[..., list[Tensor]]:
        """The traced function for these shapes; an uneven last batch has one of its own."""
        inputs = arguments[len(state.parameters) + len(state.buffers) + len(state.masks)]
        key = tuple(inputs.shape[:2])
        if key not in self._traced:
            shapes = (len(state.parameters), len(state.buffers), len(state.masks), len(state.memory))
            self._traced[key] = self._trace(whole, shapes, arguments)
        return self._traced[key]

    def _trace(
        self, whole: Callable[..., list[Tensor]], shapes: tuple[int, ...], arguments: Sequence[Tensor]
    ) -> Callable[..., list[Tensor]]:
        from torch.fx.experimental.proxy_tensor import make_fx

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about operations that vmap runs one by one
            traced = make_fx(lambda *flat: whole(self.task, shapes, flat))(*arguments)
            traced.graph.eliminate_dead_code()
            traced.recompile()
            if not self.compiled:
                return traced.forward
            compiled = torch.compile(traced, dynamic=False, fullgraph=True)
            compiled(*arguments)  # compiles here, where its warnings are expected
        return compiled


def gradients(task: Task, shapes: tuple[int, ...], flat: Sequence[Tensor]) -> list[Tensor]:
    """Losses, gradients and new buffers of all replicas from a flat list of tensors."""
    parameters, buffers, masks, (inputs, targets) = _taken(shapes, flat)
    losses, slopes, moved = _differentiate(task, parameters, buffers, masks, inputs, targets)
    if task.recipe.optimiser == "sam":
        squares = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0)
        scale = task.recipe.radius / (squares.sqrt() + _TINY)
        worst = [p + g * scale.view(-1, *[1] * (p.dim() - 1)) for p, g in zip(parameters, slopes, strict=True)]
        _, slopes, _ = _differentiate(task, worst, buffers, masks, inputs, targets)
    return [losses, *slopes, *moved]


def whole_step(task: Task, shapes: tuple[int, ...], flat: Sequence[Tensor]) -> list[Tensor]:
    """A whole training step from and to a flat list of tensors, for the compiler to fuse."""
    count, held, masked, parts = shapes
    position = count + held + masked + 2
    memory = [list(flat[position + i * count : position + (i + 1) * count]) for i in range(parts)]
    rate, step, total = flat[position + parts * count :]
    losses, *rest = gradients(task, shapes, flat[:position])
    with torch.no_grad():
        new, remembered = optimisers.stepped(task.recipe, flat[:count], rest[:count], memory, rate=rate, step=step)
    return [total + losses, step + 1, *new, *rest[count:], *(tensor for part in remembered for tensor in part)]


def _taken(
    shapes: tuple[int, ...], flat: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    count, held, masked = shapes[:3]
    edges = (0, count, count + held, count + held + masked)
    return (*(flat[a:b] for a, b in zip(edges, edges[1:], strict=False)), flat[edges[-1] : edges[-1] + 2])  # type: ignore[return-value]


def _differentiate(
    task: Task,
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    masks: Sequence[Tensor],
    inputs: Tensor,
    targets: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    leaves = [parameter.detach().requires_grad_() for parameter in parameters]
    moved = [buffer.clone() for buffer in buffers]

    def forward(one: list[Tensor], held: list[Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
        return task.apply(one, held, images), held

    with torch.enable_grad(), task.autocast():
        outputs, moved = torch.func.vmap(forward)(leaves, moved, inputs)
        losses = task.losses(outputs, targets)
    given = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
    slopes = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, given, strict=True)]
    if masks:
        slopes = [slope * mask for slope, mask in zip(slopes, masks, strict=True)]
    return losses.detach(), slopes, moved


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
