"""Reading and writing checkpoints: safetensors, or torch files through the restricted unpickler; always atomic.

A checkpoint is untrusted input. Pickles that need more than tensors are refused unless the caller says
``unsafe_pickle=True``, which lets the file run any code it likes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.files import atomic
from isthmus.core.folders import TORCH_SUFFIXES, checkpoints_in
from isthmus.core.history import Raw
from isthmus.core.weights import Weights

_NESTED_UNDER = (
    *("state_dict", "model_state_dict", "model", "params", "module", "network", "net", "weights"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model"),  # last: a file may hold both
)


def load(path: str | Path, *, unsafe_pickle: bool = False, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read the weights of one checkpoint, in the precision they are stored in.

    Args:
        path: a ``.safetensors`` file, an index of shards (``*.safetensors.index.json``), a folder that holds either,
            or a torch file (``.pt``, ``.pth``, ``.bin``, ``.ckpt``), also nested under ``state_dict``, ``model``,
            ``params``.
        unsafe_pickle: run the pickle in full. It can then execute any code: only for files that you made yourself.
        device: where the tensors go.

    Raises:
        CheckpointError: the file is missing, truncated, of an unknown kind, or would run code.
    """
    file = _locate(Path(path))
    if file.name.endswith(".index.json"):
        return _load_shards(file, device)
    if file.suffix == ".safetensors":
        return _load_safetensors(file, device)
    if file.suffix in TORCH_SUFFIXES:
        return _tensors_of(_load_torch(file, unsafe_pickle=unsafe_pickle, device=device), file)
    kinds = ".safetensors, .safetensors.index.json, " + ", ".join(TORCH_SUFFIXES)
    raise CheckpointError(f"a checkpoint must be one of {kinds}, got {file}")


def save(weights: Weights, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> Path:
    """Write weights atomically in their own precision; the suffix decides between safetensors and torch's format.

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
            save_file(_unshared(tensors), temporary, metadata=dict(metadata or {}))
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
    file = _locate(Path(path))
    if file.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:  # type: ignore[no-untyped-call]
        return dict(handle.metadata() or {})


def raw_of(weights: Weights) -> list[Raw]:
    """Tensors as safetensors writes them: names, types, shapes, and a way to the bytes of each."""

    def bytes_of(tensor: Tensor) -> Callable[[], Any]:
        return lambda: tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()

    return [
        (name, _CODES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), bytes_of(tensor))
        for name, tensor in weights.items()
    ]


_CODES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.bool: "BOOL"},
    **{torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.complex64: "C64"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"},
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


def _locate(path: Path) -> Path:
    """The file that a path means; for a folder, the checkpoint in it."""
    if not path.exists():
        raise CheckpointError(f"a checkpoint must exist, but there is nothing at {path}")
    if not path.is_dir():
        return path
    inside = checkpoints_in(path)
    candidates = [file for file in inside if file.suffix not in TORCH_SUFFIXES] or inside
    if len(candidates) != 1:
        found = f"found {listed(file.name for file in candidates)}" if candidates else "found none"
        raise CheckpointError(f"the folder {path} must hold exactly one checkpoint, {found}; name the file")
    return candidates[0]


def _load_safetensors(file: Path, device: str | torch.device) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not str(file).isprintable() and any("\ud800" <= letter <= "\udfff" for letter in str(file)):
        raise CheckpointError(f"{file} must have a name in UTF-8, which safetensors needs; rename it")
    try:
        return load_file(file, device=str(device))
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(f"{file} must be a whole safetensors file, but: {first_line(problem, 200)}") from problem


def _load_shards(index: Path, device: str | torch.device) -> dict[str, Tensor]:
    try:
        table: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise CheckpointError(f"{index} must be JSON with a weight_map, but: {first_line(problem, 200)}") from problem
    if not isinstance(table, dict) or not all(isinstance(shard, str) for shard in table.values()):
        raise CheckpointError(f"{index} must map tensor names to shards in its weight_map, and does not")
    weights: dict[str, Tensor] = {}
    for shard in sorted(set(table.values())):
        file = index.parent / shard
        if file.parent.resolve() != index.parent.resolve():
            raise CheckpointError(f"{index} must name shards in its own folder, got {shard}")
        if not file.is_file():
            raise CheckpointError(f"{index} needs the shard {shard}, which is missing")
        weights.update(_load_safetensors(file, device))
    if absent := [name for name in table if name not in weights]:
        raise CheckpointError(f"the shards of {index} must hold every listed tensor; missing: {listed(absent)}")
    return {name: weights[name] for name in table}


def _load_torch(file: Path, *, unsafe_pickle: bool, device: str | torch.device) -> Any:
    try:
        with warnings.catch_warnings():
            # The unpickler warns of old pickle protocols before it refuses or reads them; the outcome says enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location=device, weights_only=not unsafe_pickle)
    except pickle.UnpicklingError as problem:
        if unsafe_pickle:
            raise CheckpointError(f"{file} must be a torch checkpoint, but: {first_line(problem, 200)}") from problem
        raise CheckpointError(
            f"{file} must hold only tensors, but its pickle asks for more or is damaged, and nothing of it was run; "
            "save a plain state_dict, or pass unsafe_pickle (--unsafe-pickle), which lets the file run any code"
        ) from problem
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, ValueError, KeyError, IndexError) as problem:
        # The readers say "Invalid argument", or a single number, of a file that they cannot make sense of.
        damaged = isinstance(problem, EOFError | KeyError | IndexError) or getattr(problem, "errno", 0) == errno.EINVAL
        damaged = damaged or "finding central directory" in str(problem)
        reason = "it is cut short, or none at all" if damaged else first_line(problem, 200)
        raise CheckpointError(f"{file} must be a whole torch checkpoint, but: {reason}") from problem


def _tensors_of(content: Any, file: Path) -> dict[str, Tensor]:
    """Dig the state dict out of what a torch file holds."""
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        nested = [name for name in _NESTED_UNDER if isinstance(content.get(name), Mapping)]
        if nested and len(tensors) < len(content):
            content = content[nested[0]]
            continue
        if tensors and len(tensors) == len(content):
            return {name: _plain(tensor, name, file) for name, tensor in _unaveraged(tensors).items()}
        break
    kinds = f"keys {listed(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise CheckpointError(f"{file} must hold a state_dict (also under {listed(_NESTED_UNDER, 4)}), got {kinds}")


def _unaveraged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the counter that torch's ``AveragedModel`` (SWA, EMA) keeps beside the weights."""
    rest = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    return rest if rest and all(name.startswith("module.") for name in rest) else tensors


def _plain(tensor: Tensor, name: str, file: Path) -> Tensor:
    """A tensor as all others: dense, outside any graph.

    Raises:
        CheckpointError: it has no entries in the file (meta), or holds codes for numbers (quantised).
    """
    if tensor.is_quantized:
        raise CheckpointError(f"{file} must hold plain numbers, but {name} is quantised; save it dequantised")
    if tensor.is_meta:
        raise CheckpointError(f"{file} must hold numbers, but {name} is a meta tensor: a shape without entries")
    return (tensor if tensor.layout == torch.strided else tensor.to_dense()).detach()


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
