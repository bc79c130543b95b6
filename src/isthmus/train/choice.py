"""Which engine trains a group: the fastest in a short probe on this machine, among those that give the right result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from isthmus.core.errors import SettingError, first_line, listed
from isthmus.train import kernels
from isthmus.train.engines import Engine, Sequential, Stretch, Vectorised
from isthmus.train.graphs import BRANCHES, Graph, Graphs
from isthmus.train.kernels.language import INSTALLED
from isthmus.train.task import State, Task

CPU_ENGINES = ("channels last", "vectorised", "chunks", "compiled")
CUDA_ENGINES = (
    "graph", "graphs", "compiled graph", "compiled graphs", "folded graph", "kernel graph", "kernel graphs",
)  # fmt: skip
ENGINES = ("auto", "sequential", *CPU_ENGINES, *CUDA_ENGINES)

_MARGIN = 1.05  # another engine must beat the plain loop by this, more than the probe's own noise
_CLOSE = 1.5  # nearer than this, both are timed again, in turns
_WINS = 3  # of at most five rounds
_ANOTHER_LOOK = 30.0  # seconds of training that are left, below which the first look at a loser is believed
_REPAYS = 4.0  # an engine is tried only where all that is left to save is this many times what trying it costs
_WORTH_PROBING = 4.0  # seconds of plain training below which nothing else is tried
_TRACING, _CAPTURING, _COMPILING = 0.6, 1.0, 75.0  # seconds; compiling takes 5 to 60, and may not pay in the end
_COMPILING_STEP = 25.0  # seconds for a whole step on a CPU; measured were 5 to 20 of the processor
_BUILDING = 20.0  # seconds; our own kernels take 2, where they were built before, to 20
_TRIAL = 4  # steps of the whole group that a trial takes: the first one, its check, and the timing
_PROBE_SECONDS = 0.15
_CHUNK = 16  # replicas in a chunk: beyond that, vectorising was not measured to gain more on a CPU


def choose(task: Task, state: State, stretch: Stretch, *, steps: int, engine: str) -> tuple[Engine, tuple[str, ...]]:
    """Pick an engine for ``steps`` steps of a group.

    Args:
        task: what the group shares.
        state: the group's weights; not changed.
        stretch: some steps to probe with.
        steps: how many steps lie ahead.
        engine: ``auto``, or the one to use if it works for this module.

    Returns:
        The engine and what a user should know about the choice, such as why a module could not be vectorised.

    Raises:
        SettingError: the engine's name is unknown, or needs a CUDA device.
    """
    _check(engine, task)
    plain = Sequential(task)
    if engine == "sequential" or stretch.last == stretch.first:
        return plain, ()
    if task.stochastic:
        return plain, ("the module draws random numbers (dropout), so replicas are trained one after the other",)
    if engine == "auto" and not _candidates(task, state.count, stretch):
        return plain, ()
    probe = _Probe(task, state, stretch)
    if engine != "auto":
        return _wanted(task, probe, engine)
    single = probe.seconds(plain, replicas=1) * state.count
    if single * steps < _WORTH_PROBING:
        return plain, ()
    return _fastest(task, probe, single=single, steps=steps)


def _check(engine: str, task: Task) -> None:
    if engine not in ENGINES:
        raise SettingError(f"engine must be one of {listed(ENGINES, len(ENGINES))}, got {engine}")
    if engine in CUDA_ENGINES and task.device.type != "cuda":
        raise SettingError(f"engine {engine} needs a CUDA device, got {task.device.type}; use auto")
    if "kernel" in engine and not _kernels(task):
        precision = task.recipe.precision
        raise SettingError(
            f"engine {engine} needs Triton, an NVIDIA GPU of compute capability 8.0 and a precision below float64, "
            f"got {precision}, Triton {'is' if INSTALLED else 'not'} installed; use auto"
        )


def _kernels(task: Task) -> bool:
    """Whether our own kernels take a group's convolutions and normalisation."""
    return kernels.available(task.device) and task.recipe.precision != "float64"


def _wanted(task: Task, probe: _Probe, engine: str) -> tuple[Engine, tuple[str, ...]]:
    """The engine that was asked for, or the plain loop and the reason why not."""
    candidate = _ALL[engine](task)
    try:
        probe.check(candidate)
    except Exception as problem:  # whatever vmap, the tracer or a compiler raises: the plain loop still works
        return Sequential(task), (_note(candidate, problem),)
    return candidate, ()


def _fastest(task: Task, probe: _Probe, *, single: float, steps: int) -> tuple[Engine, tuple[str, ...]]:
    best: Engine = Sequential(task)
    fastest, notes, right = single / _MARGIN, [], set()
    for name in _candidates(task, probe.state.count, probe.stretch):
        if fastest * steps < _REPAYS * (_setting_up(name, probe.state.count) + _TRIAL * fastest):
            continue
        if name == "folded graph" and "kernel graph" in right:
            continue  # the same with slower kernels
        candidate = _ALL[name](task)
        try:
            probe.check(candidate)
            right.add(name)
            taken = probe.seconds(candidate)
            won = taken < fastest
            worth = won or fastest * steps > _ANOTHER_LOOK
            if worth and fastest / _CLOSE < taken < fastest * _CLOSE:
                won, taken, fastest = probe.in_turns(candidate, best)
        except Exception as problem:  # as above
            notes.append(_note(candidate, problem))
            continue
        if won:
            best, fastest = candidate, taken
    return best, tuple(notes)


def _setting_up(name: str, count: int) -> float:
    """Seconds that an engine takes before its first step, roughly: so that a probe never costs what it cannot save."""
    if name == "channels last":
        return 0.0
    if name == "compiled":
        return _TRACING + _COMPILING_STEP
    graphs = min(count, BRANCHES) if name.endswith("graphs") else int(name.endswith("graph"))
    building = _BUILDING if "kernel" in name else _COMPILING if "compiled" in name or "folded" in name else 0.0
    return _TRACING + _CAPTURING * graphs + building


def _candidates(task: Task, count: int, stretch: Stretch) -> list[str]:
    """Engines worth a probe, the cheapest to set up first."""
    if task.device.type != "cuda":
        images = ["channels last"] if task.convolutional and stretch.batches.inputs.dim() == 4 else []
        if count == 1:
            return [*images, "compiled"]
        return [*images, *(name for name in CPU_ENGINES[1:] if name != "chunks" or count > _CHUNK)]
    if task.convolutional:  # under vmap alone they become grouped ones without fast kernels
        measured = _kernels(task) and task.recipe.precision == "bfloat16"  # others only where they are asked for
        own = ["kernel graph", "kernel graphs"] if measured else []
        return ["graphs", *own, "folded graph", "compiled graphs"]
    chunks = ["chunks"] if count > _CHUNK else []  # where all at once do not fit into memory
    return ["vectorised", *chunks, "graph", "graphs", "compiled graph", "compiled graphs"]


_ALL: Mapping[str, Callable[[Task], Engine]] = {
    "channels last": lambda task: Sequential(task, channels_last=True),
    "vectorised": Vectorised,
    "chunks": lambda task: Vectorised(task, chunk=_CHUNK),
    "compiled": lambda task: Vectorised(task, compiled=True),
    "graph": Graph,
    "graphs": Graphs,
    "compiled graph": lambda task: Graph(task, compiled=True),
    "compiled graphs": lambda task: Graphs(task, compiled=True),
    "folded graph": lambda task: Graph(task, compiled=True, folded=True),
    "kernel graph": lambda task: Graph(task, kernels=True),
    "kernel graphs": lambda task: Graphs(task, kernels=True),
}


def _note(engine: Engine, problem: Exception) -> str:
    return f"the module cannot be trained {engine.name}: {first_line(problem, 200)}"


class _Probe:
    """Times engines on copies of a group's state."""

    def __init__(self, task: Task, state: State, stretch: Stretch) -> None:
        self.task, self.state, self.stretch = task, state, stretch

    def seconds(self, engine: Engine, *, replicas: int | None = None) -> float:
        """Seconds for a step of ``replicas`` (all, if not said). A long step is timed once."""
        count = replicas or self.state.count
        state, stretch = self.state.part(0, count).clone(), self.stretch
        if count < self.state.count:
            stretch = stretch.part(0, count)
        first = stretch.first
        self._advance(engine, state, stretch.to(first + 1))  # warm
        taken = self._advance(engine, state, stretch.to(first + 1))
        if taken > _PROBE_SECONDS:
            return taken
        length = int(min(stretch.last - first, max(1, _PROBE_SECONDS / 2 // max(taken, 1e-9))))
        return min(self._advance(engine, state, stretch.to(first + length)) / length for _ in range(2))

    def in_turns(self, candidate: Engine, best: Engine) -> tuple[bool, float, float]:
        """Whether a candidate wins the best of five rounds, and the seconds of both.

        Other work on the machine makes either look faster for a moment; so did a single look at an engine that is 1.7
        times as fast. The plain loop has the margin that it always has.
        """
        plain = best.name == "sequential"
        ours, theirs, wins = [], [], 0
        while max(wins, len(ours) - wins) < _WINS:
            other = self.seconds(best, replicas=1) * self.state.count / _MARGIN if plain else self.seconds(best)
            theirs.append(other)
            ours.append(self.seconds(candidate))
            wins += ours[-1] < theirs[-1]
        return wins == _WINS, min(ours), min(theirs)

    def check(self, engine: Engine) -> None:
        """Refuse an engine whose first step differs from the plain loop's, for the first and the last replica."""
        step, last = self.stretch.to(self.stretch.first + 1), self.state.count - 1
        tried = self.state.clone()
        engine.advance(tried, step)
        for index in {0, last}:
            start = self.state.part(index, index + 1)
            right = start.clone()
            Sequential(self.task).advance(right, step.part(index, index + 1))
            before, wanted, got = (_vector(state) for state in (start, right, tried.part(index, index + 1)))
            error = float((wanted - got).norm() / (wanted - before).norm().clamp_min(1e-30))
            if not error <= self._allowed and bool(torch.isfinite(wanted).all()):
                raise RuntimeError(f"its first step differs from the plain loop's by {error:.1e} of the step")

    @property
    def _allowed(self) -> float:
        """Rounding, with room; bfloat16 keeps eight bits of every activation, so kernels differ visibly."""
        return {"float64": 1e-6, "float32": 1e-2, "tensorfloat32": 0.1, "bfloat16": 0.3}[self.task.recipe.precision]

    def _advance(self, engine: Engine, state: State, stretch: Stretch) -> float:
        _synchronise(state)
        # One thread's own time, which other work on the machine does not disturb, where all work is in one thread.
        alone = state.losses.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.thread_time if alone else time.perf_counter
        begin = clock()
        engine.advance(state, stretch)
        _synchronise(state)
        return clock() - begin


def _vector(state: State) -> torch.Tensor:
    """Everything that a step moves, as one vector."""
    tensors = [*state.parameters, *(buffer for buffer in state.buffers if buffer.is_floating_point())]
    return torch.cat([tensor.flatten().double() for tensor in tensors])


def _synchronise(state: State) -> None:
    if state.losses.device.type == "cuda":
        torch.cuda.synchronize(state.losses.device)
