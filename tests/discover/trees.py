"""Branches that come together as a tree: (a + b) + (c + d) is one sum of four."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.discover.beside import ROUTED, ROWS, Beside, plain, routed
from torch import Tensor


def tree(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Two and two, then both."""

    def joined(m: Any, x: Tensor) -> Tensor:
        x = m.i(x)
        a, b, c, d = (branch(x) for branch in m.list)
        return m.o(join(join(a, b), join(c, d)))

    return joined


def weighed(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    a, b, c, d = (share[:, None] * e(x) for share, e in zip(m.router(x).softmax(-1).unbind(1), m.list, strict=True))
    return m.o(a + ((b + c) + d))


def beside_a_stream(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    a, b, c = (branch(x) for branch in m.list)
    return m.o(x + (a + (b + c)))


def half_read_again(m: Any, x: Tensor) -> Tensor:
    """What the first two make is read a second time: they are alike, and so are the other two."""
    x = m.i(x)
    a, b, c, d = (branch(x) for branch in m.list)
    half = a + b
    return m.o((half + (c + d)) + torch.tanh(half))


def one_twice(m: Any, x: Tensor) -> Tensor:
    """The first is in both halves; the other three are alike."""
    x = m.i(x)
    a, b, c, d = (branch(x) for branch in m.list)
    return m.o((a + b) + (c + a) + d)


def halves_apart(m: Any, x: Tensor) -> Tensor:
    """Halves that go through something else are halves."""
    x = m.i(x)
    a, b, c, d = (branch(x) for branch in m.list)
    return m.o(torch.relu(a + b) + torch.relu(c + d))


def halves_of_a_difference(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    a, b, c, d = (branch(x) for branch in m.list)
    return m.o((a + b) - (c + d))


TREES: dict[str, Beside] = {
    "a tree of sums": Beside(plain(tree(torch.add), 4), ROWS, ((4, 1),)),
    "a tree of products": Beside(plain(tree(torch.mul), 4), ROWS, ((4, 1),)),
    "a tree of maxima": Beside(plain(tree(torch.maximum), 4), ROWS, ((4, 1),)),
    "a mixture written as a tree": Beside(routed(weighed, 4), ROWS, ((4, 1),), ROUTED),
    "a tree beside a stream": Beside(plain(beside_a_stream), ROWS, ((3, 1),)),
    "half of a tree read again": Beside(plain(half_read_again, 4), ROWS, ((2, 1), (2, 1))),
    "one branch twice": Beside(plain(one_twice, 4), ROWS, ((3, 1),)),
    "halves apart": Beside(plain(halves_apart, 4), ROWS, ((2, 1), (2, 1), (2, 1))),
    "halves of a difference": Beside(plain(halves_of_a_difference, 4), ROWS, ((2, 1), (2, 1))),
}
