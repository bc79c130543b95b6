"""Training steps captured as CUDA graphs: vectorised over the replicas, or with a branch for each of them.

A small network's step is hundreds of short kernels, and launching them one by one from Python leaves the GPU idle. A
graph launches them all at once; its branches run beside each other. Everything a step needs to know is read from device
memory (position in the epoch, learning rate, optimiser step), so that replaying the same graph takes the next step.

A graph holds the activations of all replicas that it trains. Where those do not fit, it is captured for fewer and
takes the group in chunks, one after the other through the same memory.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from isthmus.train import optimisers
from isthmus.train.batches import Batches
from isthmus.train.engines import Sequential, Stretch
from isthmus.train.steps import Function, Layout, gradients
from isthmus.train.tape import Tape
from isthmus.train.task import State, Task

_WARM = 3  # eager steps before a capture, so that libraries have set up their workspaces
_ROOM = 1.15  # of what a step held: streams do not share what they have given back
BRANCHES = 32  # of one graph: each holds its own activations, and more were not measured to gain anything


class _Graphs:
    """What both engines share: tapes, and one graph of all for each size of batch, captured when first needed.

    Args:
        task: what the group shares.
        name: how replicas are trained, in words.
        most: replicas in one graph; none means all, where they fit.
    """

    def __init__(self, task: Task, *, name: str, most: int | None = None) -> None:
        self.task, self.name, self._manner, self._most = task, name, name, most
        self._tapes: list[Tape] = []
        self._captured: dict[int, torch.cuda.CUDAGraph] = {}
        self._batches: Batches | None = None

    def _new(self, state: State, stretch: Stretch) -> list[Tape]:
        raise NotImplementedError

    def _step(self, tape: Tape, size: int) -> None:
        raise NotImplementedError

    def advance(self, state: State, stretch: Stretch) -> None:
        """See :class:`isthmus.train.engines.Engine`."""
        sizes = [stretch.size(index) for index in range(stretch.first, stretch.last)]
        with self.task.arithmetic():
            width = self._prepared(state, stretch, sizes)
            for first in range(0, state.count, width):
                last = min(first + width, state.count)
                whole = last - first == state.count
                self._advance(*((state, stretch) if whole else _part(state, stretch, first, last)), sizes)

    def _prepared(self, state: State, stretch: Stretch, sizes: Sequence[int]) -> int:
        """Capture what is missing, for as many replicas as fit; returns how many those are. Nothing is trained yet.

        Raises:
            torch.cuda.OutOfMemoryError: even one replica alone does not fit.
        """
        if self._batches is not stretch.batches:
            if self._tapes:
                self._release()
            self._batches = stretch.batches
        while True:
            width = _even(state.count, most=self._most)
            self.name = self._manner + (f", in chunks of {width}" if width < state.count else "")
            try:
                self._captures(*_part(state, stretch, 0, width), sizes)
            except torch.cuda.OutOfMemoryError:
                if width == 1:
                    raise
                self._most = -(-width // 2)
            else:
                return width
            self._release()  # here, where the traceback holds on to nothing any more

    def _captures(self, state: State, stretch: Stretch, sizes: Sequence[int]) -> None:
        if not self._tapes:
            self._tapes = self._new(state, stretch)
        if missing := [size for size in dict.fromkeys(sizes) if size not in self._captured]:
            self._load(state, stretch)
            for size in missing:
                self._captured[size] = self._capture(size)

    def _advance(self, state: State, stretch: Stretch, sizes: Sequence[int]) -> None:
        """Train one chunk."""
        parts = self._load(state, stretch)
        for size in sizes:
            self._captured[size].replay()
        for tape, part in zip(self._tapes, parts, strict=False):
            part.copy_(tape.state.part(0, part.count))

    def _load(self, state: State, stretch: Stretch) -> list[State]:
        """Give each tape its part of a chunk, and the last one again where there are more tapes. Returns the parts."""
        parts = [(state, stretch)]
        if len(self._tapes) > 1:
            parts = [_part(state, stretch, index, index + 1) for index in range(state.count)]
        for index, tape in enumerate(self._tapes):
            tape.load(*parts[min(index, len(parts) - 1)])
        return [part for part, _ in parts]

    def _release(self) -> None:
        """Give back the memory of all graphs."""
        self._captured, self._tapes = {}, []
        gc.collect()
        torch.cuda.empty_cache()

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """Warm up and record one step of every tape; their states are put back to where they were."""
        before = [(tape, tape.state.clone(), (tape.place.clone(), tape.step.clone())) for tape in self._tapes]
        graph, trunk = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.task.device)
        with _fastest_kernels():
            needed = sum(self._warm(tape, size, marks) for tape, _, marks in before)
            torch.cuda.synchronize(self.task.device)
            _refuse_crowding(needed, self.task.device)
            with torch.cuda.graph(graph, stream=trunk), _beside([tape.stream for tape in self._tapes]):
                for tape in self._tapes:
                    with torch.cuda.stream(tape.stream):
                        self._step(tape, size)
        for tape, state, marks in before:
            tape.state.copy_(state)
            tape.back(marks)
        return graph

    def _warm(self, tape: Tape, size: int, marks: tuple[Tensor, Tensor]) -> int:
        """Take steps without a graph; returns the bytes that the last one held beside what was there before."""
        device, before = self.task.device, 0
        with _beside([tape.stream]), torch.cuda.stream(tape.stream):
            for _ in range(_WARM):  # the first may take more, where a library tries out its kernels
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
                self._step(tape, size)
                tape.back(marks)
        return torch.cuda.max_memory_allocated(device) - before

    def _update(
        self, tape: Tape, state: State, losses: Tensor, slopes: Sequence[Tensor], buffers: Sequence[Tensor]
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
        name = "one captured graph" + (", folded" if folded else "") + (", compiled" if compiled else "")
        super().__init__(task, name=name + (", own kernels" if kernels else ""))
        self._slopes, self._folded, self._kernels = Function(task, gradients, compiled=compiled), folded, kernels

    def _new(self, state: State, stretch: Stretch) -> list[Tape]:
        return [Tape(state.clone(), stretch, torch.cuda.Stream(self.task.device))]

    def _step(self, tape: Tape, size: int) -> None:
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
        name = "a captured graph with a branch for each replica" + (", compiled" if compiled else "")
        super().__init__(task, name=name + (", own kernels" if kernels else ""), most=BRANCHES)
        self._plain, self._kernels = Sequential(task.copy()), kernels
        self._slopes = Function(task, gradients, compiled=compiled) if compiled or kernels else None

    def _new(self, state: State, stretch: Stretch) -> list[Tape]:
        tapes = []
        for index in range(state.count):
            one = state.part(index, index + 1).map(self._laid_out)
            tapes.append(Tape(one, stretch.part(index, index + 1), torch.cuda.Stream(self.task.device)))
        return tapes

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """A copy; kernels of convolutions channels-last, as tensor cores want them in bfloat16."""
        if self._channels_last and tensor.dim() == 5:
            return tensor[0].clone(memory_format=torch.channels_last)[None]
        return tensor.clone()

    @property
    def _channels_last(self) -> bool:
        return self.task.recipe.precision == "bfloat16" and not self._kernels

    def _step(self, tape: Tape, size: int) -> None:
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


def _part(state: State, stretch: Stretch, first: int, last: int) -> tuple[State, Stretch]:
    return state.part(first, last), stretch.part(first, last)


def _even(count: int, *, most: int | None) -> int:
    """Replicas in a chunk: as few chunks as can be, of nearly one size."""
    return count if most is None else -(-count // -(-count // most))


def _refuse_crowding(needed: int, device: torch.device) -> None:
    """Say beforehand that memory will run out: in the middle of a capture it would leave the library in disorder."""
    torch.cuda.empty_cache()  # as the capture itself will
    free, _ = torch.cuda.mem_get_info(device)
    if needed * _ROOM > free:
        raise torch.cuda.OutOfMemoryError(f"a captured step needs about {needed:,} bytes, but {free:,} are free")


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
