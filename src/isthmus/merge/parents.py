"""Checkpoints on disk as parents of what is made from them; without torch, unless a file is one of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isthmus.core.folders import checkpoint_at, is_safetensors
from isthmus.core.history import Parent, content_of, printable
from isthmus.merge.shards import Shards


def content_of_file(path: str | Path, *, unsafe_pickle: bool = False) -> str:
    """The identity of the weights in a file or folder.

    Cost: reads up to 256 MiB, of larger checkpoints stretches; torch files are loaded.
    """
    file = Path(path)
    if not is_safetensors(checkpoint_at(file)):
        from isthmus.core.checkpoint import load

        return content_of(load(file, unsafe_pickle=unsafe_pickle))
    return Shards.open(file).content()


def parents_of(
    paths: Iterable[str | Path], base: str | Path | None = None, *, role: str = "model", unsafe_pickle: bool = False
) -> tuple[Parent, ...]:
    """Files as parents of what is made from them, the base last."""
    named = [(path, role) for path in paths] + ([(base, "base")] if base is not None else [])
    return tuple(
        Parent(content_of_file(path, unsafe_pickle=unsafe_pickle), printable(Path(path).name), role)
        for path, role in named
    )
