"""What several paths share: each of n(n−1)/2 lines ends at one of n solutions, which need be looked at only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from isthmus.core.weights import Weights

Found = TypeVar("Found")


class Known:
    """What was found about some solutions: scores, statistics.

    For calls of one objective with one treatment: nothing else tells their findings apart. A solution is known by its
    tensors themselves, not by their values.

    Args:
        solutions: whose findings are kept; all others are looked at anew every time.

    Example:
        >>> import torch
        >>> solution = {"w": torch.ones(2)}
        >>> known = Known([solution])
        >>> known("sum", solution, lambda: 1.0), known("sum", dict(solution), lambda: 2.0)
        (1.0, 1.0)
        >>> known("sum", {"w": torch.ones(2)}, lambda: 3.0)
        3.0
    """

    def __init__(self, solutions: Sequence[Weights] = ()) -> None:
        self._kept = {_tensors(weights): tuple(weights.values()) for weights in solutions}  # so that no id is reused
        self._found: dict[tuple[str, tuple[tuple[str, int], ...]], Any] = {}

    def __call__(self, what: str, weights: Weights, find: Callable[[], Found]) -> Found:
        """What ``find`` gave for these weights the first time, under the name ``what``."""
        tensors = _tensors(weights)
        if tensors not in self._kept:
            return find()
        if (what, tensors) not in self._found:
            self._found[what, tensors] = find()
        return self._found[what, tensors]


def _tensors(weights: Weights) -> tuple[tuple[str, int], ...]:
    return tuple((name, id(tensor)) for name, tensor in weights.items())
