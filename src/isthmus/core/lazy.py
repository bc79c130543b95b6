"""A safetensors checkpoint as a mapping that reads each tensor when it is asked for, and keeps none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError


class LazyCheckpoint(Mapping[str, Tensor]):
    """Weights on disk: a ``.safetensors`` file, an index of shards, or a folder that holds either.

    Every access reads the tensor anew, in the precision it is stored in, so that memory holds only what is being used.

    Args:
        path: the file, the index (``*.safetensors.index.json``) or the folder.
        device: where the tensors go.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """

    def __init__(self, path: str | Path, *, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._files: dict[Path, Any] = {}
        self._places: dict[str, Path] = {}
        for file in _files_of(Path(path)):
            handle = _opened(file, self._device)
            self._files[file] = handle
            self._places |= dict.fromkeys(handle.keys(), file)

    def __getitem__(self, name: str) -> Tensor:
        return self._files[self._places[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places


def _files_of(path: Path) -> list[Path]:
    """The safetensors files that a path means."""
    if path.is_dir():
        indices = sorted(path.glob("*.safetensors.index.json"))
        return _files_of(indices[0]) if indices else _found(sorted(path.glob("*.safetensors")), path)
    if path.name.endswith(".index.json") and path.is_file():
        try:
            shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise CheckpointError(f"{path} must be JSON with a weight_map, but it is not") from problem
        if outside := [shard for shard in shards if (path.parent / shard).parent.resolve() != path.parent.resolve()]:
            raise CheckpointError(f"{path} must name shards in its own folder, got {outside[0]}")
        return _found([path.parent / shard for shard in sorted(shards)], path)
    return _found([path], path)


def _found(files: list[Path], path: Path) -> list[Path]:
    if not files or any(file.suffix != ".safetensors" or not file.is_file() for file in files):
        missing = next((file for file in files if not file.is_file()), path)
        raise CheckpointError(f"tensors can be read one by one only from safetensors files, and {missing} is none")
    return files


def _opened(file: Path, device: torch.device) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device=str(device)).__enter__()  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as problem:
        reason = (str(problem) or type(problem).__name__).splitlines()[0]
        raise CheckpointError(f"{file} must be a whole safetensors file, but: {reason}") from problem
