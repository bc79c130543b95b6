"""Training steps captured as CUDA graphs: vectorised over the replicas, or with a branch for each of them.

A small network's step is hundreds of short kernels, and launching them one by one from Python leaves the GPU idle. A
graph launches them all at once; its branches run beside each other. Everything a step needs to know is read from device
memory (position in the epoch, learning rate, optimiser step), so that replaying the same graph takes the next step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from isthmus.train import optimisers
from isthmus.train.batches import Batches
from isthmus.train.engines import Sequential, Stretch
from isthmus.train.steps import Function, Layout, gradients
from isthmus.train.task import State, Task

_WARM = 3  # eager steps before a capture, so that libraries have set up their workspaces


class _Tape:
    """Every tensor that a branch of a captured step reads or writes; they must live as long as the graph does.

    Attributes:
        state: weights that the branch trains.
        stream: where the branch is captured.
        place: the step within the epoch, on the device.
        step: the step within the whole training, on the device.
    """

    def __init__(self, state: State, stretch: Stretch, stream: torch.cuda.Stream) -> None:
        self.state, self.batches, self.stream = state, stretch.batches, stream
        self.order = stretch.plan.order.clone()
        alterations = stretch.plan.alterations
        self.alterations = None if alterations is None else alterations.clone()
        self.rates = stretch.rates.clone()
        device = state.losses.device
        self.place = torch.zeros((), dtype=torch.int64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)

    def load(self, state: State, stretch: Stretch) -> None:
        """Set the graph's memory to where a stretch begins."""
        self.state.copy_(state)
        if self.state.masks:
            torch._foreach_copy_(self.state.masks, state.masks)  # another round of pruning has others
        self.order.copy_(stretch.plan.order)
        if self.alterations is not None and stretch.plan.alterations is not None:
            self.alterations.copy_(stretch.plan.alterations)
        self.rates.copy_(stretch.rates)
        self.place.fill_(stretch.first)
        self.step.fill_(stretch.start)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """The batch at the present place."""
        positions = self.place * self.batches.batch_size + torch.arange(size, device=self.place.device)
        order = self.order.index_select(1, positions)
        alterations = None if self.alterations is None else self.alterations.index_select(1, positions)
        return self.batches.fetch(order, alterations)

    def rate(self) -> Tensor:
        """The learning rate at the present step."""
        return self.rates.index_select(0, self.step.view(1)).squeeze(0)

    def back(self, marks: tuple[Tensor, Tensor]) -> None:
        """Set the counters."""
        self.place.copy_(marks[0])
        self.step.copy_(marks[1])


class _Graphs:
    """What both engines share: tapes, and one graph of all for each size of batch, captured when first needed."""

    name = "graphs"

    def __init__(self, task: Task) -> None:
        self.task = task
        self._tapes: list[_Tape] = []
        self._captured: dict[int, torch.cuda.CUDAGraph] = {}
        self._batches: Batches | None = None

    def _new(self, state: State, stretch: Stretch) -> list[_Tape]:
        raise NotImplementedError

    def _step(self, tape: _Tape, size: int) -> None:
        raise NotImplementedError

    def advance(self, state: State, stretch: Stretch) -> None:
        """See :class:`isthmus.train.engines.Engine`."""
        with self.task.arithmetic():
            self._advance(state, stretch)

    def _advance(self, state: State, stretch: Stretch) -> None:
        if self._batches is not stretch.batches:
            self._captured = {}
            self._tapes, self._batches = self._new(state, stretch), stretch.batches
        parts = self._parts(state, stretch)
        for tape, (part, piece) in zip(self._tapes, parts, strict=True):
            tape.load(part, piece)
        sizes = [stretch.size(index) for index in range(stretch.first, stretch.last)]
        for size in dict.fromkeys(sizes):
            if size not in self._captured:
                self._captured[size] = self._capture(size)
        for size in sizes:
            self._captured[size].replay()
        for tape, (part, _) in zip(self._tapes, parts, strict=True):
            part.copy_(tape.state)

    def _parts(self, state: State, stretch: Stretch) -> list[tuple[State, Stretch]]:
        if len(self._tapes) == 1:
            return [(state, stretch)]
        count = range(state.count)
        return [(state.part(index, index + 1), stretch.part(index, index + 1)) for index in count]

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """Warm up and record one step of every tape; their states are put back to where they were."""
        before = [(tape, tape.state.clone(), (tape.place.clone(), tape.step.clone())) for tape in self._tapes]
        graph, trunk = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.task.device)
        with _fastest_kernels():
            for tape, _, marks in before:
                with _beside([tape.stream]), torch.cuda.stream(tape.stream):
                    for _ in range(_WARM):
                        self._step(tape, size)
                        tape.back(marks)
            torch.cuda.synchronize(self.task.device)
            with torch.cuda.graph(graph, stream=trunk), _beside([tape.stream for tape in self._tapes]):
                for tape in self._tapes:
                    with torch.cuda.stream(tape.stream):
                        self._step(tape, size)
        for tape, state, marks in before:
            tape.state.copy_(state)
            tape.back(marks)
        return graph

    def _update(
        self, tape: _Tape, state: State, losses: Tensor, slopes: Sequence[Tensor], buffers: Sequence[Tensor]
    ) -> None:
        """The optimiser's part of a step, and the counters; ``state`` is the tape's, or a view of it."""
        optimisers.step_(
            self.task.recipe, state.parameters, slopes, state.memory, rate=tape.rate(), step=tape.step.float()
        )
        if buffers:
            torch._foreach_copy_(state.buffers, list(buffers))
        state.losses.add_(losses)
        tape.place.add_(1)
        tape.step.add_(1)


class Graph(_Graphs):
    """One graph of the vectorised step of all replicas: for networks whose kernels are small, such as perceptrons.

    Args:
        task: what the group shares.
        compiled: hand the traced step to ``torch.compile``.
        folded: lay images out for grouped convolutions (:mod:`isthmus.train.folding`).
        kernels: convolutions and normalisation by our own kernels (:mod:`isthmus.train.kernels`).
    """

    def __init__(self, task: Task, *, compiled: bool = False, folded: bool = False, kernels: bool = False) -> None:
        super().__init__(task)
        self.name = "one captured graph" + (", folded" if folded else "") + (", compiled" if compiled else "")
        self.name += ", own kernels" if kernels else ""
        self._slopes, self._folded, self._kernels = Function(task, gradients, compiled=compiled), folded, kernels

    def _new(self, state: State, stretch: Stretch) -> list[_Tape]:
        return [_Tape(state.clone(), stretch, torch.cuda.Stream(self.task.device))]

    def _step(self, tape: _Tape, size: int) -> None:
        layout = Layout.of(tape.state, folded=self._folded, kernels=self._kernels)
        results = self._slopes(layout, [*tape.state.inputs(), *tape.batch(size)])
        self._update(tape, tape.state, *layout.split(results))


class Graphs(_Graphs):
    """A branch of the graph for each replica: for what is slow when vectorised, as many convolutions are.

    Args:
        task: what the group shares.
        compiled: hand the traced step to ``torch.compile``.
        kernels: normalisation by our own kernels, narrow convolutions too (:mod:`isthmus.train.kernels`).
    """

    def __init__(self, task: Task, *, compiled: bool = False, kernels: bool = False) -> None:
        super().__init__(task)
        self.name = "a captured graph with a branch for each replica" + (", compiled" if compiled else "")
        self.name += ", own kernels" if kernels else ""
        self._plain, self._kernels = Sequential(task.copy()), kernels
        self._slopes = Function(task, gradients, compiled=compiled) if compiled or kernels else None

    def _new(self, state: State, stretch: Stretch) -> list[_Tape]:
        tapes = []
        for index in range(state.count):
            one = state.part(index, index + 1).map(self._laid_out)
            tapes.append(_Tape(one, stretch.part(index, index + 1), torch.cuda.Stream(self.task.device)))
        return tapes

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """A copy; kernels of convolutions channels-last, as tensor cores want them in bfloat16."""
        if self._channels_last and tensor.dim() == 5:
            return tensor[0].clone(memory_format=torch.channels_last)[None]
        return tensor.clone()

    @property
    def _channels_last(self) -> bool:
        return self.task.recipe.precision == "bfloat16" and not self._kernels

    def _step(self, tape: _Tape, size: int) -> None:
        if self._slopes is not None and self._kernels:
            layout = Layout.of(tape.state, kernels=True)
            results = self._slopes(layout, [*tape.state.inputs(), *tape.batch(size)])
            self._update(tape, tape.state, *layout.split(results))
            return
        inputs, targets = (part[0] for part in tape.batch(size))
        if self._channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        one = tape.state.map(lambda tensor: tensor[0])  # views, in the kernels' own layout
        if self._slopes is None:
            self._plain.bind(one)
            self._update(tape, one, *self._plain.differentiate(one, inputs, targets), [])
        else:
            layout = Layout.of(one, stacked=False)
            self._update(tape, one, *layout.split(self._slopes(layout, [*one.inputs(), inputs, targets])))


@contextlib.contextmanager
def _beside(streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
    """Side streams begin after what the current stream has been given, and it goes on after they are done."""
    current = torch.cuda.current_stream(streams[0].device)
    for stream in streams:
        stream.wait_stream(current)
    try:
        yield
    finally:
        for stream in streams:
            current.wait_stream(stream)


@contextlib.contextmanager
def _fastest_kernels() -> Iterator[None]:
    """Let cuDNN time its kernels while a step is warmed up; a captured step keeps the ones it found."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
