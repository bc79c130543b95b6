"""Results as plain values: what goes into JSON files and what a page shows."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np


def plain(value: Any) -> Any:
    """Turn dataclasses, tensors, arrays and enums into what JSON knows; NaN and infinities become ``None``.

    Large tensors are results too, but weights are not: a mapping whose values are all tensors of more than 100,000
    entries in total is replaced by a note of its size.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (field for field in dataclasses.fields(value) if field.metadata.get("record", True))
        kind = {"kind": type(value).__name__} if isinstance(value, Record) else {}
        return {**kind, **{field.name: plain(getattr(value, field.name)) for field in shown}}
    if isinstance(value, Mapping):
        tensors = [entry for entry in value.values() if _is_torch(entry, "Tensor")]
        if value and len(tensors) == len(value) and sum(t.numel() for t in tensors) > 100_000:
            return f"<{len(tensors)} tensors, {sum(t.numel() for t in tensors)} entries>"
        return {str(key): plain(entry) for key, entry in value.items()}
    if _is_torch(value, "Tensor"):
        return plain(cast("Any", value).detach().cpu().tolist())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, Path) or _is_torch(value, "device", "dtype"):
        return str(value)
    raise TypeError(f"a result must hold plain values, tensors or dataclasses, got {type(value).__name__}")


def _is_torch(value: Any, *kinds: str) -> bool:
    """Whether a value is of one of torch's types, without loading torch: if nobody has loaded it, no value can be."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, tuple(getattr(torch, kind) for kind in kinds))


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """The JSON text of a result."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


class Record:
    """Mixed into every result: ``to_dict()`` gives plain values and ``kind``, the name of the result type.

    Fields with metadata ``record=False`` stay out.
    """

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, ready for JSON."""
        return plain(self)

    def _repr_html_(self) -> str | None:
        """What a notebook shows; ``None`` where nothing that draws is installed."""
        draw = renderer("html")
        return None if draw is None else draw(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The same as a bundle, with the plain text short: the ``repr`` of a result holds all of its numbers."""
        drawn = self._repr_html_()
        return {
            "text/plain": f"<{type(self).__name__}>" if drawn else repr(self),
            **({"text/html": drawn} if drawn else {}),
        }


@functools.cache
def renderer(form: str) -> Callable[[Any], str] | None:
    """Who draws results, by the name under which it is registered among the entry points ``isthmus.renderers``.

    Results know nothing of drawing, so it is looked up when a notebook asks.
    """
    import importlib.metadata

    found = importlib.metadata.entry_points(group="isthmus.renderers", name=form)
    return next((entry.load() for entry in found), None)
