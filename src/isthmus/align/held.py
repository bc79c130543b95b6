"""Tensors in working precision: kept where there is room, made anew at each use where there is not."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights

ROOM = 300_000_000
"""Bytes of single-precision copies of one solution that are kept; larger ones are converted one tensor at a time."""
RECENT = 200_000_000
"""Bytes of such converted tensors that are kept for the next use: nested groups look at theirs many times."""


class Made(Mapping[str, Tensor]):
    """A mapping whose entries are made when they are asked for; those asked for last are kept while there is room."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make
        self._recent: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with self._lock:
            if name in self._recent:
                self._recent[name] = tensor = self._recent.pop(name)  # asked for last
                return tensor
        tensor = self._make(name)
        self._keep(name, tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def fresh(self, name: str) -> Tensor:
        """An entry that is used once, and not kept."""
        return self._make(name)

    def moved(self, permutation: Permutation, *, like: Made | None = None, but: Collection[str] = ()) -> Made:
        """These entries permuted; what ``like`` keeps is taken over, except the names in ``but``."""
        made = Made(self._names, lambda name: permutation.moved(name, self.fresh(name)))
        if like is not None:
            with like._lock:
                made._recent = {name: tensor for name, tensor in like._recent.items() if name not in but}
        return made

    def _keep(self, name: str, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if size > RECENT:
            return
        with self._lock:
            self._recent[name] = tensor
            total = sum(kept.numel() * kept.element_size() for kept in self._recent.values())
            for oldest in list(self._recent):
                if total <= RECENT:
                    break
                kept = self._recent.pop(oldest)
                total -= kept.numel() * kept.element_size()


def fits(symmetry: Symmetry, names: tuple[str, ...]) -> bool:
    """Whether the named tensors of one solution are few enough to be kept in single precision."""
    return 4 * sum(math.prod(symmetry.tensors[name]) for name in names) <= ROOM


def working(weights: Weights, names: tuple[str, ...], *, device: torch.device, keep: bool) -> Mapping[str, Tensor]:
    """The named tensors in the precision that similarities are computed in: double stays double, all else is single."""

    def make(name: str) -> Tensor:
        tensor = weights[name].detach()
        return tensor.to(device=device, dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)

    return {name: make(name) for name in names} if keep else Made(names, make)


def moved(source: Mapping[str, Tensor], permutation: Permutation) -> Mapping[str, Tensor]:
    """Permuted tensors, kept if the source is."""
    if isinstance(source, Made):
        return source.moved(permutation)
    return {name: permutation.moved(name, tensor) for name, tensor in source.items()}
