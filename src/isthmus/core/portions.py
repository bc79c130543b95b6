"""As many at once as fit into a device's memory: found by trying, kept for the next time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import torch

Part = TypeVar("Part")


@dataclasses.dataclass
class Portions:
    """Runs over many things in portions, which are halved whenever a GPU's memory runs out.

    Attributes:
        most: how many go at once; ``None`` until something did not fit.

    Example:
        >>> Portions(most=2)(5, lambda part: list(range(5))[part])
        [[0, 1], [2, 3], [4]]
    """

    most: int | None = None

    def __call__(self, total: int, run: Callable[[slice], Part]) -> list[Part]:
        """What ``run`` gives for each portion of ``total`` things, in order.

        Raises:
            torch.cuda.OutOfMemoryError: even one alone does not fit.
        """
        found: list[Part] = []
        first = 0
        while first < total:
            last = min(total, first + (self.most or total))
            try:
                found.append(run(slice(first, last)))
            except torch.cuda.OutOfMemoryError:
                if last - first == 1:
                    raise
                self.most = (last - first) // 2
                continue
            first = last
        return found
