"""Reading and writing checkpoints: safetensors, or torch files through the restricted unpickler; always atomic.

A checkpoint is untrusted input. Pickles that need more than tensors are refused unless the caller says
``unsafe_pickle=True``, which lets the file run any code it likes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, first_line
from isthmus.core.files import atomic
from isthmus.core.folders import TORCH_SUFFIXES, checkpoint_at, is_distributed, is_index, is_torch_file
from isthmus.core.history import Raw
from isthmus.core.index import joined, read_index
from isthmus.core.signature import mistaken
from isthmus.core.torch_file import read_torch, state_dict_of
from isthmus.core.weights import Weights


def load(path: str | Path, *, unsafe_pickle: bool = False, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read the weights of one checkpoint, in the precision they are stored in.

    Args:
        path: a ``.safetensors`` file, a torch file (``.pt``, ``.pth``, ``.bin``, ``.ckpt``; the weights may be nested
            under ``state_dict``, ``model``, ``params``), an index of shards of either (``*.index.json``), a folder that
            holds one of these, or a folder of ``torch.distributed.checkpoint`` (FSDP).
        unsafe_pickle: run the pickle in full. It can then execute any code: only for files that you made yourself.
        device: where the tensors go.

    Raises:
        CheckpointError: the file is missing, truncated, of an unknown kind, or would run code.
    """
    file = checkpoint_at(Path(path))
    if is_distributed(file):
        from isthmus.core.distributed import read_distributed

        return read_distributed(file, device=device)
    if is_index(file):
        table = read_index(file)
        parts = ((shard, _load_file(shard, device, unsafe_pickle)) for shard in sorted(set(table.values())))
        return joined(file, table, parts, same=_same)
    return _load_file(file, device, unsafe_pickle)


def save(weights: Weights, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> Path:
    """Write weights atomically in their own precision; the suffix decides between safetensors and torch's format.

    The header of safetensors says that they are torch's (``format``), without which transformers refuses them.
    Views are written as what they show, not as the storage behind them.

    Raises:
        CheckpointError: another suffix, or the disk is full.
    """
    file = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        with atomic(file) as temporary, _full_disk_is_named(file, SafetensorError):
            save_file(_unshared(tensors), temporary, metadata={"format": "pt", **(metadata or {})})
    elif file.suffix in TORCH_SUFFIXES:
        with atomic(file) as temporary, _full_disk_is_named(file, RuntimeError):
            torch.save({name: tensor.clone() for name, tensor in tensors.items()}, temporary)
    else:
        raise CheckpointError(
            f"a checkpoint is written as .safetensors or one of {', '.join(TORCH_SUFFIXES)}, got {file}"
        )
    return file


def metadata_of(path: str | Path) -> dict[str, str]:
    """The text entries in the header of a safetensors file; empty for other formats."""
    file = checkpoint_at(Path(path))
    if file.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:  # type: ignore[no-untyped-call]
        return dict(handle.metadata() or {})


def raw_of(weights: Weights) -> list[Raw]:
    """Tensors as safetensors writes them: names, types, shapes, and a way to the bytes of each."""

    def bytes_of(tensor: Tensor) -> Callable[[], Any]:
        return lambda: _bits(tensor).numpy()

    return [
        (name, _CODES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), bytes_of(tensor))
        for name, tensor in weights.items()
    ]


def _bits(tensor: Tensor) -> Tensor:
    """A tensor's bytes, in the order of its entries."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


_CODES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.bool: "BOOL"},
    **{torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.complex64: "C64"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0"},
    **{torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ"},
}


@contextlib.contextmanager
def _full_disk_is_named(file: Path, kind: type[Exception]) -> Iterator[None]:
    """Both formats' writers report a full disk as an error of their own, not as the system's."""
    try:
        yield
    except kind as problem:
        reason = first_line(problem, 200)
        raise CheckpointError(
            f"{file} must be writable, but: {reason}; choose another output or free some space"
        ) from problem


def _load_file(file: Path, device: str | torch.device, unsafe_pickle: bool) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return _load_safetensors(file, device)
    if is_torch_file(file):
        return state_dict_of(read_torch(file, unsafe_pickle=unsafe_pickle, device=device), file)
    kinds = ", ".join((".safetensors", *TORCH_SUFFIXES))
    raise CheckpointError(f"a checkpoint must be one of {kinds} or an index of those, got {file}; convert it first")


def _load_safetensors(file: Path, device: str | torch.device) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not str(file).isprintable() and any("\ud800" <= letter <= "\udfff" for letter in str(file)):
        raise CheckpointError(f"{file} must have a name in UTF-8, which safetensors needs; rename it")
    try:
        return load_file(file, device=str(device))
    except (SafetensorError, OSError) as problem:
        reason = mistaken(file) or first_line(problem, 200)
        raise CheckpointError(f"{file} must be a whole safetensors file, but: {reason}") from problem


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bits(one), _bits(other))


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied tensors are copied: safetensors refuses storage that two names share."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        result[name] = tensor if whole and pointer not in seen else tensor.clone()
        seen.add(pointer)
    return result
