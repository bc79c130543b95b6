"""Symmetries and permutations as readable JSON that applies to bare checkpoints, without the model's code.

Positions are written as in Python: ``5`` or ``"0:64"`` or ``"0:64:2"`` (start, stop, step; the stop is left out). The
positions of a site, one row for each unit, are either ``{"units": n, "first": …, "step": s}``, where every unit lies
``s`` further than the one before it, or ``{"rows": [[…], …]}``. Units that are modules beside each other have
``siblings``: lists of tensors, one for each unit. A file with siblings is of version 2, all others of version 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import SymmetryError, first_line
from isthmus.core.files import write_text
from isthmus.core.symmetry import Obstacle, Parent, Permutation, Proof, Role, Siblings, Site, Symmetry, UnitGroup

_FORMAT, _VERSION = "isthmus symmetry", 1
_VERSION_OF_SIBLINGS = 2  # a reader that does not know siblings would leave them behind, so it must refuse the file
_LARGEST_AXIS = 1 << 32  # entries; a longer axis in a file is a damaged file, and must not fill the memory


def save_symmetry(symmetry: Symmetry, path: str | Path) -> None:
    """Write a symmetry as JSON, atomically.

    Raises:
        IsthmusError: the place cannot be written.
    """
    write_text(Path(path), to_json(symmetry))


def load_symmetry(path: str | Path) -> Symmetry:
    """Read a symmetry that :func:`save_symmetry` wrote.

    Raises:
        SymmetryError: the file is missing, is not JSON, or is not a symmetry; the line says what is wrong.
    """
    return from_json(_text(path), source=str(path))


def save_permutation(permutation: Permutation, path: str | Path) -> None:
    """Write a permutation as JSON: group → positions; groups that stay are left out."""
    moved = {
        name: _encoded(index)
        for name, index in permutation.indices.items()
        if not torch.equal(index, torch.arange(len(index)))
    }
    document = {"format": "isthmus permutation", "version": _VERSION, "convention": "gather", "indices": moved}
    write_text(Path(path), _dumped(document))


def load_permutation(path: str | Path, symmetry: Symmetry) -> Permutation:
    """Read a permutation of a symmetry.

    Raises:
        SymmetryError: the file is missing or damaged, or names other groups or sizes than the symmetry.
    """
    document = _document(_text(path), str(path), "isthmus permutation")
    indices = document.get("indices")
    if not isinstance(indices, Mapping):
        raise SymmetryError(f"{path} must name an index for each group that moves, got none")
    with _reading(path):
        decoded = {str(name): _decoded(items) for name, items in indices.items()}
    return Permutation(symmetry, decoded)


def to_json(symmetry: Symmetry) -> str:
    """The text of a symmetry's file."""
    document: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION_OF_SIBLINGS if any(group.siblings for group in symmetry.groups) else _VERSION,
        "log10_size": round(symmetry.log10_size, 6),
        "proof": symmetry.proof.to_dict() if symmetry.proof is not None else None,
        "obstacles": [obstacle.to_dict() for obstacle in symmetry.obstacles],
        "groups": [_group_out(group) for group in symmetry.groups],
        "tensors": {name: list(shape) for name, shape in symmetry.tensors.items()},
    }
    return _dumped(document)


def from_json(text: str, *, source: str = "the symmetry") -> Symmetry:
    """The symmetry that a text holds.

    Raises:
        SymmetryError: the text is not a symmetry.
    """
    document = _document(text, source, _FORMAT)
    with _reading(source):
        tensors = {str(name): tuple(int(size) for size in shape) for name, shape in document["tensors"].items()}
        groups = tuple(_group_in(group) for group in document["groups"])
        obstacles = tuple(
            Obstacle(o["operation"], o["reason"], tuple(o.get("tensors", ())), o.get("where", ""))
            for o in document.get("obstacles", ())
        )
        proof = document.get("proof")
        proved = None
        if proof is not None:
            names = ("error", "tolerance", "draws", "dtype", "note")
            proved = Proof(**{name: proof[name] for name in names if name in proof})
    return Symmetry(groups, tensors, obstacles, proved)


class _reading:
    """Turns whatever a damaged document raises into one line."""

    def __init__(self, source: str | Path) -> None:
        self.source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, problem: BaseException | None, _trace: object) -> None:
        if isinstance(problem, SymmetryError):
            return
        if isinstance(problem, KeyError):
            raise SymmetryError(f"{self.source} must be a complete symmetry, but it lacks {problem}") from problem
        if isinstance(problem, (TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError)):
            reason = first_line(problem)
            raise SymmetryError(f"{self.source} must be a complete symmetry, but it is damaged: {reason}") from problem


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise SymmetryError(f"{path} must be a readable file, but: {reason}") from problem
    except UnicodeDecodeError as problem:
        raise SymmetryError(f"{path} must be a JSON text file, but it holds other bytes") from problem


def _document(text: str, source: str, kind: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as problem:
        line = getattr(problem, "lineno", "?")
        raise SymmetryError(f"{source} must be JSON, but it breaks off or is malformed at line {line}") from problem
    if not isinstance(document, dict) or document.get("format") != kind:
        raise SymmetryError(f"{source} must be a file of the kind {kind!r}; write one with isthmus symmetry --save")
    known = (_VERSION, _VERSION_OF_SIBLINGS) if kind == _FORMAT else (_VERSION,)
    if (version := document.get("version")) not in known:
        allowed = " or ".join(str(number) for number in known)
        raise SymmetryError(f"{source} must be of version {allowed}, got {version!r}; update isthmus or save it anew")
    return document


def _group_out(group: UnitGroup) -> dict[str, Any]:
    result: dict[str, Any] = {"name": group.name, "size": group.size, "kind": group.kind}
    if group.parent is not None:
        result["parent"] = {"group": group.parent.group, "unit": group.parent.unit, "slot": group.parent.slot}
    result["sites"] = [_site_out(site) for site in group.sites]
    if group.siblings:
        result["siblings"] = [{"tensors": list(row.tensors), "role": row.role} for row in group.siblings]
    return result


def _group_in(group: Mapping[str, Any]) -> UnitGroup:
    parent = group.get("parent")
    above = None if parent is None else Parent(str(parent["group"]), int(parent["unit"]), int(parent["slot"]))
    kind = group.get("kind", "permutation")
    if kind not in ("permutation", "scale", "sign"):
        raise ValueError(f"a group's kind must be permutation, scale or sign, got {kind!r}")
    sites = tuple(_site_in(site) for site in group["sites"])
    siblings = tuple(
        Siblings(tuple(str(name) for name in row["tensors"]), _role_in(row)) for row in group.get("siblings", ())
    )
    return UnitGroup(str(group["name"]), int(group["size"]), sites, kind, above, siblings)


def _role_in(entry: Mapping[str, Any]) -> Role:
    role = entry.get("role", "match")
    if role not in ("match", "carry"):
        raise ValueError(f"a site's role must be match or carry, got {role!r}")
    return role


def _site_out(site: Site) -> dict[str, Any]:
    result: dict[str, Any] = {"tensor": site.tensor, "dim": site.dim, "role": site.role, **_table_out(site.index)}
    if site.within:
        result["within"] = [{"dim": axis, "positions": _encoded(positions)} for axis, positions in site.within]
    if site.power != 1.0:
        result["power"] = site.power
    return result


def _site_in(site: Mapping[str, Any]) -> Site:
    within = tuple((int(part["dim"]), _decoded(part["positions"])) for part in site.get("within", ()))
    power = float(site.get("power", 1.0))
    return Site(str(site["tensor"]), int(site["dim"]), _table_in(site), _role_in(site), within, power)


def _table_out(index: Tensor) -> dict[str, Any]:
    if len(index) > 1 and index.numel():
        step = int(index[1, 0] - index[0, 0])
        if torch.equal(index, index[:1] + step * torch.arange(len(index))[:, None]):
            return {"units": len(index), "first": _encoded(index[0]), "step": step}
    return {"rows": [_encoded(row) for row in index]}


def _table_in(site: Mapping[str, Any]) -> Tensor:
    if "rows" in site:
        rows = [_decoded(row) for row in site["rows"]]
        return torch.stack(rows) if rows else torch.zeros(0, 0, dtype=torch.int64)
    units = int(site["units"])
    if not 0 <= units <= _LARGEST_AXIS:
        raise ValueError(f"a number of units must be sensible, got {units}")
    return _decoded(site["first"])[None, :] + int(site["step"]) * torch.arange(units)[:, None]


def _encoded(positions: Tensor) -> list[int | str]:
    """Positions with runs of equal steps written as slices; runs shorter than three stay numbers."""
    values = positions.tolist()
    result: list[int | str] = []
    start = 0
    while start < len(values):
        end = start + 1
        if end < len(values):
            step = values[end] - values[start]
            while end + 1 < len(values) and values[end + 1] - values[end] == step:
                end += 1
            if end - start >= 2 and step > 0:
                stop = values[end] + 1
                result.append(f"{values[start]}:{stop}" if step == 1 else f"{values[start]}:{stop}:{step}")
                start = end + 1
                continue
        result.append(values[start])
        start += 1
    return result


def _decoded(items: Sequence[int | str]) -> Tensor:
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise TypeError(f"positions must be a list of numbers and slices, got {items!r}")
    parts = []
    for item in items:
        if isinstance(item, str):
            numbers = [int(number) for number in item.split(":")]
            if len(numbers) not in (2, 3) or min(numbers) < 0 or max(numbers) > _LARGEST_AXIS:
                raise ValueError(f"a slice must look like 0:64 or 0:64:2, got {item!r}")
            parts.append(torch.arange(*numbers))
        else:
            parts.append(torch.tensor([item], dtype=torch.int64))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def _dumped(document: Mapping[str, Any]) -> str:
    """JSON with one line for each group's site and each tensor: readable, and differences show line by line."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return _compacted(text) + "\n"


def _compacted(text: str) -> str:
    """Innermost lists and objects on one line each."""
    import re

    pattern = re.compile(r"[\[{]\n\s*([^\[\]{}]*?)\n\s*[\]}]")
    for _ in range(2):
        text = pattern.sub(lambda m: m.group(0)[0] + re.sub(r"\n\s*", " ", m.group(1)) + m.group(0)[-1], text)
    return text
