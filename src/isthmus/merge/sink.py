"""Writing a checkpoint while it is made; only a complete one gets its final name.

Space is reserved first, tensors are written in any order, a journal says which ones are safe on the disk. A run that
is killed leaves ``.NAME.part`` beside its output; the same merge, started again, goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from isthmus.core.errors import CheckpointError, IsthmusError, SettingError
from isthmus.core.files import unwritable
from isthmus.merge.shards import SIZES

_JOURNAL = "journal.jsonl"
# Data are forced to the disk and noted in the journal whenever this much is new: a kill loses at most this.
_SYNC_EVERY = 128 << 20


class Sink:
    """One checkpoint under construction; a context manager that keeps what is done when it is left by an error.

    Args:
        output: a folder, or a file that ends in ``.safetensors``.
        tensors: name → (safetensors type, shape), in the order in which they are to lie.
        fingerprint: identifies recipe and inputs; work left by another recipe is discarded.
        shard_size: largest shard in bytes; one file where all fits.
    """

    def __init__(
        self,
        output: Path,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        *,
        fingerprint: str,
        shard_size: int,
        metadata: Mapping[str, str],
    ) -> None:
        self.output = output
        self.work = output.parent / f".{output.name}.part"
        single = output.suffix == ".safetensors"
        groups = _shards(tensors, None if single else shard_size)
        names = [f"model-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1)]
        self._headers: list[tuple[str, bytes, int]] = []
        self._place: dict[str, tuple[str, int]] = {}
        for file, group in zip(names if len(groups) > 1 else ["model.safetensors"], groups, strict=True):
            header, offsets, total = _layout({name: tensors[name] for name in group}, metadata)
            self._headers.append((file, header, total))
            self._place.update({name: (file, len(header) + offset) for name, offset in offsets.items()})
        self.bytes = sum(total for _, _, total in self._headers)
        self._fingerprint = hashlib.sha256((fingerprint + repr(self._headers)).encode()).hexdigest()
        self._files: dict[str, int] = {}
        self._journal: IO[str] | None = None
        self._waiting: list[str] = []
        self._unsynced = 0
        self._sizes = {name: _bytes(*described) for name, described in tensors.items()}
        self.done: frozenset[str] = frozenset()

    def __enter__(self) -> Sink:
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.work.mkdir(exist_ok=True)
            self._lock()
            self.done = self._resume()
            for file, header, total in self._headers:
                descriptor = os.open(self.work / file, os.O_RDWR | os.O_CREAT, 0o666)
                self._files[file] = descriptor
                _reserve(descriptor, total)
                os.pwrite(descriptor, header, 0)
        except OSError as problem:
            self._close()
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                shutil.rmtree(self.work, ignore_errors=True)
                raise self._full() from problem
            raise unwritable(self.output, problem) from problem
        except IsthmusError:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            # What was finished before an interruption counts the next time.
            if kind is not None:
                self.sync()
        self._close()
        if kind is not None and issubclass(kind, CheckpointError | SettingError):
            # The inputs are at fault, and to go on with other ones is another merge: nothing here is of use.
            shutil.rmtree(self.work, ignore_errors=True)

    def write(self, name: str, offset: int, data: Any) -> None:
        """Write part of one tensor, ``offset`` bytes from its start. Any thread may call this."""
        file, start = self._place[name]
        view = memoryview(data).cast("B")
        try:
            while len(view):
                written = os.pwrite(self._files[file], view, start + offset)
                view, offset = view[written:], offset + written
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full() from problem
            raise unwritable(self.output, problem) from problem

    def finish(self, name: str) -> None:
        """Say that all of a tensor is written. One thread calls this."""
        self._waiting.append(name)
        self._unsynced += self._sizes[name]
        if self._unsynced >= _SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Force finished tensors to the disk and note them in the journal."""
        for file in sorted({self._place[name][0] for name in self._waiting}):
            getattr(os, "fdatasync", os.fsync)(self._files[file])  # not on every system
        if self._journal is not None and self._waiting:
            self._journal.write(json.dumps(self._waiting) + "\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self._waiting, self._unsynced = [], 0

    def commit(self) -> None:
        """Give the complete checkpoint its name; everything in the working folder but the journal goes along."""
        try:
            self.sync()
            self._write_index()
            for file, _, _ in self._headers:
                os.fsync(self._files[file])
            for extra in self.work.iterdir():
                if extra.name not in self._files:
                    _sync(extra)
            if self.output.suffix == ".safetensors":
                os.replace(self.work / "model.safetensors", self.output)
                (self.work / _JOURNAL).unlink()
                self.work.rmdir()
            else:
                (self.work / _JOURNAL).unlink()
                self.work.rename(self.output)
            _sync(self.output.parent)
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full() from problem
            raise unwritable(self.output, problem) from problem

    def _write_index(self) -> None:
        if len(self._headers) == 1:
            return
        total = sum(self._sizes.values())
        index = {"metadata": {"total_size": total}, "weight_map": {n: file for n, (file, _) in self._place.items()}}
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (self.work / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _lock(self) -> None:
        self._journal = (self.work / _JOURNAL).open("a+", encoding="utf-8")
        try:
            import fcntl
        except ImportError:  # not on Windows: two processes at one output are then not told apart
            return
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise CheckpointError(
                f"{self.output} must be written by one process, but another is at work on it"
            ) from problem

    def _resume(self) -> frozenset[str]:
        """The tensors that an earlier run of the same merge has finished."""
        assert self._journal is not None
        self._journal.seek(0)
        lines = []
        for line in self._journal:
            try:
                lines.append(json.loads(line))
            except ValueError:  # the process was killed while it wrote this line
                break
        whole = all((self.work / file).is_file() for file, _, _ in self._headers)
        if lines and lines[0] == self._fingerprint and whole:
            return frozenset(name for part in lines[1:] for name in part if name in self._place)
        for stale in self.work.iterdir():
            if stale.name != _JOURNAL:
                stale.unlink()
        self._journal.truncate(0)
        self._journal.write(json.dumps(self._fingerprint) + "\n")
        self._journal.flush()
        return frozenset()

    def _full(self) -> IsthmusError:
        free = shutil.disk_usage(self.output.parent).free
        return IsthmusError(
            f"{self.output} needs {self.bytes / 1e9:.2f} GB, but its disk is full ({free / 1e9:.2f} GB free); "
            "free some space or choose another output"
        )

    def _close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _bytes(code: str, shape: tuple[int, ...]) -> int:
    size = SIZES[code]
    for length in shape:
        size *= length
    return size


def _shards(tensors: Mapping[str, tuple[str, tuple[int, ...]]], limit: int | None) -> list[list[str]]:
    """Names of tensors by shard, in order; a tensor larger than the limit has a shard of its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, described in tensors.items():
        size = _bytes(*described)
        if limit is not None and groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _layout(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int], int]:
    """Header, offset of each tensor behind it, and length of one file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    offsets, position = {}, 0
    for name, (code, shape) in tensors.items():
        offsets[name] = position
        last = position + _bytes(code, shape)
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [position, last]}
        position = last
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of eight bytes
    encoded = len(text).to_bytes(8, "little") + text
    return encoded, offsets, len(encoded) + position


def _reserve(descriptor: int, total: int) -> None:
    """Claim the space now, so that a full disk is found before the work and not after it."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, total)
            return
    except OSError as problem:
        if problem.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    stats = os.fstatvfs(descriptor)
    if stats.f_bavail * stats.f_frsize < total - os.fstat(descriptor).st_blocks * 512:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, total)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
