"""A safetensors checkpoint as a mapping that reads each tensor when it is asked for, and keeps none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.checkpoint import load
from isthmus.core.errors import CheckpointError, first_line, listed
from isthmus.core.folders import checkpoint_at, is_index, is_safetensors
from isthmus.core.index import joined, read_index
from isthmus.core.misfits import check_is_model, misfit
from isthmus.core.names import without_prefixes
from isthmus.core.signature import mistaken
from isthmus.core.weights import Weights


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
        named = checkpoint_at(Path(path))
        table = read_index(named) if is_index(named) else {}
        files = sorted(set(table.values())) if is_index(named) else [named]
        if other := [file for file in files if file.suffix != ".safetensors"]:
            raise CheckpointError(
                f"tensors can be read one by one only from safetensors files, and {other[0]} is none; save it as one"
            )
        self._files: dict[Path, Any] = {file: _opened(file, self._device) for file in files}
        parts = [
            (file, {name: (file, name) for name in handle.keys()})  # noqa: SIM118
            for file, handle in self._files.items()
        ]
        self._places: dict[str, Path] = {
            name: file for name, (file, _) in joined(named, table, parts, same=self._same).items()
        }

    def _same(self, one: tuple[Path, str], other: tuple[Path, str]) -> bool:
        first, second = (self._files[file].get_tensor(name) for file, name in (one, other))
        return bool(first.dtype == second.dtype and torch.equal(first, second))

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

    def code(self, name: str) -> str:
        """The type of a tensor as safetensors writes it, without reading it."""
        return str(self._files[self._places[name]].get_slice(name).get_dtype())


def lazily(path: str | Path, *, unsafe_pickle: bool = False) -> Weights:
    """A checkpoint read tensor by tensor where its format allows it, else at once.

    Raises:
        CheckpointError: as :func:`isthmus.core.checkpoint.load`.
    """
    if is_safetensors(checkpoint_at(Path(path))):
        return LazyCheckpoint(path)
    return load(path, unsafe_pickle=unsafe_pickle)


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
        check_is_model(source, what)
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
                raise CheckpointError(misfit(what, name, tuple(shape), found))
        if unlike := [name for name in shapes if name in best and _codes_only(name, source.code(best[name]))]:
            code = source.code(best[unlike[0]])
            raise CheckpointError(
                f"{what} must hold numbers of the model's kind; {unlike[0]} is {code} in the file; convert it to "
                "bfloat16 or wider first"
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


def _codes_only(name: str, code: str) -> bool:
    """Whether a tensor's numbers are codes that no layer computes with: 8-bit floats, quantised weights."""
    return code.startswith("F8") or (code in ("I8", "U8") and name.endswith("weight"))


def _opened(file: Path, device: torch.device) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device=str(device)).__enter__()  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as problem:
        reason = mistaken(file) or first_line(problem)
        raise CheckpointError(f"{file} must be a whole safetensors file, but: {reason}") from problem
