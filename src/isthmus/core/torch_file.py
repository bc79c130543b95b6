"""Torch's own files: read by the restricted unpickler, and the state dict dug out of what they hold."""

from __future__ import annotations

import argparse
import errno
import pathlib
import pickle
import re
import struct
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.signature import mistaken

_NESTED_UNDER = (
    *("state_dict", "model_state_dict", "model", "params", "module", "network", "net", "weights"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model"),  # last: a file may hold both
)
_NO_WEIGHTS = ("opt", "sched", "lr", "scaler", "rng", "param_groups")
# Command lines, paths and NumPy's numbers lie beside weights in the files of most training scripts. To make one runs
# nothing: the restricted unpickler only fills it in.
_HARMLESS = ("argparse.Namespace", "pathlib.", "numpy.")
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, KeyError, IndexError),
    *(zipfile.BadZipFile, tarfile.TarError, struct.error),
)
_ALLOWING = threading.Lock()  # the allowed list is the whole process's


def read_torch(file: Path, *, unsafe_pickle: bool, device: str | torch.device = "cpu", mmap: bool = False) -> Any:
    """What a torch file holds.

    Args:
        file: written by ``torch.save``.
        unsafe_pickle: run the pickle in full, which lets the file run any code.
        device: where the tensors go.
        mmap: leave the tensors on the disk until they are used; only files of torch 1.6 and later.

    Raises:
        CheckpointError: it is damaged, none at all, or asks for more than tensors.
    """
    try:
        with warnings.catch_warnings():
            # The unpickler warns of old pickle protocols before it refuses or reads them; the outcome says enough.
            warnings.simplefilter("ignore", UserWarning)
            try:
                return torch.load(file, map_location=device, weights_only=not unsafe_pickle, mmap=mmap)
            except pickle.UnpicklingError as problem:
                if unsafe_pickle or not _asked_for(problem).startswith(_HARMLESS):
                    raise
            with _ALLOWING, torch.serialization.safe_globals(_harmless()):
                return torch.load(file, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as problem:
        raise _refused(file, problem, unsafe_pickle=unsafe_pickle) from problem
    except _DAMAGED as problem:
        # The readers say "Invalid argument", or a single number, of a file that they cannot make sense of.
        damaged = (
            isinstance(problem, EOFError | KeyError | IndexError | struct.error)
            or getattr(problem, "errno", 0) == errno.EINVAL
        )
        damaged = damaged or "finding central directory" in str(problem)
        reason = mistaken(file) or ("it is cut short, or none at all" if damaged else first_line(problem, 200))
        if "TorchScript" in str(problem):
            reason = "it is a TorchScript program; load it with torch.jit.load and save its state_dict() instead"
        raise CheckpointError(f"{file} must be a whole torch checkpoint, but: {reason}") from problem


def state_dict_of(content: Any, file: Path) -> dict[str, Tensor]:
    """The state dict in what a torch file holds.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if (inner := _inside(content, tensors)) is not None:
            content = inner
            continue
        if tensors and all(name in tensors or _said_beside(name, value) for name, value in content.items()):
            return {name: _plain(tensor, name, file) for name, tensor in _unaveraged(tensors).items()}
        break
    kinds = f"keys {listed(content) or 'none'}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise CheckpointError(
        f"{file} must hold a state_dict (also under {listed(_NESTED_UNDER, 4)}), got {kinds}; save the one that is "
        "meant by itself"
    )


def _asked_for(problem: pickle.UnpicklingError) -> str:
    """What a refused pickle wanted, as the restricted unpickler names it."""
    found = re.search(r"GLOBAL (\S+) was not an allowed global", str(problem))
    return found[1] if found else ""


def _harmless() -> list[Any]:
    import numpy as np

    kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "u1", "?")]
    scalar: Any = np.float64(0).__reduce__()[0]
    paths = [(pathlib.PurePosixPath, f"{place}.{kind}") for place in ("pathlib", "pathlib._local")
             for kind in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")]  # fmt: skip
    numbers = [(scalar, f"{place}.multiarray.scalar") for place in ("numpy.core", "numpy._core")]
    return [argparse.Namespace, np.dtype, *kinds, *numbers, *paths]


def _refused(file: Path, problem: pickle.UnpicklingError, *, unsafe_pickle: bool) -> CheckpointError:
    if unsafe_pickle or mistaken(file):
        reason = mistaken(file) or first_line(problem, 200)
        return CheckpointError(f"{file} must be a torch checkpoint, but: {reason}")
    asked = _asked_for(problem)
    return CheckpointError(
        f"{file} must hold only tensors, but its pickle asks for {asked or 'more or is damaged'}, and nothing of it "
        "was run; save a plain state_dict, or pass unsafe_pickle (--unsafe-pickle), which lets the file run any code"
    )


def _inside(content: Mapping[Any, Any], tensors: Mapping[str, Tensor]) -> Mapping[Any, Any] | None:
    """The part of a training's checkpoint that holds the weights: under a known name, or the only one that could."""
    known = [name for name in _NESTED_UNDER if isinstance(content.get(name), Mapping)]
    if known and len(tensors) < len(content):
        return content[known[0]]
    others = [
        value
        for name, value in content.items()
        if isinstance(value, Mapping) and not str(name).startswith(_NO_WEIGHTS)
        if any(isinstance(entry, Tensor | Mapping) for entry in value.values())
    ]
    return others[0] if len(others) == 1 and not tensors else None


def _said_beside(name: object, value: object) -> bool:
    """Plain values beside the tensors: a count of epochs, a layer's extra state."""
    return isinstance(value, int | float | str | None) or str(name).endswith("_extra_state")


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
