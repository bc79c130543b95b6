"""What stands beside each other in the zoo: experts, gated, normed or of kernels; heads; several of one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, lin
from torch import Tensor, nn

STREAM, INNER = 6, 5


def ranks(*, bias: bool = True) -> nn.Module:
    """An expert of two layers."""
    return Calls(lambda m, x: m.down(torch.relu(m.up(x))), up=nn.Linear(STREAM, INNER, bias), down=lin(INNER, STREAM))


def gated() -> nn.Module:
    parts = {"gate": nn.Linear(STREAM, INNER, False), "up": nn.Linear(STREAM, INNER, False), "down": lin(INNER, STREAM)}
    return Calls(lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)), **parts)


def normed() -> nn.Module:
    return nn.Sequential(lin(STREAM, INNER), nn.BatchNorm1d(INNER), nn.ReLU(), lin(INNER, STREAM))


def kernels() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, INNER, 3, padding=1), nn.BatchNorm2d(INNER), nn.ReLU(), nn.Conv2d(INNER, 3, 1))


def head() -> nn.Module:
    return Calls(attended, q=lin(STREAM, 3), k=lin(STREAM, 3), v=lin(STREAM, 4), o=lin(4, STREAM))


def attended(m: Any, x: Tensor) -> Tensor:
    return torch.softmax(m.q(x) @ m.k(x).transpose(-1, -2), -1) @ m.v(x)


def several(number: int, make: Callable[[], nn.Module] = ranks) -> nn.ModuleList:
    return nn.ModuleList([make() for _ in range(number)])


def mixtures() -> nn.Module:
    return Calls(lambda m, x: None, router=lin(STREAM, 3), list=several(3))


def in_whole_slices(m: Any, x: Tensor) -> Tensor:
    """Each branch writes one number, as older torch exports it: a slice of everything for each ``:``."""
    x, a = m.i(x), torch.ops.aten
    result = x.new_zeros(x.shape[0], len(m.list))
    for number, branch in enumerate(m.list):
        written = a.select_scatter(a.slice(result, 0, 0, 2**63 - 1), a.select(a.slice(branch(x)), 1, 0), 1, number)
        result = a.slice_scatter(result, written, 0, 0, 2**63 - 1)
    return m.o(result)
