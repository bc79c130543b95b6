"""Measured values as lines of a file that only grows: a torn end is ignored when reading, repaired when writing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError
from isthmus.core.files import unwritable
from isthmus.core.record import to_json
from isthmus.studies.store.locks import lock


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured value of one network, or of a pair under its first network; a line of a file holds its fields.

    Attributes:
        measure: what was measured, such as ``barrier``.
        version: of the measure's definition; a new definition gets a new version, and old rows stay readable.
        settings: everything that the value depends on besides the network, such as ``{"other": key, "points": 25}``.
        value: a number, a list or a mapping of plain values; ``None`` where the value is not finite.
        unit: what the number counts, such as ``nats`` or ``share``.
    """

    measure: str
    version: int
    settings: Mapping[str, Any]
    value: Any
    unit: str

    @property
    def identity(self) -> str:
        """Hash of measure, version and settings: rows of one identity answer the same question."""
        return identity(self.measure, self.version, self.settings)


def identity(measure: str, version: int, settings: Mapping[str, Any]) -> str:
    """The identity that a row of this measure, version and settings has."""
    text = json.dumps([measure, version, json.loads(to_json(settings))], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a file, in the order of writing; of equal identity the last one counts. A torn end is ignored.

    Raises:
        IsthmusError: a line other than the last is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    rows: dict[str, Row] = {}
    lines = content.split(b"\n")
    # What follows the last line break was cut off while it was written: it never counted.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            row = Row(entry["measure"], entry["version"], entry["settings"], entry["value"], entry["unit"])
        except (ValueError, KeyError, TypeError) as problem:
            raise IsthmusError(
                f"every line of {path} must be a measured value, but line {number} is damaged; "
                "remove that line and run the study again, which measures what is missing"
            ) from problem
        rows[row.identity] = row
    return list(rows.values())


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows durably, all or none of each line; safe with other writers on any machine that honours file locks.

    Raises:
        IsthmusError: the file cannot be written or the disk is full; what was half-written is taken back.
    """
    text = "".join(json.dumps(json.loads(to_json(row, indent=None)), ensure_ascii=False) + "\n" for row in rows)
    if not text:
        return
    try:
        _append(path, text.encode())
    except OSError as problem:
        raise unwritable(path, problem) from problem


def _append(path: Path, content: bytes) -> None:
    """Write after the last whole line; on failure cut the file back to it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        lock(descriptor, path, wait=True)
        end = _whole_end(descriptor)
        os.ftruncate(descriptor, end)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(descriptor, content[written:], end + written)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _whole_end(descriptor: int) -> int:
    """The position behind the last line break."""
    end = os.fstat(descriptor).st_size
    block = 4096
    while end > 0:
        start = max(0, end - block)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
