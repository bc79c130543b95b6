"""Tensors of checkpoints on disk that are stored under two names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from isthmus.merge.shards import Shards


def repeated(models: Sequence[Shards], codes: Collection[str]) -> dict[str, str]:
    """Names that hold the bytes of an earlier name in every model, and that earlier name: one tensor of the network.

    Args:
        models: with the same names and shapes.
        codes: the types that count.

    Cost: the first bytes of every tensor; tensors that begin alike are read whole.
    """
    earlier: dict[tuple[str, tuple[int, ...], bytes], list[str]] = {}
    found = {}
    for name, entry in models[0].entries.items():
        if entry.code not in codes or entry.bytes == 0:
            continue
        firsts = earlier.setdefault((entry.code, entry.shape, bytes(models[0].raw(name, partly=True)[:64])), [])
        first = next((one for one in firsts if all(_same(model, one, name) for model in models)), None)
        if first is None:
            firsts.append(name)
        else:
            found[name] = first
    return found


def _same(model: Shards, one: str, other: str) -> bool:
    return np.array_equal(np.frombuffer(model.raw(one), np.uint8), np.frombuffer(model.raw(other), np.uint8))
