"""Modules of the zoo in which an input chooses units, and their numbers go on to something else."""

from __future__ import annotations

from typing import Any

import torch
from tests.discover.case import Calls, Case, linears, normal
from torch import Tensor


def best(m: Any, x: Tensor) -> Tensor:
    """The number of the unit of which the input has most."""
    return m.a(x).argmax(1)


def read(number: Any, rows: int = 6) -> Any:
    """A table read at what is made of the best unit's number."""
    return lambda: Calls(lambda m, x: m.o(m.t[number(best(m, x))]), t=normal(rows, 4), **linears(a=(5, 6), o=(4, 2)))


def sorted_by_expert(m: Any, x: Tensor) -> Tensor:
    """Each token's two experts, tokens brought together by expert and put back."""
    weight, which = torch.softmax(m.r(x), 1).topk(2, 1)
    flat = which.flatten()
    order = flat.argsort(stable=True)
    token, expert = order // 2, flat[order]
    hidden = torch.relu(torch.einsum("ti,tih->th", x[token], m.a[expert]))
    made = torch.einsum("th,tho->to", hidden, m.b[expert]) * weight.flatten()[order][:, None]
    return torch.zeros(len(x), 3, dtype=x.dtype).index_add(0, token, made)


def sorted_and_back(m: Any, x: Tensor) -> Tensor:
    """One expert a token; the order is undone by an order of its own."""
    which = m.r(x).argmax(1)
    order = which.argsort(stable=True)
    expert = which[order]
    hidden = torch.relu(torch.einsum("ti,tih->th", x[order], m.a[expert]))
    return torch.einsum("th,tho->to", hidden, m.b[expert])[order.argsort()]


def experts(function: Any) -> Any:
    return lambda: Calls(function, a=normal(4, 5, 7), b=normal(4, 7, 3), **linears(r=(5, 4)))


_MANY = ((24, 5),)

CHOOSING_UNITS: dict[str, Case] = {
    "rows of a table": Case(read(lambda n: n), _MANY, (4, 6)),
    "the next row of a table": Case(read(lambda n: (n + 1) % 6), _MANY, (4,)),
    "rows from the end": Case(read(lambda n: 5 - n), _MANY, (4,)),
    "a row for two units": Case(read(lambda n: n // 2, 3), _MANY, (4,)),
    "rows in order": Case(
        lambda: Calls(
            lambda m, x: m.o(m.t[m.a(x).topk(2, 1)[1].sort(1)[0]].flatten(1)),
            t=normal(6, 4),
            **linears(a=(5, 6), o=(8, 2)),
        ),
        _MANY,
        (4,),
    ),
    "written beside": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.zeros(len(x), 6).scatter(1, (m.a(x).topk(2, 1)[1] + 1) % 6, 1.0).to(x) * m.b(x)),
            **linears(a=(5, 6), b=(5, 6), o=(6, 2)),
        ),
        _MANY,
        (),
    ),
    "counted": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.zeros(6).to(x).index_add(0, best(m, x), x[:, 0])[None]),
            **linears(a=(5, 6), o=(6, 2)),
        ),
        _MANY,
        (),
    ),
    "rows of the input": Case(
        lambda: Calls(lambda m, x: m.o(x[best(m, x)]), **linears(a=(5, 6), o=(5, 2))), ((6, 5),), ()
    ),
    "numbers as numbers": Case(
        lambda: Calls(lambda m, x: m.o(torch.arange(6).to(x)[best(m, x)][:, None]), **linears(a=(5, 6), o=(1, 2))),
        _MANY,
        (),
    ),
    "drawn by weight": Case(
        lambda: Calls(
            lambda m, x: m.o(m.t[torch.multinomial(torch.softmax(m.a(x), 1), 1)[:, 0]]),
            t=normal(6, 4),
            **linears(a=(5, 6), o=(4, 2)),
        ),
        _MANY,
        (4,),
    ),
    "two experts in order": Case(experts(sorted_by_expert), ((8, 5),), (4, 7, 7, 7, 7)),
    "one expert in order": Case(experts(sorted_and_back), ((8, 5),), (4, 7, 7, 7, 7)),
}
