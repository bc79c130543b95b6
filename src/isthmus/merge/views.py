"""Solutions seen through a sample, whether they lie in memory or on disk; torch is not needed for those on disk."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.merge.fitting import vocabulary
from isthmus.merge.floats import PRECISIONS, tobits, widen
from isthmus.merge.shards import Shards

_FLOATING = {precision.code: precision for precision in PRECISIONS}
_MATRICES = 12  # spread evenly over the depth: unrelated networks differ in every one of them
_STRETCH = 1 << 16  # entries read of each: a cosine of unrelated ones is then 0 ± 0.004


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One solution, wherever it lies."""

    what: str
    shapes: Mapping[str, tuple[int, ...]]
    floating: frozenset[str]
    read: Callable[[str, int], NDArray[np.float64]]
    folder: Path | None = None
    weights: Any = None

    def sample(self, name: str) -> NDArray[np.float64]:
        """The entries around the middle of a tensor."""
        return self.read(name, _STRETCH)


def view_of(solution: Any, what: str) -> View:
    """A solution given as weights, opened shards or a path."""
    if isinstance(solution, str | Path):
        solution = Shards.open(solution)
    if isinstance(solution, Shards):
        shards: Shards = solution

        def stretch(name: str, most: int) -> NDArray[np.float64]:
            precision = _FLOATING[shards.entries[name].code]
            bits = tobits(shards.raw(name, partly=True), precision)
            part = bits[_middle(len(bits), most)]
            return widen(part, precision, np.empty(len(part), precision.work)).astype(np.float64)

        shapes = {name: entry.shape for name, entry in shards.entries.items()}
        floating = frozenset(name for name, entry in shards.entries.items() if entry.code in _FLOATING)
        return View(str(shards.path), shapes, floating, stretch, shards.folder)

    def read(name: str, most: int) -> NDArray[np.float64]:
        flat = solution[name].detach().flatten()
        return flat[_middle(len(flat), most)].cpu().double().numpy()

    shapes = {name: tuple(tensor.shape) for name, tensor in solution.items()}
    floating = frozenset(name for name, tensor in solution.items() if tensor.is_floating_point())
    return View(what, shapes, floating, read, weights=solution)


def _middle(length: int, most: int) -> slice:
    first = max(0, (length - most) // 2)
    return slice(first, first + most)


def sampled_names(views: Sequence[View]) -> list[str]:
    """Matrices of equal shape in all, evenly over the depth; those with tokens as rows say little about the layers."""
    first = views[0]
    matrices = [
        name
        for name, shape in first.shapes.items()
        if len(shape) >= 2 and name in first.floating and not vocabulary(name)
        if all(view.shapes.get(name) == shape for view in views)
    ]
    places = np.unique(np.linspace(0, len(matrices) - 1, _MATRICES).round().astype(int)) if matrices else []
    return [matrices[place] for place in places]


def pairs(samples: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each two of them once."""
    return list(itertools.combinations(samples, 2))


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two equal vectors 1, also where both are zero; 0 where one is."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = float(np.sqrt(a @ a) * np.sqrt(b @ b))
        if lengths == 0.0:
            return float(np.array_equal(a, b))
        value = float(a @ b) / lengths
    return value if np.isfinite(value) else 0.0
