"""Weights of networks that were trained together, in one stacked safetensors file of which any one is read alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, IsthmusError, first_line
from isthmus.core.weights import Weights, stack

FINAL = "final"


def file_name(moment: str) -> str:
    """The file that holds the weights of a moment: ``weights.safetensors`` is the end of training."""
    return "weights.safetensors" if moment == FINAL else f"weights-{moment}.safetensors"


def digest(weights: Weights) -> str:
    """SHA-256 over names, types, shapes and bytes; the same wherever and however the tensors are stored."""
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def group_id(keys: Sequence[str], digests: Sequence[Mapping[str, str]]) -> str:
    """The identity of a group: its members and their content, in order."""
    text = "\n".join(f"{key} {sorted(content.items())}" for key, content in zip(keys, digests, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def same_shapes(members: Sequence[Mapping[str, Weights]]) -> bool:
    """Whether all members hold the same moments, names, shapes and types, so that they can be stacked."""
    forms = [
        {(moment, name, t.shape, t.dtype) for moment, weights in member.items() for name, t in weights.items()}
        for member in members
    ]
    return all(form == forms[0] for form in forms)


def write_weights(members: Sequence[Weights], path: Path, *, metadata: Mapping[str, str]) -> None:
    """Stack the members into one file, with ``metadata`` in its header. Not atomic by itself: the folder around it is.

    Raises:
        IsthmusError: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stacked = {name: tensor.detach().cpu().contiguous() for name, tensor in stack(members).items()}
    try:
        save_file(stacked, path, dict(metadata))
    except SafetensorError as problem:
        # The Rust side reports a full disk as its own error.
        reason = first_line(problem)
        raise IsthmusError(
            f"{path} must be writable, but: {reason}; choose another store or free some space"
        ) from problem


def read_slice(path: Path, index: int, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """One member of a stacked file; reads only its bytes.

    Raises:
        CheckpointError: the file is missing, damaged or has no such member.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:  # type: ignore[no-untyped-call]
            names = sorted(handle.keys())
            return {name: handle.get_slice(name)[index : index + 1].squeeze(0).to(device) for name in names}
    except (SafetensorError, OSError, IndexError, RuntimeError) as problem:
        reason = first_line(problem, 200)
        raise CheckpointError(f"{path} must hold the stacked weights of a group, but: {reason}") from problem
