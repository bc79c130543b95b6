"""A checkpoint read under a symmetry's names and written again, permuted: own names, precision, files and shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from isthmus.core.checkpoint import save
from isthmus.core.errors import CheckpointError, SettingError
from isthmus.core.folders import checkpoint_at, home_of, is_safetensors
from isthmus.core.history import Lineage, write_beside
from isthmus.core.lazy import Fitted, LazyCheckpoint
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights, check_finite
from isthmus.merge.carry import carry
from isthmus.merge.parents import content_of_file
from isthmus.zoo.models import weights_of


def target_names(paths: Sequence[str], folder: Path) -> list[str]:
    """Where the aligned checkpoints go, decided before the work.

    Raises:
        SettingError: one would be written over what it is made from.
    """
    names: list[str] = []
    for path in paths:
        names.append(_target_name(path, names))
    sources = {Path(path).resolve() for path in paths}
    if over := [name for name in names if (folder / name).resolve() in sources]:
        raise SettingError(f"the output must be another place than the checkpoints, got {folder / over[0]}")
    return names


def _target_name(path: str, taken: Sequence[str]) -> str:
    """The name of an aligned checkpoint: the source's own, numbered where two sources share it."""
    source = Path(path)
    stem, suffix = (source.name, "") if _is_sharded(source) else (source.stem, source.suffix)
    if source.name.endswith(".index.json"):
        stem = source.resolve().parent.name
    elif source.is_dir() and not _is_sharded(source):
        stem, suffix = source.resolve().name, ".safetensors"
    name, number = f"{stem}{suffix}", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    return name


def _is_sharded(path: Path) -> bool:
    """Whether a path means a folder of shards, or of one file with a configuration beside it."""
    if path.name.endswith(".index.json"):
        return True
    return path.is_dir() and any((*path.glob("*.safetensors.index.json"), *path.glob("config.json")))


def opened(path: str, symmetry: Symmetry, tied: Mapping[str, str], *, unsafe_pickle: bool) -> Weights:
    """A checkpoint under the symmetry's names; read lazily where its format allows it.

    Raises:
        CheckpointError: nothing is there, or it does not fit the symmetry.
    """
    file = Path(path)
    if is_safetensors(checkpoint_at(file)):
        try:
            return Fitted(LazyCheckpoint(file), symmetry.tensors, tied=tied, what=path)
        except CheckpointError:
            if not (file / "config.json").is_file():
                raise  # only a library's own folder may hold its tensors under other names than the module has
    like = {name: torch.empty(shape, device="meta") for name, shape in symmetry.tensors.items()}
    like |= {name: torch.zeros((), dtype=torch.int64) for name in like if name.endswith("num_batches_tracked")}
    like |= {name: like[earlier] for name, earlier in tied.items()}
    return weights_of(path, like, unsafe_pickle=unsafe_pickle)


def written(path: str, weights: Weights, permutation: Permutation, target: Path, lineage: Lineage) -> Path:
    """The permuted checkpoint, in the files that it came in."""
    if not isinstance(weights, Fitted):
        moved = permutation.apply(weights)
        check_finite(moved, what=path)
        if _is_sharded(Path(path)):  # a folder whose tensors go by other names than the module's
            save(moved, target / "model.safetensors")
            carry(home_of(Path(path)) or target, target, precision=None)
        else:
            save(moved, target)
        write_beside(target, dataclasses.replace(lineage, content=content_of_file(target)))
        return target
    own = {inside: name for name, inside in reversed(weights.names.items())}
    sharded = _is_sharded(Path(path))
    for file, names in weights.source.files.items():
        sources = {inside: weights.names[permutation.source(own[inside])] for inside in names}
        moved = {inside: permutation.moved(own[inside], weights.source[sources[inside]]) for inside in names}
        check_finite(moved, what=str(file))
        text = {**weights.source.metadata(file), "made_by": "isthmus align", **lineage.header()}
        save(moved, target / file.name if sharded else target, metadata=text)
    if sharded:
        folder = home_of(Path(path)) or target
        carry(folder, target, precision=None)
        for index in folder.glob("*.safetensors.index.json"):
            (target / index.name).write_bytes(index.read_bytes())
    write_beside(target, dataclasses.replace(lineage, content=content_of_file(target)))
    return target
