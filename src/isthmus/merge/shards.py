"""Reading safetensors without loading them: headers are parsed, tensors are views of memory-mapped files.

A checkpoint is untrusted input: every offset is checked against the file and the shape before anything is mapped.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import mmap
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.history import content

# Bytes for one entry of each type that safetensors files may hold.
SIZES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1},
    **{"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}
_LONGEST_HEADER = 100_000_000  # the format's own limit
_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one tensor lies.

    Attributes:
        name: the tensor's name.
        code: its type as safetensors writes it.
        shape: its shape.
        file: the file that holds it.
        start: the first byte in the file.
        stop: one past the last byte.
    """

    name: str
    code: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """Length in bytes."""
        return self.stop - self.start

    @property
    def entries(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """A checkpoint on disk.

    Attributes:
        path: what the user named: a file, an index or a folder.
        folder: the folder with the files that belong to the model; None where a single file was named.
        files: the weight files.
        entries: every tensor by name, in the order of the index or the file.

    Example:
        >>> shards = Shards.open("model.safetensors")  # doctest: +SKIP
        >>> raw = shards.raw("lm_head.weight")  # doctest: +SKIP
    """

    path: Path
    folder: Path | None
    files: tuple[Path, ...]
    entries: Mapping[str, Entry]
    _maps: dict[Path, mmap.mmap | None] = dataclasses.field(default_factory=dict, repr=False)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Shards:
        """Read the headers.

        Raises:
            CheckpointError: nothing is there, shards are missing, a file is cut short, or a header is wrong.
        """
        named = Path(path)
        weights = _locate(named)
        folder = named if named.is_dir() else (named.parent if weights.name.endswith(".index.json") else None)
        if not weights.name.endswith(".index.json"):
            return cls(named, folder, (weights,), _header(weights))
        table = _index(weights)
        files = tuple(weights.parent / shard for shard in sorted(set(table.values())))
        found: dict[str, Entry] = {}
        for file in files:
            found.update(_header(file))
        if absent := [name for name in table if name not in found]:
            raise CheckpointError(f"the shards of {weights} must hold every listed tensor; missing: {listed(absent)}")
        return cls(named, folder, files, {name: found[name] for name in table})

    def raw(self, name: str) -> memoryview:
        """The bytes of one tensor, memory-mapped."""
        entry = self.entries[name]
        if entry.bytes == 0:
            return memoryview(b"")
        if (whole := self._map(entry.file)) is not None:
            return memoryview(whole)[entry.start : entry.stop]
        first = entry.start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with entry.file.open("rb") as opened:
            window = mmap.mmap(opened.fileno(), entry.stop - first, access=mmap.ACCESS_READ, offset=first)
        return memoryview(window)[entry.start - first :]

    def content(self) -> str:
        """The identity of the weights; see :mod:`isthmus.core.history`."""
        return content((e.name, e.code, e.shape, lambda name=e.name: self.raw(name)) for e in self.entries.values())

    def forget(self, name: str) -> None:
        """Tell the system that the pages of a tensor are no longer needed by this process."""
        entry = self.entries[name]
        first = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = entry.stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED") and (whole := self._map(entry.file)) is not None:
            whole.madvise(mmap.MADV_DONTNEED, first, length)

    def _map(self, file: Path) -> mmap.mmap | None:
        """The whole file; None where addresses are limited (``ulimit -v``): then each tensor gets a map of its own."""
        with self._lock:
            if file not in self._maps:
                self._maps[file] = None
                with file.open("rb") as opened:
                    try:
                        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
                    except OSError as problem:
                        if problem.errno != errno.ENOMEM:
                            raise
                        return None
                if hasattr(mmap, "MADV_SEQUENTIAL"):
                    mapped.madvise(mmap.MADV_SEQUENTIAL)
                self._maps[file] = mapped
            return self._maps[file]


def _locate(path: Path) -> Path:
    """The index or the single file behind what the user named."""
    if not path.exists():
        raise CheckpointError(f"a checkpoint must be a local file or folder, but there is nothing at {path}")
    if path.is_file():
        if path.suffix == ".safetensors" or path.name.endswith(".index.json"):
            return path
        raise CheckpointError(f"merging files tensor by tensor needs .safetensors, got {path}; save it in that format")
    indices = sorted(path.glob("*.safetensors.index.json"))
    files = sorted(path.glob("*.safetensors"))
    candidates = indices or files
    if len(candidates) == 1:
        _refuse_lone_shard(candidates[0])
        return candidates[0]
    if (path / "model.safetensors") in candidates:
        return path / "model.safetensors"
    if candidates and not indices and any(_shard_count(file) for file in files):
        raise CheckpointError(f"{path} must hold the index of its shards, *.safetensors.index.json, which is missing")
    if candidates:
        names = listed(file.name for file in candidates)
        raise CheckpointError(f"the folder {path} must hold one checkpoint, found {names}; name the file")
    if any(file.suffix in _TORCH_SUFFIXES for file in path.iterdir()):
        raise CheckpointError(f"{path} must hold safetensors, but has only torch files; save it in that format")
    raise CheckpointError(f"the folder {path} must hold a checkpoint in .safetensors, found none")


def _shard_count(file: Path) -> int:
    """How many shards a file's own name speaks of; 0 where it is none."""
    match = re.search(r"-\d+-of-(\d+)\.safetensors$", file.name)
    return int(match.group(1)) if match else 0


def _refuse_lone_shard(file: Path) -> None:
    if _shard_count(file) > 1:
        raise CheckpointError(
            f"{file.parent} must hold all {_shard_count(file)} shards and their index, but has only {file.name}"
        )


def _index(file: Path) -> dict[str, str]:
    """Tensor name → file name, with every file present and in the index's own folder."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(name, str) and isinstance(shard, str) for name, shard in table.items()):
            raise TypeError("names must be text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{file} must be JSON with a weight_map, but: {first_line(problem, 200)}") from problem
    shards = sorted(set(table.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise CheckpointError(f"{file} must name shards in its own folder, got {listed(outside)}")
    if missing := [shard for shard in shards if not (file.parent / shard).is_file()]:
        raise CheckpointError(f"{file} needs {len(shards)} shards; missing: {listed(missing)}")
    return table


def _header(file: Path) -> dict[str, Entry]:
    """The tensors of one file, each checked against its shape and the file's length."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise CheckpointError(f"{file} must be a whole safetensors file, but its header does not fit into it")
            header = json.loads(opened.read(length))
        entries = {
            name: _entry(name, described, file, 8 + length)
            for name, described in header.items()
            if name != "__metadata__"
        }
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{file} must be a whole safetensors file, but: {first_line(problem, 200)}") from problem
    needed = max((entry.stop for entry in entries.values()), default=8 + length)
    if needed > size:
        raise CheckpointError(
            f"{file} must be whole: its header needs {needed:,} bytes, it has {size:,}; fetch it again"
        )
    return dict(sorted(entries.items(), key=lambda item: item[1].start))


def _entry(name: str, described: Mapping[str, Any], file: Path, data: int) -> Entry:
    shape = tuple(int(length) for length in described["shape"])
    first, last = (int(offset) for offset in described["data_offsets"])
    code = str(described["dtype"])
    if code not in SIZES:
        raise CheckpointError(f"{file}: {name} must have a type that is known, got {code}")
    if first < 0 or any(length < 0 for length in shape) or last - first != math.prod(shape) * SIZES[code]:
        raise CheckpointError(f"{file} must be a whole safetensors file, but the place of {name} contradicts its shape")
    return Entry(name, code, shape, file, data + first, data + last)
