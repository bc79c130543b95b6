"""The index of a checkpoint in shards: which file holds which tensor. An index is untrusted input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.folders import checkpoint_at, is_distributed, is_index

Held = TypeVar("Held")


def read_index(file: Path) -> dict[str, Path]:
    """Tensor name → the shard that holds it; every shard is present and lies in the index's own folder.

    Raises:
        CheckpointError: the index cannot be read, names files elsewhere, or shards are missing.
    """
    try:
        table = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(name, str) and isinstance(shard, str) for name, shard in table.items()):
            raise TypeError("names must be text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise CheckpointError(f"{file} must be JSON with a weight_map, but: {first_line(problem, 200)}") from problem
    shards = sorted(set(table.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise CheckpointError(f"{file} must name shards in its own folder, got {listed(outside)}")
    if missing := [shard for shard in shards if not (file.parent / shard).is_file()]:
        raise CheckpointError(f"{file} needs {len(shards)} shards; missing: {listed(missing)}; fetch them too")
    return {name: file.parent / shard for name, shard in table.items()}


def bytes_on_disk(path: Path) -> int:
    """The size of all files of the checkpoint that a path means.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoint_at(path)
    files = set(read_index(found).values()) if is_index(found) else {found}
    files = set(found.glob("*.distcp")) if is_distributed(found) else files
    return sum(file.stat().st_size for file in files)


def joined(
    index: Path,
    table: Mapping[str, Path],
    parts: Iterable[tuple[Path, Mapping[str, Held]]],
    *,
    same: Callable[[Held, Held], bool],
) -> dict[str, Held]:
    """The tensors of all shards, in the order of the index, then those that it does not list.

    Args:
        index: for errors.
        table: as :func:`read_index` gives it.
        parts: each shard with what it holds.
        same: whether two are equal. A tensor that several shards hold must be.

    Raises:
        CheckpointError: a listed tensor is in no shard, or two shards hold different ones under one name.
    """
    found: dict[str, Held] = {}
    places: dict[str, Path] = {}
    for file, held in parts:
        for name, tensor in held.items():
            if name in found and not same(found[name], tensor):
                raise CheckpointError(
                    f"the files of {index} must be one checkpoint, but {listed([name])} differs in {places[name].name} "
                    f"and in {file.name}; fetch both again"
                )
            if name not in found:
                found[name], places[name] = tensor, file
    if absent := [name for name in table if name not in found]:
        raise CheckpointError(f"the shards of {index} must hold every listed tensor; missing: {listed(absent)}")
    return {name: found[name] for name in (*table, *(name for name in found if name not in table))}
