"""A safetensors checkpoint as a mapping that reads each tensor when it is asked for, and keeps none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.names import without_prefixes


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
            if twice := [name for name in handle.keys() if name in self._places]:  # noqa: SIM118
                raise CheckpointError(
                    f"the files of {path} must be one checkpoint, but {listed(twice, 2)} is in {file.name} and in "
                    f"{self._places[twice[0]].name}; name the file"
                )
            self._places |= dict.fromkeys(handle.keys(), file)

    def __getitem__(self, name: str) -> Tensor:
        return self._files[self._places[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def files(self) -> Mapping[Path, tuple[str, ...]]:
        """The files and the names of the tensors in each."""
        return {file: tuple(name for name, place in self._places.items() if place == file) for file in self._files}

    def metadata(self, file: Path) -> dict[str, str]:
        """The text entries in the header of one of the files."""
        return dict(self._files[file].metadata() or {})

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._files[self._places[name]].get_slice(name).get_shape())


class Fitted(Mapping[str, Tensor]):
    """A lazily read checkpoint under a network's own names, each tensor read when it is asked for.

    Args:
        source: the checkpoint.
        shapes: the network's tensors.
        tied: names that share a tensor with an earlier one, and that one's name: files may leave them out.
        what: how errors call the checkpoint.

    Raises:
        CheckpointError: tensors are missing, extra or of another shape; says which.
    """

    def __init__(
        self,
        source: LazyCheckpoint,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        tied: Mapping[str, str] | None = None,
        what: str = "the checkpoint",
    ) -> None:
        names = without_prefixes(tuple(source))
        best = max(names, key=lambda candidate: sum(name in shapes for name in candidate))
        best = dict(zip(best, source, strict=True))
        shared = tied or {}
        best |= {name: best[first] for name, first in shared.items() if name not in best and first in best}
        optional = [name for name in shapes if name.endswith("num_batches_tracked") and name not in best]
        if missing := [name for name in shapes if name not in best and name not in optional]:
            raise CheckpointError(f"{what} must hold every tensor of the model; missing: {listed(missing)}")
        if extra := [name for name in best if name not in shapes]:
            raise CheckpointError(f"{what} must hold only the model's tensors; extra: {listed(extra)}")
        for name, shape in shapes.items():
            if name in best and (found := source.shape(best[name])) != tuple(shape):
                raise CheckpointError(
                    f"{what} must have the model's shapes; {name} is {tuple(shape)} in the model, {found} in the file"
                )
        self.source = source
        self.names = {name: best[name] for name in shapes if name in best}
        self._counters = dict.fromkeys(optional)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._counters:  # bookkeeping that old checkpoints lack
            return torch.zeros((), dtype=torch.int64)
        return self.source[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        yield from self.names
        yield from self._counters

    def __len__(self) -> int:
        return len(self.names) + len(self._counters)

    def __contains__(self, name: object) -> bool:
        return name in self.names or name in self._counters


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
        reason = first_line(problem)
        raise CheckpointError(f"{file} must be a whole safetensors file, but: {reason}") from problem
