"""Merging checkpoints larger than memory: tensor by tensor, in chunks, from mapped files, written as they are made."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isthmus.core.errors import CheckpointError, SettingError
from isthmus.core.machine import cores
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record, to_json
from isthmus.merge.carry import carry
from isthmus.merge.configuration import Configuration, layer_of
from isthmus.merge.fitting import check_fit, check_places, running_statistic
from isthmus.merge.floats import PRECISIONS, Precision, finite, narrow, precision_of, tobits
from isthmus.merge.kernels import Operand, Settings, Task, Workspace, all_finite
from isthmus.merge.repeated import repeated
from isthmus.merge.shards import Entry, Shards
from isthmus.merge.sink import Sink

_FLOATING = {precision.code: precision for precision in PRECISIONS}
# Part of the fingerprint of unfinished work: to be raised when the same recipe gives other numbers.
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Streamed(Record):
    """A merge that was written.

    Attributes:
        output: the folder or file.
        configuration: the recipe, as in its file.
        tensors: how many were merged.
        parameters: how many entries they have.
        bytes_read: of all inputs together, each once.
        bytes_written: of the output.
        resumed: how many tensors an earlier, interrupted run had finished.
        carried: files that were carried over from the base or the first model.
        seconds: wall clock.
    """

    output: Path
    configuration: Mapping[str, object]
    tensors: int
    parameters: int
    bytes_read: int
    bytes_written: int
    resumed: int
    carried: tuple[str, ...]
    seconds: float


def merge_files(
    configuration: Configuration,
    output: str | Path,
    *,
    seed: int = 0,
    threads: int | None = None,
    shard_size: int = 5_000_000_000,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Streamed:
    """Merge checkpoints on disk into a new one.

    A run that was killed goes on where it was when the same merge is started again.

    Args:
        configuration: what to merge and how.
        output: a folder that does not exist yet (written as a Hugging Face folder), or a ``.safetensors`` file.
        seed: of random masks; the result does not depend on the number of threads.
        threads: how many tensors are worked on at once; as many as there are processors by default.
        shard_size: largest file of a folder, in bytes.
        metadata: further entries of the header of every file; a run goes on only where they are the same, so they
            should hold no time of day.
        progress: hears of bytes written.

    Raises:
        CheckpointError: the inputs do not fit each other, hold NaN, or are the output.
        SettingError: a parameter is missing or out of range.
        IsthmusError: the disk is full or cannot be written.

    Cost: reads each input once (trimming methods: twice), writes the output once; some 5 MB of buffers a thread.

    Example:
        >>> recipe = Configuration.of({"merge_method": "linear", "parameters": {"weight": 1}, "models": [
        ...     {"model": "a.safetensors"}, {"model": "b.safetensors"}]})
        >>> merge_files(recipe, "merged.safetensors").tensors  # doctest: +SKIP
        290
    """
    begun = time.perf_counter()
    plan = _Plan.of(configuration, Path(output), seed=seed)
    text = json.dumps(plan.described, sort_keys=True)
    own = {"merged_with": "isthmus", "configuration": text} if plan.output.suffix == ".safetensors" else {}
    header = {**(metadata or {}), **own}
    # The header's length decides where tensors lie, so work that was begun under another one is of no use.
    fingerprint = hashlib.sha256(json.dumps([plan.fingerprint(), header], sort_keys=True).encode()).hexdigest()
    carried: list[str] = []
    with Sink(plan.output, plan.tensors, fingerprint=fingerprint, shard_size=shard_size, metadata=header) as sink:
        _merge_all(plan, sink, cores() if threads is None else threads, progress)
        result = plan.result(sink, carried=(), seconds=time.perf_counter() - begun)
        if plan.output.suffix != ".safetensors":
            if plan.keeper.folder is not None:
                carried = carry(plan.keeper.folder, sink.work, precision=plan.one_precision)
            result = dataclasses.replace(result, carried=tuple(carried), seconds=time.perf_counter() - begun)
            (sink.work / "merge.json").write_text(to_json(result) + "\n", encoding="utf-8")
        sink.commit()
    return dataclasses.replace(result, seconds=time.perf_counter() - begun)


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """Inputs that fit each other, and what is to be made of them."""

    configuration: Configuration
    output: Path
    seed: int
    solutions: tuple[Shards, ...]
    base: Shards | None
    keeper: Shards
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    layers: int

    @classmethod
    def of(cls, configuration: Configuration, output: Path, *, seed: int) -> _Plan:
        opened = {path: Shards.open(path) for path in configuration.solutions}
        base = Shards.open(configuration.base_model) if configuration.base_model else None
        solutions = tuple(opened.values())
        inputs = [*solutions, *([base] if base is not None else [])]
        check_places(inputs, output)
        check_fit(inputs if configuration.needs_base else solutions, any_precision=configuration.dtype is not None)
        forced = configuration.out_dtype or configuration.dtype
        tensors = {}
        for name, entry in solutions[0].entries.items():
            code = precision_of(forced).code if forced and entry.code in _FLOATING else entry.code
            tensors[name] = (code, entry.shape)
        layers = 1 + max((layer_of(name) or 0 for name in tensors), default=0)
        keeper = base or solutions[0]
        if configuration.tokenizer_source not in (None, "base"):
            keeper = Shards.open(str(configuration.tokenizer_source))
        plan = cls(configuration, output, seed, solutions, base, keeper, tensors, layers)
        for name, (code, _) in tensors.items():  # parameters that are missing are found before anything is written
            if code in _FLOATING:
                plan.settings(name)
        return plan

    @property
    def described(self) -> dict[str, object]:
        """The recipe as plain values."""
        return {**self.configuration.model_dump(exclude_defaults=True, mode="json"), "seed": self.seed}

    @property
    def one_precision(self) -> Precision | None:
        """The precision of all floating tensors of the output, None where there are several."""
        codes = {code for code, _ in self.tensors.values() if code in _FLOATING}
        return _FLOATING[codes.pop()] if len(codes) == 1 else None

    @functools.cached_property
    def ends(self) -> tuple[Shards, ...]:
        """What is merged: the solutions, and the base where it is one of them, the start of an arc."""
        if self.configuration.merge_method != "slerp" or self.base is None:
            return self.solutions
        return (self.base, *self.solutions)

    def settings(self, name: str) -> Settings:
        """The parameters of one tensor; running statistics are averaged: arithmetic on variances can go below zero."""
        if not (self.configuration.needs_base and running_statistic(name)):
            return self.configuration.settings(name, layers=self.layers, seed=self.seed)
        if self.configuration.merge_method == "slerp":
            t = self.configuration.settings(name, layers=self.layers).t
            return Settings("linear", weights=(1 - t, t))
        return Settings("linear", weights=(1.0,) * len(self.solutions))

    @functools.cached_property
    def same(self) -> dict[str, str]:
        """Names that are an earlier name's tensor, and that name: both get one random mask, or they would part."""
        if not self.configuration.merge_method.startswith("dare"):
            return {}
        base = [self.base] if self.base is not None else []
        return repeated([*self.solutions, *base], _FLOATING)

    def fingerprint(self) -> str:
        """What decides the output's bytes: the recipe and the identity of every input file."""
        digest = hashlib.sha256(json.dumps([_VERSION, self.described], sort_keys=True).encode())
        for shards in (*self.solutions, *([self.base] if self.base is not None else [])):
            for file in shards.files:
                state = file.stat()
                digest.update(f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def result(self, sink: Sink, *, carried: tuple[str, ...], seconds: float) -> Streamed:
        inputs = [*self.solutions, *([self.base] if self.base is not None and self.configuration.needs_base else [])]
        return Streamed(
            output=self.output,
            configuration=self.described,
            tensors=len(self.tensors),
            parameters=sum(entry.entries for entry in self.solutions[0].entries.values()),
            bytes_read=sum(entry.bytes for shards in inputs for entry in shards.entries.values()),
            bytes_written=sink.bytes,
            resumed=len(sink.done),
            carried=carried,
            seconds=seconds,
        )


def _merge_all(plan: _Plan, sink: Sink, threads: int, progress: Progress) -> None:
    """Every tensor that is not done yet: workers merge and write, this thread forces data to the disk."""
    if threads < 1:
        raise SettingError(f"threads must be at least 1, got {threads}")
    entries = plan.solutions[0].entries
    total = float(sum(entry.bytes for entry in entries.values()))
    waiting = [name for name in _in_order(entries, total / (4 * threads)) if name not in sink.done]
    done = total - sum(entries[name].bytes for name in waiting)
    stop, local = threading.Event(), threading.local()

    def work(name: str) -> None:
        if not hasattr(local, "space"):
            local.space = Workspace()
        _merge_one(plan, sink, name, local.space, stop)

    pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="merge")
    try:
        futures = {pool.submit(work, name): name for name in waiting}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            sink.finish(futures[future])
            done += entries[futures[future]].bytes
            progress(done, total, futures[future])
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(entries: Mapping[str, Entry], large: float) -> list[str]:
    """The largest tensors first, so that the workers end together; the rest as they lie: what is read ahead is used."""
    return sorted(entries, key=lambda n: (entries[n].bytes < large, entries[n].file.name, entries[n].start))


class _Stopped(Exception):
    """Another tensor has failed; this one need not be finished."""


def _merge_one(plan: _Plan, sink: Sink, name: str, space: Workspace, stop: threading.Event) -> None:
    """Merge one tensor and write it."""
    entry = plan.solutions[0].entries[name]
    if entry.code not in _FLOATING:
        sink.write(name, 0, _not_floating(plan, name))
        return
    settings = plan.settings(name)
    merged = plan.ends if settings.method == "linear" else plan.solutions
    solutions = [_operand(shards, name) for shards in merged]
    base = _operand(plan.base, name) if plan.base is not None and plan.configuration.needs_base else None
    target = _FLOATING[plan.tensors[name][0]]
    asked = plan.configuration.dtype
    working = precision_of(asked) if asked else solutions[0].precision
    if any(operand.precision.work is np.float64 for operand in solutions):
        working = _FLOATING["F64"] if not asked else working

    def emit(first: int, numbers: np.ndarray) -> None:
        if stop.is_set():
            raise _Stopped
        length = len(numbers)
        bits = space("out", target.bits, length)
        narrow(numbers, target, bits, space("scratch", np.uint32, length))
        if not finite(bits, target, space("finite", target.bits, length)):
            raise _blame(plan, name, first, first + length, space)
        sink.write(name, first * target.size, bits)

    Task(plan.same.get(name, name), solutions, base, settings, working, space).run(emit)
    for shards in (*plan.solutions, *([plan.base] if base is not None and plan.base is not None else [])):
        shards.forget(name)


def _operand(shards: Shards, name: str) -> Operand:
    precision = _FLOATING[shards.entries[name].code]
    return Operand(tobits(shards.raw(name), precision), precision)


def _not_floating(plan: _Plan, name: str) -> bytes:
    """Counters: the largest. Anything else that cannot be mixed must be the same everywhere."""
    found = [bytes(shards.raw(name)) for shards in plan.ends]
    if all(raw == found[0] for raw in found):
        return found[0]
    entry = plan.solutions[0].entries[name]
    if entry.entries == 1 and entry.code[0] in "IU":
        return max(found, key=lambda raw: int.from_bytes(raw, "little", signed=entry.code[0] == "I"))
    raise CheckpointError(
        f"tensors of whole numbers must be equal to be merged, but {name} ({entry.code}) differs; "
        "quantised checkpoints must be expanded to a floating type first"
    )


def _blame(plan: _Plan, name: str, first: int, last: int, space: Workspace) -> CheckpointError:
    """Who brought NaN or infinities into a stretch of a tensor."""
    base = [plan.base] if plan.base is not None and plan.configuration.needs_base else []
    for shards in (*plan.solutions, *base):
        if not all_finite(_operand(shards, name), space, first, last):
            return CheckpointError(f"{shards.path} must be finite to be merged; NaN or Inf in {name}")
    code = plan.tensors[name][0]
    return CheckpointError(
        f"the merged {name} must be finite, but leaves the range of {_FLOATING[code].name}; "
        "use smaller weights or set out_dtype to bfloat16 or float32"
    )
