"""A zoo of modules that do the same beside each other, and what of them may be exchanged, worked out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.branches import (
    INNER,
    STREAM,
    gated,
    head,
    in_whole_slices,
    kernels,
    mixtures,
    normed,
    ranks,
    several,
)
from tests.discover.case import Calls, lin, normal
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Beside:
    """A module, its input's shape, and for each group of whole modules: units, and how many groups each holds."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]
    shared: tuple[tuple[str, int], ...] = ()


def soft(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    shares = torch.softmax(m.router(x), -1)
    return m.o(x + sum(shares[..., n : n + 1] * expert(x) for n, expert in enumerate(m.list)))


def side_by_side(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    made = torch.stack([expert(x) for expert in m.list], 1)
    return m.o((made * torch.softmax(m.router(x), -1)[..., None]).sum(1))


def contracted(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(torch.einsum("ne,ned->nd", m.router(x).sigmoid(), torch.stack([expert(x) for expert in m.list], 1)))


def unbound(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(sum(s[:, None] * e(x) for s, e in zip(m.router(x).sigmoid().unbind(-1), m.list, strict=True)))


def masked(m: Any, x: Tensor) -> Tensor:
    """The best two of all, each weighed by its own share."""
    x = m.i(x)
    shares, picked = torch.softmax(m.router(x), -1).topk(2, -1)
    return m.o(x + sum((shares * (picked == n)).sum(-1, keepdim=True) * e(x) for n, e in enumerate(m.list)))


def sent(m: Any, x: Tensor) -> Tensor:
    """Only the tokens of an expert reach it, as in Mixtral."""
    x = m.i(x)
    shares, picked = torch.softmax(m.router(x), -1).topk(2, -1)
    where = F.one_hot(picked, len(m.list)).permute(2, 1, 0)
    result = torch.zeros_like(x)
    for number, expert in enumerate(m.list):
        turn, token = torch.where(where[number])
        result.index_add_(0, token, expert(x[token]) * shares[token, turn, None])
    return m.o(result)


def put_back(m: Any, x: Tensor) -> Tensor:
    """The best expert alone, written where its tokens are, as in Switch."""
    x = m.i(x)
    best = m.router(x).argmax(-1)
    result = torch.zeros_like(x)
    for number, expert in enumerate(m.list):
        result[best == number] = expert(x[best == number])
    return m.o(result)


def added_where(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    shares, picked = torch.softmax(m.router(x), -1).topk(2, -1)
    result = torch.zeros_like(x)
    for number, expert in enumerate(m.list):
        mine = (picked == number).any(-1)
        result[mine] += expert(x[mine]) * (shares * (picked == number)).sum(-1)[mine, None]
    return m.o(result)


def taken_where(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    best = m.router(x).argmax(-1, keepdim=True)
    result = torch.zeros_like(x)
    for number, expert in enumerate(m.list):
        result = torch.where(best == number, expert(x), result)
    return m.o(result)


def summed(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(sum(branch(x) for branch in m.list))


def averaged(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(torch.stack([branch(x) for branch in m.list]).mean(0))


def largest(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(torch.maximum(torch.maximum(m.list[0](x), m.list[1](x)), m.list[2](x)))


def weighed(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(sum(m.w[n] * branch(x) for n, branch in enumerate(m.list)))


def concatenated(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(torch.cat([branch(x) for branch in m.list], -1))


def channels(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(torch.cat([branch(x) for branch in m.list], 1).flatten(1))


def one_by_one(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    result = x.new_zeros(x.shape[0], len(m.list))
    for number, branch in enumerate(m.list):
        result[:, number] = branch(x)[:, 0]
    return m.o(result)


def heads_projected(m: Any, x: Tensor) -> Tensor:
    return m.o(x + sum(one.o(one(x)) for one in m.list))


def heads_concatenated(m: Any, x: Tensor) -> Tensor:
    return m.o(torch.cat([one(x) for one in m.list], -1))


def with_shared(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    shares = torch.softmax(m.router(x), -1)
    return m.o(m.always(x) + sum(shares[:, n, None] * expert(x) for n, expert in enumerate(m.list)))


def through_one(m: Any, x: Tensor) -> Tensor:
    """Experts that share their second matrix."""
    x = m.i(x)
    shares = torch.softmax(m.router(x), -1)
    return m.o(sum(shares[:, n, None] * m.down(torch.relu(up(x))) for n, up in enumerate(m.list)))


def twice(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    for router, experts in ((m.first, m.list), (m.second, m.other)):
        shares = torch.softmax(router(x), -1)
        x = x + sum(shares[:, n, None] * expert(x) for n, expert in enumerate(experts))
    return m.o(x)


def in_two_levels(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    outer = torch.softmax(m.router(x), -1)
    total = 0
    for number, part in enumerate(m.list):
        inner = torch.softmax(part.router(x), -1)
        total = total + outer[:, number, None] * sum(inner[:, n, None] * e(x) for n, e in enumerate(part.list))
    return m.o(total)


def own_gates(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(sum(torch.sigmoid(gate(x)) * branch(x) for gate, branch in zip(m.gates, m.list, strict=True)))


def parts_of_stream(m: Any, x: Tensor) -> Tensor:
    """Each branch reads a part of its own of what one layer writes."""
    return m.o(sum(branch(part) for branch, part in zip(m.list, m.i(x).chunk(2, -1), strict=True)))


def gates_for_channels(m: Any, x: Tensor) -> Tensor:
    """One matrix holds a gate for each channel of each branch."""
    x = m.i(x)
    return m.o(sum(g.sigmoid() * b(x) for g, b in zip(m.gate(x).chunk(3, -1), m.list, strict=True)))


def unequal(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(m.list[0](x) + torch.tanh(m.list[1](x)))


def counted(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    return m.o(sum((n + 1.0) * branch(x) for n, branch in enumerate(m.list)))


def parts_of_input(m: Any, x: Tensor) -> Tensor:
    return m.o(sum(branch(part) for branch, part in zip(m.list, x.chunk(2, -1), strict=True)))


def handed_out(m: Any, x: Tensor) -> tuple[Tensor, ...]:
    x = m.i(x)
    return tuple(branch(x) for branch in m.list)


def router_told(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The router's answer is handed out, too, so its rows stand still."""
    return soft(m, x), m.router(m.i(x))


def one_after_the_other(m: Any, x: Tensor) -> Tensor:
    x = m.i(x)
    for branch in m.list:
        x = x + branch(x)
    return m.o(x)


def plain(function: Callable[..., Any], number: int = 3, make: Callable[[], nn.Module] = ranks, **parts: Any) -> Any:
    parts = {"i": lin(3, STREAM), "o": lin(STREAM, 2), **parts}
    return lambda: Calls(function, list=several(number, make), **{n: p() if callable(p) and not isinstance(p, nn.Module)
                                                                  else p for n, p in parts.items()})  # fmt: skip


ROUTED = (("router.weight", 0), ("router.bias", 0))
ROWS = (8, 3)


def routed(function: Callable[..., Any], number: int = 3, make: Callable[[], nn.Module] = ranks, **parts: Any) -> Any:
    return plain(function, number, make, router=lambda: lin(STREAM, number), **parts)


CASES: dict[str, Beside] = {
    "soft mixture": Beside(routed(soft, 4), ROWS, ((4, 1),), ROUTED),
    "soft mixture of sequences": Beside(routed(soft), (2, 4, 3), ((3, 1),), ROUTED),
    "a router without bias": Beside(
        plain(soft, router=lambda: nn.Linear(STREAM, 3, bias=False)), ROWS, ((3, 1),), ROUTED[:1]
    ),
    "experts stacked": Beside(routed(side_by_side), ROWS, ((3, 1),), ROUTED),
    "experts contracted": Beside(routed(contracted), ROWS, ((3, 1),), ROUTED),
    "shares unbound": Beside(routed(unbound), ROWS, ((3, 1),), ROUTED),
    "best two, masked": Beside(routed(masked, 4), ROWS, ((4, 1),), ROUTED),
    "best two, a short example": Beside(routed(masked, 4), (1, 3), ((4, 1),), ROUTED),
    "best two, sent": Beside(routed(sent, 4), ROWS, ((4, 1),), ROUTED),
    "best one, put back": Beside(routed(put_back), ROWS, ((3, 1),), ROUTED),
    "best two, added where": Beside(routed(added_where), ROWS, ((3, 1),), ROUTED),
    "best one, taken where": Beside(routed(taken_where), ROWS, ((3, 1),), ROUTED),
    "gated experts": Beside(routed(masked, 4, gated), ROWS, ((4, 1),), ROUTED),
    "with a shared expert": Beside(routed(with_shared, always=ranks), ROWS, ((3, 1),), ROUTED),
    "a matrix that experts share": Beside(
        routed(through_one, 3, lambda: lin(STREAM, INNER), down=lambda: lin(INNER, STREAM)), ROWS, ((3, 0),), ROUTED
    ),
    "experts with running statistics": Beside(routed(soft, 3, normed), ROWS, ((3, 1),), ROUTED),
    "two mixtures": Beside(
        plain(twice, other=lambda: several(3), first=lambda: lin(STREAM, 3), second=lambda: lin(STREAM, 3)),
        ROWS, ((3, 1), (3, 1)),
    ),
    "mixtures of mixtures": Beside(routed(in_two_levels, 2, mixtures), ROWS, ((2, 1), (3, 1), (3, 1))),
    "branches with gates of their own": Beside(
        plain(own_gates, gates=lambda: several(3, lambda: lin(STREAM, 1))), ROWS, ((3, 1),)
    ),
    "branches summed": Beside(plain(summed), ROWS, ((3, 1),)),
    "branches averaged": Beside(plain(averaged), ROWS, ((3, 1),)),
    "the largest branch": Beside(plain(largest), ROWS, ((3, 1),)),
    "branches weighed": Beside(plain(weighed, w=lambda: normal(3)), ROWS, ((3, 1),), (("w", 0),)),
    "branches concatenated": Beside(
        plain(concatenated, o=lambda: lin(3 * STREAM, 2)), ROWS, ((3, 2),), (("o.weight", 1),)
    ),
    "branches of channels": Beside(
        plain(channels, 3, kernels, i=lambda: nn.Conv2d(3, 4, 3), o=lambda: lin(9 * 16, 2)), (2, 3, 6, 6),
        ((3, 2),), (("o.weight", 1),),
    ),
    "branches of one number": Beside(
        plain(one_by_one, 4, lambda: nn.Sequential(lin(STREAM, INNER), nn.ReLU(), lin(INNER, 1)),
              o=lambda: lin(4, 2)), ROWS, ((4, 1),), (("o.weight", 1),),
    ),
    "branches of one number, in whole slices": Beside(
        plain(in_whole_slices, 4, lambda: nn.Sequential(lin(STREAM, INNER), nn.ReLU(), lin(INNER, 1)),
              o=lambda: lin(4, 2)), ROWS, ((4, 1),), (("o.weight", 1),),
    ),
    "parts of a stream": Beside(
        plain(parts_of_stream, 2, i=lambda: lin(3, 2 * STREAM)), ROWS, ((2, 2),), (("i.weight", 0), ("i.bias", 0))
    ),
    "gates for channels": Beside(
        plain(gates_for_channels, gate=lambda: lin(STREAM, 3 * STREAM)), ROWS, ((3, 1),),
        (("gate.weight", 0), ("gate.bias", 0)),
    ),
    "heads as modules": Beside(
        plain(heads_concatenated, 3, head, o=lambda: lin(12, 2)), (2, 4, STREAM), ((3, 2),), (("o.weight", 1),)
    ),
    "heads with projections": Beside(plain(heads_projected, 3, head), (2, 4, STREAM), ((3, 2),)),
    "two factors": Beside(
        lambda: Calls(lambda m, x: m.o(m.a(x) * m.b(x)), a=lin(3, INNER), b=lin(3, INNER), o=lin(INNER, 2)),
        ROWS, ((2, 0),),
    ),
    # What looks alike and may not be exchanged.
    "unequal activations": Beside(plain(unequal, 2), ROWS, ()),
    "unequal weights": Beside(plain(counted), ROWS, ()),
    "parts of the input": Beside(plain(parts_of_input, 2), (8, 2 * STREAM), ()),
    "branches handed out": Beside(plain(handed_out), ROWS, ()),
    "a router that is handed out": Beside(routed(router_told), ROWS, ()),
    "one after the other": Beside(plain(one_after_the_other), ROWS, ()),
}  # fmt: skip
