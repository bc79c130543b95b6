"""Where a checkpoint comes from: written into its header and beside it, and read back with suspicion.

Every checkpoint of a line of updates names its parents by their content, not by their place: files may be moved and
renamed. The identity of weights is a SHA-256 over names, types, shapes and bytes, whatever file they stand in. Above
256 MiB only stretches of every tensor are read (any training step changes all of them); such identities begin with
``sampled``.

A record in the header of a ``.safetensors`` file travels with it; the same record beside the file
(``NAME.history.json``, or ``history.json`` in a folder) also serves other formats and says what was measured after the
file was written. Both are claims of whoever wrote the file: readers get plain, short, printable values, never code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.record import Record, to_json

if TYPE_CHECKING:
    from isthmus.core.weights import Weights

KEY = "isthmus.history"
CONTENT = re.compile(r"(?:sha256|sampled):[0-9a-f]{64}")
_WHOLE = 256 << 20  # bytes that are hashed in a fraction of a second
_STRETCHES, _STRETCH = 16, 4096  # of each larger checkpoint's tensors
# What a reader takes from a record: enough for any real one, too little to drown a page in.
_LONGEST, _MOST, _TEXT, _PARENTS = 1 << 20, 60, 200, 64

# A tensor's name, its type as safetensors writes it, its shape, and a way to its bytes.
Raw = tuple[str, str, tuple[int, ...], Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Parent(Record):
    """What a checkpoint was made from.

    Attributes:
        content: identity of its weights.
        name: of its file when it was read.
        role: ``model``, ``base`` or ``fixed``.
    """

    content: str
    name: str
    role: str = "model"


@dataclasses.dataclass(frozen=True)
class Lineage(Record):
    """How a checkpoint came to be.

    Attributes:
        made_by: the command, such as ``isthmus merge``.
        parents: what it was made from, in order; none where it was trained from its own initialisation.
        recipe: everything that was chosen.
        data: fingerprint of the data that it was made with.
        capabilities: accuracy by name.
        measures: further numbers by name.
        created: when, ISO 8601 in UTC.
        versions: of the packages.
        content: identity of the weights; filled in when they are written.
    """

    made_by: str
    parents: tuple[Parent, ...] = ()
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str | None = None
    capabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    created: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: str = ""

    def header(self) -> dict[str, str]:
        """The record as an entry of a safetensors header."""
        return {KEY: to_json(self, indent=None)}


def stamped(lineage: Lineage) -> Lineage:
    """The record with this moment and the versions of this process; torch is not loaded for it."""
    versions = {"python": platform.python_version()}
    for package in ("isthmus", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return dataclasses.replace(lineage, created=moment, versions=versions)


def save_with_lineage(
    weights: Weights, path: str | Path, lineage: Lineage, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a checkpoint that knows where it comes from: in its header, where the format has one, and beside it.

    Raises:
        CheckpointError: as :func:`isthmus.core.checkpoint.save`.

    Cost: beside the writing, one hash of the weights (see :func:`content_of`).
    """
    from isthmus.core.checkpoint import save

    whole = dataclasses.replace(stamped(lineage), content=content_of(weights))
    file = save(weights, path, metadata={**(metadata or {}), **whole.header()})
    write_beside(file, whole)
    return file


def write_beside(checkpoint: str | Path, lineage: Lineage) -> Path:
    """Write the record beside a checkpoint, or into it if it is a folder."""
    from isthmus.core.files import write_text

    target = beside(checkpoint)
    write_text(target, to_json(lineage) + "\n")
    return target


def beside(checkpoint: str | Path) -> Path:
    """Where the record of a checkpoint stands."""
    path = Path(checkpoint)
    return path / "history.json" if path.is_dir() else path.with_name(f"{path.name}.history.json")


def content_of(weights: Weights) -> str:
    """The identity of weights in memory; equal weights in any file have the same."""
    from isthmus.core.checkpoint import raw_of

    return content(raw_of(weights))


def content(tensors: Iterable[Raw]) -> str:
    """The identity of tensors, in whatever order they come.

    Example:
        >>> one = content([("a", "U8", (2,), lambda: b"xy"), ("b", "U8", (), lambda: b"z")])
        >>> one == content([("b", "U8", (), lambda: b"z"), ("a", "U8", (2,), lambda: b"xy")])
        True
    """
    rows = sorted(tensors, key=lambda row: row[0])
    lengths = [_SIZES.get(code, 1) * math.prod(shape) for _, code, shape, _ in rows]
    whole = hashed_whole(sum(lengths))
    digest = hashlib.sha256()
    for (name, code, shape, read), length in zip(rows, lengths, strict=True):
        digest.update(json.dumps([name, code, list(shape)]).encode())
        raw = memoryview(read()).cast("B") if length else memoryview(b"")
        if whole or length <= _STRETCHES * _STRETCH:
            digest.update(raw)
            continue
        for place in range(_STRETCHES):
            first = place * (length - _STRETCH) // (_STRETCHES - 1)
            digest.update(raw[first : first + _STRETCH])
    return f"{'sha256' if whole else 'sampled'}:{digest.hexdigest()}"


def hashed_whole(length: int) -> bool:
    """Whether an identity is of every byte of a checkpoint of this many, and not of stretches."""
    return length <= _WHOLE


_SIZES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "C64": 8},
    **{"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}


def read_lineage(text: str) -> Lineage | None:
    """A record out of a file that anybody may have written; ``None`` where it is none.

    Texts are cut and lose what is not printable, numbers are finite, lists are short, and identities have their form.
    """
    if len(text) > _LONGEST:
        return None
    try:
        return _lineage(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _lineage(found: Any) -> Lineage | None:
    if not isinstance(found, Mapping) or not isinstance(found.get("made_by"), str):
        return None
    given = found.get("parents")
    parents = [_parent(entry) for entry in (given if isinstance(given, list) else [])[:_PARENTS]]
    return Lineage(
        made_by=printable(found["made_by"]),
        parents=tuple(parent for parent in parents if parent is not None),
        recipe=_flat(found.get("recipe")),
        data=printable(found["data"]) if isinstance(found.get("data"), str) else None,
        capabilities=_numbers(found.get("capabilities")),
        measures=_numbers(found.get("measures")),
        created=printable(found.get("created", ""), 40),
        versions={key: str(value) for key, value in _flat(found.get("versions")).items()},
        content=_identity(found.get("content")) or "",
    )


def printable(value: Any, most: int = _TEXT) -> str:
    """A text on one line without control characters, cut where it is too long."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(value)[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def _parent(entry: Any) -> Parent | None:
    content_id = _identity(entry.get("content")) if isinstance(entry, Mapping) else None
    if content_id is None:
        return None
    return Parent(content_id, printable(entry.get("name", "")), printable(entry.get("role", "model"), 20))


def _identity(value: Any) -> str | None:
    return value if isinstance(value, str) and CONTENT.fullmatch(value) else None


def _numbers(given: Any) -> dict[str, float]:
    pairs = list(given.items())[:_MOST] if isinstance(given, Mapping) else []
    return {
        printable(name): float(value)
        for name, value in pairs
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    }


def _flat(given: Any) -> dict[str, Any]:
    """Nested settings as dotted names with plain, short values."""
    rows: dict[str, Any] = {}
    waiting = [("", given)] if isinstance(given, Mapping) else []
    for _ in range(10 * _MOST):
        if not waiting or len(rows) >= _MOST:
            break
        prefix, value = waiting.pop(0)
        if isinstance(value, Mapping):
            inside = list(value.items())[:_MOST]
            waiting = [(printable(f"{prefix}.{name}".lstrip(".")), entry) for name, entry in inside] + waiting
        elif value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < 1e300):
            rows[printable(prefix)] = value
        else:
            rows[printable(prefix)] = printable(value if isinstance(value, str) else json.dumps(value)[: 2 * _TEXT])
    return rows
