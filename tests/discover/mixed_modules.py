"""Modules of the zoo that mix operators so that too large a group is tempting, with sizes worked out by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, attending, linears, normal
from torch import Tensor, nn


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


def around(n: int) -> Tensor:
    """Indices of a circulant matrix: every row and every column reads each entry once."""
    return (torch.arange(n)[:, None] - torch.arange(n)) % n


def grouped_tiled(m: Any, x: Tensor) -> Tensor:
    """Grouped queries where head h reads keys h mod 2: copies end to end instead of side by side."""
    b, t, _ = x.shape
    q = m.q(x).view(b, t, 4, 3).transpose(1, 2)
    k, v = (part(x).view(b, t, 2, n).transpose(1, 2).repeat(1, 2, 1, 1) for part, n in ((m.k, 3), (m.v, 5)))
    return m.o((torch.softmax(q @ k.mT, -1) @ v).transpose(1, 2).reshape(b, t, 20))


def heads_beside_a_ring(m: Any, x: Tensor) -> Tensor:
    """Heads lie along the examples, and a circulant table of places is added to the scores of all."""
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, 2, 4).transpose(1, 2).reshape(2 * b, t, 4) for part in (m.q, m.k, m.v))
    made = torch.softmax(q @ k.mT + m.table[around(t)], -1) @ v
    return m.o(made.view(b, 2, t, 4).transpose(1, 2).reshape(b, t, 8))


def values_of_two_heads(m: Any, x: Tensor) -> Tensor:
    """Two maps read the values of two heads side by side, one is subtracted from the other (as in DiffLlama)."""
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, 4, 2).transpose(1, 2) for part in (m.q, m.k, m.v))
    v = torch.cat(v.chunk(2, 1), -1).repeat(1, 2, 1, 1)
    one, other = (torch.softmax(q @ k.mT, -1) @ v).chunk(2, 1)
    made = one - m.share * other
    return m.o((made / made.pow(2).mean(-1, keepdim=True).sqrt()).transpose(1, 2).reshape(b, t, 8))


def masked_by_numbers(m: Any, x: Tensor) -> Tensor:
    """A mask that nobody keeps: rows that are masked alike are alike."""
    mask = torch.tensor([[1.0, 1, 0, 0, 0]] * 3 + [[1.0, 1, 1, 0, 0]] * 3)
    return m.o(F.relu(F.linear(x, m.a.weight * mask)))


class Recurrent(nn.Module):
    """Two directions, each with a projection of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.r = nn.LSTM(5, 6, batch_first=True, bidirectional=True, proj_size=3)
        self.o = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.r(x)[0])


def one_layer(function: Any, out: int = 6) -> Any:
    """A hidden layer of six units, what is done with them, and a layer that reads ``out`` numbers."""
    return lambda: Calls(lambda m, x: m.o(function(m.a(x))), **linears(a=(5, 6), o=(out, 2)))


_FIVE = ((2, 5),)
_HALVES = (torch.tensor([0, 0, 1, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1]))

MIXED: dict[str, Case] = {
    "parts in another order": Case(lambda: Calls(parts_in_another_order, **linears(a=(5, 12))), _FIVE, (3, 3, 3, 3)),
    "parts in a ring": Case(lambda: Calls(parts_in_a_ring, **linears(a=(5, 32))), _FIVE, (4, *(2,) * 16)),
    # Every row of a circulant matrix meets every entry of the vector it is made of, each in another column.
    "circulant, between": Case(
        lambda: Calls(lambda m, x: m.o(F.relu(m.i(x) @ m.c[around(6)])), c=normal(6), **linears(i=(5, 6), o=(6, 2))),
        _FIVE,
        (),
    ),
    "circulant, first": Case(
        lambda: Calls(lambda m, x: m.o(F.relu(x @ m.c[around(5)])), c=normal(5), **linears(o=(5, 2))), _FIVE, ()
    ),
    "circulant, last": Case(
        lambda: Calls(lambda m, x: F.relu(m.i(x)) @ m.c[around(6)], c=normal(6), **linears(i=(5, 6))), _FIVE, ()
    ),
    "windows around a ring": Case(
        lambda: Calls(
            lambda m, x: m.o(F.relu(F.pad(m.i(x)[:, None], (1, 1), mode="circular")[:, 0].unfold(1, 3, 1) @ m.w)),
            w=normal(3),
            **linears(i=(5, 6), o=(6, 2)),
        ),
        _FIVE,
        (),
    ),
    "turns of one row": Case(
        lambda: Calls(
            lambda m, x: m.o(F.relu((torch.stack([m.i(x).roll(k, 1) for k in range(6)], 2) * m.w).sum(2))),
            w=normal(6),
            **linears(i=(5, 6), o=(6, 2)),
        ),
        _FIVE,
        (),
    ),
    # Each unit meets both of the other side, but its own twice: only both sides together could be exchanged.
    "meeting unequally often": Case(
        lambda: Calls(
            lambda m, x: (m.a(x)[:, _HALVES[0]] * torch.tanh(m.b(x)[:, _HALVES[1]])).sum(1),
            **linears(a=(5, 2), b=(5, 2)),
        ),
        _FIVE,
        (),
    ),
    "inputs in a square": Case(
        lambda: Calls(
            lambda m, x: m.o((x[:, [0, 1, 1, 0]].view(-1, 2, 2) * m.a(x)[:, :, None]).sum(1)),
            **linears(a=(5, 2), o=(2, 3)),
        ),
        _FIVE,
        (),
    ),
    "inputs in equal rows": Case(
        lambda: Calls(
            lambda m, x: m.o((x[:, [0, 1, 0, 1]].view(-1, 2, 2) * m.a(x)[:, :, None]).sum(1)),
            **linears(a=(5, 2), o=(2, 3)),
        ),
        _FIVE,
        (2,),
    ),
    "heads beside a ring": Case(lambda: attending(heads_beside_a_ring, table=normal(5)), ((2, 5, 6),), (2, 4, 4, 4, 4)),
    "values of two heads": Case(
        lambda: attending(values_of_two_heads, share=normal(1)), ((2, 3, 6),), (2, 2, 2, 2, 2, 4, 4)
    ),
    "parts put back": Case(one_layer(lambda h: torch.cat(h.chunk(2, 1), 1)), _FIVE, (6,)),
    # The two halves are further examples of one another.
    "parts as examples": Case(one_layer(lambda h: torch.cat(h.chunk(2, 1), 0), 3), _FIVE, (3,)),
    "parts put back and read": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.cat(p := m.a(x).chunk(2, 1), 1)) + m.g(p[0]), **linears(a=(5, 6), o=(6, 2), g=(3, 2))
        ),
        _FIVE,
        (3, 3),
    ),
    # What is written into the copy is not written into what was copied: the halves are left apart.
    "parts put back and written into": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.cat((h := m.a(x)).chunk(2, 1), 1).mul_(2.0)) + m.g(h),
            **linears(a=(5, 6), o=(6, 2), g=(6, 2)),
        ),
        _FIVE,
        (3, 3),
    ),
    "masked by numbers": Case(lambda: Calls(masked_by_numbers, **linears(a=(5, 6), o=(6, 2))), _FIVE, (3, 3)),
    "transposed again": Case(
        lambda: Calls(lambda m, x: F.linear(F.relu(m.a(x)), m.a.weight.T), **linears(a=(5, 6))), _FIVE, (6,)
    ),
    "twice and transposed": Case(
        lambda: Calls(lambda m, x: F.linear(F.relu(m.a(F.relu(m.a(x)))), m.a.weight.T), **linears(a=(5, 5))), _FIVE, ()
    ),
    "added to a part": Case(
        lambda: Calls(lambda m, x: m.o((h := m.a(x))[:, :4] + m.g(h)), **linears(a=(5, 6), g=(6, 4), o=(4, 2))),
        _FIVE,
        (2, 4),
    ),
    # Channel j lies in group j // 3 of one layer and in group j // 4 of the next.
    "uneven groups": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 12, 1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 1, groups=4),
            nn.ReLU(),
            nn.Conv2d(12, 12, 1, groups=3),
            nn.ReLU(),
            nn.Conv2d(12, 2, 1),
        ),
        ((2, 3, 4, 4),),
        (3, 3, 3, 3, 3, 2, 2, 3, 4, 4, 4),
    ),
    "sums along channels": Case(one_layer(lambda h: h.cumsum(1)), _FIVE, ()),
    "largest values": Case(one_layer(lambda h: h.topk(3, 1)[0], 3), _FIVE, (6,)),
    "sorted in pairs": Case(one_layer(lambda h: h.view(-1, 3, 2).sort(-1)[0].reshape(-1, 6)), _FIVE, (3, 2, 2, 2)),
    "share of the first": Case(
        lambda: Calls(lambda m, x: torch.softmax(m.a(x), 1)[:, 0], **linears(a=(5, 6))), _FIVE, (5,)
    ),
    "turned and met": Case(one_layer(lambda h: h * torch.tanh(h.roll(1, 1))), _FIVE, ()),
    "turned by half and met": Case(one_layer(lambda h: h * torch.tanh(h.roll(3, 1))), _FIVE, (3,)),
    "mirrored and met": Case(one_layer(lambda h: h * torch.tanh(h.flip(1))), _FIVE, (3,)),
    # 0 and 5 stay, the others go round.
    "shuffled and met": Case(
        one_layer(lambda h: h * torch.tanh(h.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6))), _FIVE, (2,)
    ),
    "gates in turn": Case(
        lambda: Calls(
            lambda m, x: m.o((h := m.a(x))[:, ::2] * torch.sigmoid(h[:, 1::2])), **linears(a=(5, 12), o=(6, 2))
        ),
        _FIVE,
        (6,),
    ),
    "normalised in part": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.cat([m.n((h := m.a(x))[:, :4]), h[:, 4:]], 1)),
            n=nn.LayerNorm(4),
            **linears(a=(5, 6), o=(6, 2)),
        ),
        _FIVE,
        (2, 4),
    ),
    # One layer norm over channels 0-3 and over 2-5: even and odd channels may be exchanged as wholes.
    "normalised in parts that overlap": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.cat([m.n((h := m.a(x))[:, :4]), m.n(h[:, 2:])], 1)),
            n=nn.LayerNorm(4),
            **linears(a=(5, 6), o=(8, 2)),
        ),
        _FIVE,
        (2,),
    ),
    "zeros beside": Case(
        lambda: Calls(lambda m, x: m.o(F.pad(m.a(x), (0, 2)) + m.g(x)), **linears(a=(5, 6), g=(5, 8), o=(8, 2))),
        _FIVE,
        (2, 6),
    ),
    "transformed along channels": Case(one_layer(lambda h: torch.fft.rfft(h, dim=1).abs(), 4), _FIVE, ()),
    "copies end to end of keys": Case(
        lambda: Calls(grouped_tiled, **linears(q=(6, 12), k=(6, 6), v=(6, 10), o=(20, 2))),
        ((2, 4, 6),),
        (2, 2, 2, 3, 3, 5, 5),
    ),
    "two directions with projections": Case(Recurrent, ((2, 4, 5),), (3, 3, 6, 6)),
    "scaled by numbers": Case(one_layer(lambda h: h * torch.tensor([1.0, 1, 2, 2, 3, 3])), _FIVE, (2, 2, 2)),
    "cross products": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.linalg.cross(m.a(x).view(-1, 2, 3), m.b(x).view(-1, 2, 3)).reshape(-1, 6)),
            **linears(a=(5, 6), b=(5, 6), o=(6, 2)),
        ),
        _FIVE,
        (2,),
    ),
    "a determinant": Case(
        lambda: Calls(lambda m, x: torch.linalg.det(m.a(x).view(-1, 3, 3)), **linears(a=(5, 9))), _FIVE, ()
    ),
    "complex weights": Case(
        lambda: Calls(
            lambda m, x: m.o((torch.tanh(x.to(torch.complex64) @ m.c) @ m.d).real.to(x.dtype)),
            c=nn.Parameter(torch.randn(5, 6, dtype=torch.complex64)),
            d=nn.Parameter(torch.randn(6, 4, dtype=torch.complex64)),
            **linears(o=(4, 2)),
        ),
        _FIVE,
        (4, 6),
    ),
    "Kronecker products": Case(
        lambda: Calls(
            lambda m, x: m.o(F.relu(F.linear(x, torch.kron(m.a, m.b)))),
            a=normal(2, 2),
            b=normal(3, 3),
            **linears(o=(6, 2)),
        ),
        ((2, 6),),
        (2, 3),
    ),
    "dropped out for good": Case(one_layer(lambda h: F.dropout(h, 0.5, training=True)), _FIVE, ()),
    "dropped out in training": Case(
        one_layer(lambda h: F.feature_alpha_dropout(h[..., None], 0.5)[..., 0]), _FIVE, (6,)
    ),
    "random slopes": Case(one_layer(lambda h: F.rrelu(h, training=True)), _FIVE, ()),
    "drawn by chance": Case(one_layer(lambda h: torch.bernoulli(torch.sigmoid(h))), _FIVE, ()),
    "noise about units": Case(one_layer(lambda h: torch.normal(h, 1.0)), _FIVE, ()),
}
