"""Which engine trains a group: the fastest in a short probe on this machine, among those that give the right result."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from isthmus.core.errors import SettingError, listed
from isthmus.train.engines import Engine, Sequential, Stretch, Vectorised
from isthmus.train.task import State, Task

ENGINES = ("auto", "sequential", "vectorised", "compiled")

_MARGIN = 1.05  # another engine must beat the plain loop by this, more than the probe's own noise
_WORTH_PROBING = 0.5  # seconds of plain training below which nothing else is tried
_WORTH_COMPILING = 60.0  # seconds; compiling takes 5 to 34 s on a CPU
_PROBE_SECONDS = 0.15


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
    """
    if engine not in ENGINES:
        raise SettingError(f"engine must be one of {listed(ENGINES, 10)}, got {engine}")
    plain = Sequential(task)
    if engine == "sequential":
        return plain, ()
    if task.stochastic:
        return plain, ("the module draws random numbers (dropout), so replicas are trained one after the other",)
    if stretch.last == stretch.first or (engine == "auto" and state.count == 1):
        return plain, ()
    probe = _Probe(state, stretch)
    single = probe.seconds(plain, replicas=1) * state.count
    if engine == "auto" and single * steps < _WORTH_PROBING:
        return plain, ()
    return _fastest(task, probe, single=single, steps=steps, engine=engine)


def _fastest(task: Task, probe: _Probe, *, single: float, steps: int, engine: str) -> tuple[Engine, tuple[str, ...]]:
    best: Engine = Sequential(task)
    least, notes = single / _MARGIN, []
    for name, make in _candidates(task).items():
        if engine not in ("auto", name):
            continue
        if engine == "auto" and name == "compiled" and min(least, single) * steps < _WORTH_COMPILING:
            continue
        candidate = make()
        try:
            probe.check(candidate, best_known=Sequential(task))
            taken = probe.seconds(candidate)
        except Exception as problem:  # whatever vmap, the tracer or a compiler raises: the plain loop still works
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            notes.append(f"the module cannot be trained {candidate.name}: {reason[:200]}")
            continue
        if taken < least or engine == name:
            best, least = candidate, taken
    return best, tuple(notes)


def _candidates(task: Task) -> dict[str, Callable[[], Engine]]:
    return {"vectorised": lambda: Vectorised(task), "compiled": lambda: Vectorised(task, compiled=True)}


class _Probe:
    """Times engines on copies of a group's state."""

    def __init__(self, state: State, stretch: Stretch) -> None:
        self.state, self.stretch = state, stretch

    def seconds(self, engine: Engine, *, replicas: int | None = None) -> float:
        """Seconds for a step of ``replicas`` (all, if not said)."""
        count = replicas or self.state.count
        state, stretch = self.state.part(0, count).clone(), self.stretch
        if count < self.state.count:
            stretch = stretch.part(0, count)
        first = stretch.first
        self._advance(engine, state, stretch, first + 1)  # warm
        taken = self._advance(engine, state, stretch, first + 1)
        length = int(min(stretch.last - first, max(1, _PROBE_SECONDS / 2 // max(taken, 1e-9))))
        return min(self._advance(engine, state, stretch, first + length) / length for _ in range(2))

    def check(self, engine: Engine, *, best_known: Engine) -> None:
        """Refuse an engine whose first step differs from the plain loop's."""
        import dataclasses

        step = dataclasses.replace(self.stretch, last=self.stretch.first + 1)
        right, tried = self.state.part(0, 1).clone(), self.state.clone()
        best_known.advance(right, step.part(0, 1))
        engine.advance(tried, step)
        start, moved, other = (
            torch.cat([t[0].flatten().double() for t in [*s.parameters, *_floating(s.buffers)]])
            for s in (self.state, right, tried)
        )
        error = float((moved - other).norm() / (moved - start).norm().clamp_min(1e-30))
        allowed = {torch.float64: 1e-6, torch.float32: 1e-2}[moved_dtype(right)]
        if right.parameters and self.bfloat16:
            allowed = 0.2
        if not error <= allowed:
            raise RuntimeError(f"its first step differs from the plain loop's by {error:.1e} of the step")

    @property
    def bfloat16(self) -> bool:
        """Whether activations are rounded to eight bits, which differs between kernels."""
        return self.stretch.batches.recipes[0].precision == "bfloat16"

    def _advance(self, engine: Engine, state: State, stretch: Stretch, last: int) -> float:
        import dataclasses

        _synchronise(state)
        begin = time.perf_counter()
        engine.advance(state, dataclasses.replace(stretch, last=last))
        _synchronise(state)
        return time.perf_counter() - begin


def moved_dtype(state: State) -> torch.dtype:
    return state.parameters[0].dtype


def _floating(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _synchronise(state: State) -> None:
    if state.losses.device.type == "cuda":
        torch.cuda.synchronize(state.losses.device)
