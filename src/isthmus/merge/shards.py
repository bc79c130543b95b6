"""Reading safetensors without loading them: headers are parsed, tensors are views of memory-mapped files.

A checkpoint is untrusted input: every offset is checked against the file and the shape before anything is mapped.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import mmap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.errors import CheckpointError, first_line
from isthmus.core.folders import checkpoint_at, home_of, is_distributed, is_index, is_torch_file
from isthmus.core.history import content, hashed_whole
from isthmus.core.index import joined, read_index
from isthmus.core.signature import mistaken

# Bytes for one entry of each type that safetensors files may hold.
SIZES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1},
    **{"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8},
    **{"F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1},
}
_LONGEST_HEADER = 100_000_000  # the format's own limit


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
    _maps: dict[tuple[Path, bool], mmap.mmap | None] = dataclasses.field(default_factory=dict, repr=False)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Shards:
        """Read the headers.

        Raises:
            CheckpointError: nothing is there, shards are missing, a file is cut short, or a header is wrong.
        """
        named = Path(path)
        weights = checkpoint_at(named)
        table = read_index(weights) if is_index(weights) else {}
        files = tuple(sorted(set(table.values()))) if is_index(weights) else (weights,)
        if other := [file for file in files if file.suffix != ".safetensors"]:
            way = f"isthmus.save(isthmus.load({str(named)!r}), {named.stem + '.safetensors'!r})"
            known = is_torch_file(other[0]) or is_distributed(other[0])
            raise CheckpointError(
                f"merging files tensor by tensor needs .safetensors, got {other[0]}; "
                + (f"save it in that format: {way}" if known else "convert it first")
            )
        held = cls(named, home_of(named), files, {})
        parts = [(file, _header(file)) for file in files]
        entries = joined(weights, table, parts, same=held._same)
        return dataclasses.replace(held, entries=entries)

    def raw(self, name: str, *, partly: bool = False) -> memoryview:
        """The bytes of one tensor, memory-mapped.

        Args:
            name: of the tensor.
            partly: only a few of them will be looked at, and nothing is read ahead of them: where a system reads far
                ahead (8 MiB on some servers), sixteen glances at each tensor would read the whole checkpoint.
        """
        return self._bytes(self.entries[name], partly=partly)

    def _same(self, one: Entry, other: Entry) -> bool:
        return (one.code, one.shape) == (other.code, other.shape) and self._bytes(one) == self._bytes(other)

    def _bytes(self, entry: Entry, *, partly: bool = False) -> memoryview:
        if entry.bytes == 0:
            return memoryview(b"")
        if (whole := self._map(entry.file, partly=partly)) is not None:
            return memoryview(whole)[entry.start : entry.stop]
        first = entry.start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with entry.file.open("rb") as opened:
            window = mmap.mmap(opened.fileno(), entry.stop - first, access=mmap.ACCESS_READ, offset=first)
        return memoryview(window)[entry.start - first :]

    def content(self) -> str:
        """The identity of the weights; see :mod:`isthmus.core.history`."""
        partly = not hashed_whole(sum(entry.bytes for entry in self.entries.values()))
        return content(
            (entry.name, entry.code, entry.shape, lambda entry=entry: self._bytes(entry, partly=partly))
            for entry in self.entries.values()
        )

    def forget(self, name: str) -> None:
        """Tell the system that the pages of a tensor are no longer needed by this process."""
        entry = self.entries[name]
        first = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = entry.stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED") and (whole := self._map(entry.file)) is not None:
            whole.madvise(mmap.MADV_DONTNEED, first, length)

    def _map(self, file: Path, *, partly: bool = False) -> mmap.mmap | None:
        """The whole file; None where addresses are limited (``ulimit -v``): then each tensor gets a map of its own."""
        with self._lock:
            if (file, partly) not in self._maps:
                self._maps[file, partly] = None
                with file.open("rb") as opened:
                    try:
                        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
                    except OSError as problem:
                        if problem.errno != errno.ENOMEM:
                            raise
                        return None
                if hasattr(mmap, "MADV_SEQUENTIAL"):
                    mapped.madvise(mmap.MADV_RANDOM if partly else mmap.MADV_SEQUENTIAL)
                self._maps[file, partly] = mapped
            return self._maps[file, partly]


_NO_ROOM = "its header does not fit into it; fetch it again"


def _header(file: Path) -> dict[str, Entry]:
    """The tensors of one file, each checked against its shape and the file's length."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise CheckpointError(f"{file} must be a whole safetensors file, but {mistaken(file) or _NO_ROOM}")
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
