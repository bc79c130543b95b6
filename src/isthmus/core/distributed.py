"""Folders of ``torch.distributed.checkpoint`` (FSDP, DTensor), read by one process; their own pickle is restricted.

Every process writes the pieces of tensors that it has into files of its own; ``.metadata``, a pickle, says which piece
is where. Torch's reader runs that pickle in full. Here it may only make the few kinds of records that torch writes.
"""

from __future__ import annotations

import importlib
import io
import math
import pathlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.torch_file import state_dict_of

_CHECKPOINT = "torch.distributed.checkpoint"
_RECORDS = {
    f"{_CHECKPOINT}.metadata": frozenset(
        {"Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
         "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"}
    ),
    f"{_CHECKPOINT}.filesystem": frozenset({"_StorageInfo"}),
    "torch": frozenset({"Size", *(name for name, kind in vars(torch).items() if isinstance(kind, torch.dtype))}),
    "torch.serialization": frozenset({"_get_layout"}),
    "collections": frozenset({"OrderedDict"}),
}  # fmt: skip
_PATHS = frozenset({"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"})


def read_distributed(folder: Path, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The state dict in a folder of ``torch.distributed.checkpoint``; optimisers beside it are not read.

    Raises:
        CheckpointError: the metadata ask for more than records, pieces are missing, or there is no state dict.
    """
    metadata = _metadata(folder / ".metadata")
    try:
        names = [name for name, one in metadata.state_dict_metadata.items() if hasattr(one, "chunks")]
        chosen = _state_dict(names, metadata.planner_data, folder)
        return {
            own: _assembled(name, metadata.state_dict_metadata[name], metadata.storage_data, folder).to(device)
            for own, name in chosen.items()
        }
    except CheckpointError:
        raise
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError,
            MemoryError) as problem:  # fmt: skip
        raise CheckpointError(
            f"{folder} must be a whole folder of torch.distributed.checkpoint, but: "
            f"{type(problem).__name__}: {first_line(problem, 200)}; fetch it again"
        ) from problem


def _state_dict(names: list[str], paths: Any, folder: Path) -> dict[str, str]:
    """The names in the state dict → the names under which the folder keeps them (``model.0.weight``)."""
    nested: dict[str, Any] = {}
    for place, name in enumerate(names):
        *outer, last = paths[name] if isinstance(paths, Mapping) and name in paths else (name,)
        inside = nested
        for part in outer:
            inside = inside.setdefault(str(part), {})
        inside[str(last)] = torch.tensor(place)  # stands for the tensor until it is known which ones are wanted
    return {own: names[int(place)] for own, place in state_dict_of(nested, folder).items()}


def _assembled(name: str, described: Any, storage: Mapping[Any, Any], folder: Path) -> Tensor:
    """One tensor, put together from its pieces."""
    index = importlib.import_module(f"{_CHECKPOINT}.metadata").MetadataIndex
    shape, dtype = tuple(described.size), described.properties.dtype
    places = [storage[index(name, chunk.offsets)] for chunk in described.chunks]
    if math.prod(shape) != sum(math.prod(chunk.sizes) for chunk in described.chunks):
        raise CheckpointError(f"{folder} must hold all pieces of {listed([name])}, and does not; fetch it again")
    if sum(place.length for place in places) < math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"{folder} must hold {listed([name])} of {shape}, but its pieces are shorter than that")
    whole = torch.empty(shape, dtype=dtype)
    for chunk, place in zip(described.chunks, places, strict=True):
        corner = zip(chunk.offsets, chunk.sizes, strict=True)
        whole[tuple(slice(first, first + size) for first, size in corner)] = _piece(place, folder)
    return whole


def _piece(place: Any, folder: Path) -> Tensor:
    """One piece of a tensor, which is a torch file within a file."""
    if Path(place.relative_path).name != place.relative_path:
        raise CheckpointError(f"{folder} must keep its pieces in its own folder, got {listed([place.relative_path])}")
    if getattr(place, "transform_descriptors", None):
        raise CheckpointError(f"{folder} must not be compressed to be read here, and is; convert it to one file first")
    file = folder / place.relative_path
    if not file.is_file():
        raise CheckpointError(f"{folder} needs {file.name}, which one of the processes wrote and is missing; fetch it")
    with file.open("rb") as opened:
        opened.seek(place.offset)
        piece = torch.load(io.BytesIO(opened.read(place.length)), map_location="cpu", weights_only=True)
    if not isinstance(piece, Tensor):
        raise CheckpointError(f"{file} must hold a tensor at {place.offset}, got a {type(piece).__name__}")
    return piece


def _metadata(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            metadata = _Records(opened).load()
    except CheckpointError:
        raise
    except Exception as problem:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{file} must be whole, but: {first_line(problem, 200)}; fetch it again") from problem
    if not hasattr(metadata, "state_dict_metadata"):
        raise CheckpointError(f"{file} must describe a checkpoint, and does not; fetch it again")
    return metadata


class _Records(pickle.Unpickler):
    """An unpickler that makes the records of ``torch.distributed.checkpoint`` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("pathlib", "pathlib._local") and name in _PATHS:
            return pathlib.PurePosixPath  # where it was written, on whatever system
        if name in _RECORDS.get(module, ()):
            return getattr(importlib.import_module(module), name)
        asked = listed([f"{module}.{name}"])
        raise CheckpointError(
            f"the .metadata of a distributed checkpoint must hold only records, but asks for {asked}, and nothing of "
            "it was run; convert it where you trust it: `python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch FOLDER FILE.pt`"
        )
