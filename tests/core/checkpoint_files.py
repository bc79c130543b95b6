"""Weights, and folders and files that hold them in the ways of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from isthmus.core.checkpoint import load
from isthmus.core.errors import CheckpointError
from isthmus.core.lazy import LazyCheckpoint
from isthmus.merge.shards import Shards

WEIGHTS = {
    "0.weight": torch.arange(24.0).view(6, 4),
    "0.bias": torch.arange(6.0),
    "2.weight": -torch.arange(18.0).view(3, 6),
    "2.bias": torch.tensor([0.5, 1.5, -2.5]),
}
NAMES = tuple(WEIGHTS)
SHARDS = tuple(f"model-0000{place}-of-00002.safetensors" for place in (1, 2))


def same(found: dict) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def refused(read: Callable[[], object], said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        read()
    assert "\n" not in str(caught.value)


def part(*places: int, add: float = 0.0) -> dict[str, torch.Tensor]:
    return {NAMES[place]: WEIGHTS[NAMES[place]] + add for place in places}


def sharded(folder: Path, first: dict, second: dict, *, listed: tuple[str, ...] = NAMES) -> Path:
    folder.mkdir(exist_ok=True)
    for file, held in zip(SHARDS, (first, second), strict=True):
        save_file(held, folder / file)
    table = {name: SHARDS[0] if name in first else SHARDS[1] for name in listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder


def readers(folder: Path) -> list[Callable[[], object]]:
    """Every way that a command reads files."""
    return [lambda: load(folder), lambda: dict(LazyCheckpoint(folder)), lambda: Shards.open(folder)]
