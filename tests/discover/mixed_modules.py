"""Modules of the zoo that mix operators so that too large a group is tempting, with sizes worked out by hand."""

from __future__ import annotations

from typing import Any

import torch
from tests.discover.case import Calls, Case, linears
from torch import Tensor


def parts_in_another_order(m: Any, x: Tensor) -> Tensor:
    """Two pairs of parts: of the second pair the parts come in the other order, and the first of a pair counts twice.

    So in one pair the part that is squared first counts twice, in the other the one that is squared second.
    """
    h = m.a(x).view(-1, 4, 3)
    sums = h[:, [0, 1, 3, 2]].pow(2).sum(-1).view(-1, 2, 2)
    return (sums[:, :, 0] - torch.tanh(sums[:, :, 1])).sum(1) + h.view(-1, 2, 2, 3)[:, :, 0].sin().sum((1, 2))


def parts_in_a_ring(m: Any, x: Tensor) -> Tensor:
    """In each of four heads each of four parts meets the next: heads may be exchanged, parts only be turned."""
    sums = m.a(x).view(-1, 4, 4, 2).pow(2).sum(-1)
    return (sums * torch.tanh(sums.roll(1, -1))).sum((1, 2))


MIXED: dict[str, Case] = {
    "parts in another order": Case(
        lambda: Calls(parts_in_another_order, **linears(a=(5, 12))), ((2, 5),), (3, 3, 3, 3)
    ),
    "parts in a ring": Case(lambda: Calls(parts_in_a_ring, **linears(a=(5, 32))), ((2, 5),), (4, *(2,) * 16)),
}
