"""How a group is trained: one replica after the other, or all at once, plain or compiled. The results are the same.

An engine advances a :class:`State` in place over some steps of one epoch. All engines take the same batches in the same
order and the same optimiser arithmetic; they differ in rounding only. (Rounding grows where training is chaotic, as
with a high rate: two engines may then end at different, equally valid weights.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from isthmus.core.randomness import child_seed
from isthmus.train import optimisers
from isthmus.train.batches import Stretch
from isthmus.train.compiled import Compiled
from isthmus.train.steps import TINY, Function, Layout, gradients
from isthmus.train.task import State, Task, scores

# Bytes of weights, gradients and optimiser memory: on a core with 1 MiB of its own and 32 MiB shared, 16 MiB at once
# were measured to be as fast as 2, and 200 MiB half as fast.
_CACHE = 24 * 2**20


class Engine(Protocol):
    """One way of training a group."""

    name: str

    def advance(self, state: State, stretch: Stretch) -> None:
        """Train every replica over the stretch, writing into the state."""
        ...


class Sequential:
    """One replica after the other, as a plain loop would: the oracle of the others, and the one for any module.

    Args:
        task: what the group shares.
        channels_last: lay images out with the channels last in memory. Convolutions on CPUs were measured to train 1.2
            to 1.5 times as fast so (ResNet-20, and 32 or more channels), and .84 times with eight channels.
    """

    def __init__(self, task: Task, *, channels_last: bool = False) -> None:
        self.task, self.channels_last = task, channels_last
        self.name = "sequential, channels last" if channels_last else "sequential"
        self._parameters = dict(task.module.named_parameters())
        self._owners = {name: _owner(task.module, name) for name in task.buffers}
        self._trained = [self._parameters[name] for name in task.parameters]

    def advance(self, state: State, stretch: Stretch) -> None:
        """See :class:`Engine`."""
        with self.task.arithmetic():
            self._each(state, stretch)

    def _each(self, state: State, stretch: Stretch) -> None:
        for replica in range(state.count):
            self._advance(state.part(replica, replica + 1), stretch.part(replica, replica + 1))

    def _advance(self, state: State, stretch: Stretch) -> None:
        one = state.map(lambda tensor: tensor[0])
        self.bind(one)
        step = torch.tensor(float(stretch.start), device=one.losses.device)
        devices = [self.task.device] if self.task.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=self.task.stochastic):
            if self.task.stochastic:
                torch.manual_seed(child_seed(stretch.batches.recipes[0].augmentation_seed, "dropout", stretch.start))
            for index, rate in zip(range(stretch.first, stretch.last), stretch.rates_here(), strict=True):
                inputs, targets = (part[0] for part in stretch.batch(index))
                if self.channels_last:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                loss, slopes = self.differentiate(one, inputs, targets)
                optimisers.step_(self.task.recipe, one.parameters, slopes, one.memory, rate=rate, step=step)
                one.losses += loss
                step += 1
        self._collect(one.buffers)

    def bind(self, one: State) -> None:
        """Make the state's tensors the module's own, so that training the module trains the state."""
        for parameter, view in zip(self._trained, one.parameters, strict=True):
            parameter.data = view
        for name, view in zip(self.task.buffers, one.buffers, strict=True):
            owner, leaf = self._owners[name]
            if leaf in owner._buffers:
                owner._buffers[leaf] = view
            else:
                self._parameters[name].data = view  # a frozen parameter

    def differentiate(self, one: State, inputs: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of the bound replica; its running statistics move."""
        loss, slopes = self._differentiate(one, inputs, targets)
        if self.task.recipe.optimiser != "sam":
            return loss, slopes
        kept = [[tensor.clone() for tensor in part] for part in (one.parameters, one.buffers)]
        scale = self.task.recipe.radius / (torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt() + TINY)
        with torch.no_grad():
            torch._foreach_add_(one.parameters, [slope * scale for slope in slopes])
        _, slopes = self._differentiate(one, inputs, targets)
        self._collect(one.buffers)
        torch._foreach_copy_([*one.parameters, *one.buffers], [*kept[0], *kept[1]])
        return loss, slopes  # running statistics count the unperturbed pass only

    def _differentiate(self, one: State, inputs: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        with self.task.autocast():
            loss = self.task.loss(scores(self.task.module(inputs)), targets)
        given = torch.autograd.grad(loss, self._trained, allow_unused=True)
        slopes = [torch.zeros_like(p) if g is None else g for p, g in zip(self._trained, given, strict=True)]
        return loss.detach(), torch._foreach_mul(slopes, one.masks) if one.masks else slopes  # type: ignore[return-value]

    def _collect(self, buffers: Sequence[Tensor]) -> None:
        """Buffers that the module replaced, rather than wrote into, are brought home."""
        for name, view in zip(self.task.buffers, buffers, strict=True):
            owner, leaf = self._owners[name]
            held = owner._buffers.get(leaf)
            if held is not None and held.data_ptr() != view.data_ptr():
                view.copy_(held)
                owner._buffers[leaf] = view


class Vectorised:
    """All replicas at once: the forward pass under ``torch.vmap``, traced once to plain tensor operations.

    Args:
        task: what the group shares.
        compiled: take whole compiled steps (:mod:`isthmus.train.compiled`; needs a C++ compiler on a CPU).
        chunk: train at most so many replicas at once; None means all, or compiled on a CPU as many as its cache holds.
    """

    def __init__(self, task: Task, *, compiled: bool = False, chunk: int | None = None) -> None:
        self.task, self.compiled, self.chunk = task, compiled, chunk
        self._manner = "vectorised and compiled" if compiled else "vectorised"
        self.name = self._manner if chunk is None else f"{self._manner}, in chunks of {chunk}"
        self._slopes = Function(task, gradients, compiled=False)
        self._compiled = Compiled(task)

    def advance(self, state: State, stretch: Stretch) -> None:
        """See :class:`Engine`."""
        width = self.chunk or state.count
        if self.compiled and self.chunk is None and self.task.device.type == "cpu":
            width = _cached(state)
            self.name = self._manner + (f", in chunks of {width}" if width < state.count else "")
        for first in range(0, state.count, width):
            last = min(first + width, state.count)
            whole = last - first == state.count
            with self.task.arithmetic():
                self._advance(*((state, stretch) if whole else (state.part(first, last), stretch.part(first, last))))

    def _advance(self, state: State, stretch: Stretch) -> None:
        even = stretch.last
        if not self.compiled:
            even = stretch.first
        elif stretch.last > stretch.first and stretch.size(stretch.last - 1) < stretch.batches.batch_size:
            even -= 1  # an uneven last batch is not worth compiling for
        if even > stretch.first:
            self._compiled.advance(state, stretch.to(even))
        if even < stretch.last:
            start = stretch.start + even - stretch.first
            self._eager(state, dataclasses.replace(stretch, first=even, start=start))

    def _eager(self, state: State, stretch: Stretch) -> None:
        step = torch.tensor(float(stretch.start), device=state.losses.device)
        layout = Layout.of(state)
        for index, rate in zip(range(stretch.first, stretch.last), stretch.rates_here(), strict=True):
            results = self._slopes(layout, [*state.inputs(), *stretch.batch(index)])
            losses, slopes, buffers = layout.split(results)
            optimisers.step_(self.task.recipe, state.parameters, slopes, state.memory, rate=rate, step=step)
            if buffers:
                torch._foreach_copy_(state.buffers, buffers)
            state.losses += losses
            step += 1


def _cached(state: State) -> int:
    """How many replicas to train at once, so that a core's cache keeps what each step goes through.

    Preferably a divisor of all, since a chunk of another size is compiled for itself.
    """
    tensors = [*state.parameters, *state.parameters, *(tensor for part in state.memory for tensor in part)]  # gradients
    most = _CACHE * state.count // max(1, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    most = min(max(1, most), state.count)
    even = max(width for width in range(1, most + 1) if state.count % width == 0)
    return even if 2 * even >= most else most


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
