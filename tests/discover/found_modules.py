"""Modules of the zoo that stand for what architectures of other people do: each lost freedom, or was refused, once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, lin, linears, normal
from torch import Tensor, nn


def padded_in_time(m: Any, x: Tensor) -> Tensor:
    """Each token beside its neighbours; zeros where there is none."""
    e = m.i(x)
    before, after = F.pad(e[:, :-1], [0, 0, 1, 0]), F.pad(e[:, 1:], [0, 0, 0, 1])
    return m.o(torch.relu(m.a(torch.cat([before, e, after], 2))))


def drawn_out(m: Any, x: Tensor) -> Tensor:
    """Each token becomes two, and zeros fill the rest: units lie in turns along time."""
    e = F.pad(m.i(x).reshape(len(x), -1, 6), [0, 0, 0, 3])
    return m.o(torch.relu(e))


def token_beside_chosen(m: Any, x: Tensor) -> Tensor:
    """A token of its own beside the patches that a random mask leaves, as masked autoencoders have."""
    patches = m.i(x) + m.places[:, 1:]
    kept = torch.rand(x.shape[:2]).argsort(1)[:, :2, None].expand(-1, -1, 6)
    tokens = torch.cat([(m.token + m.places[:, :1]).expand(len(x), -1, -1), patches.gather(1, kept)], 1)
    return m.o(m.n(tokens).mean(1))


def mask_filled_by_hand(m: Any, x: Tensor) -> Tensor:
    """Who may look at whom is written region by region into one tensor, as shifted windows do."""
    b, t, _ = x.shape
    region = x.new_zeros((t,))
    for number, part in enumerate((slice(0, 2), slice(2, 3), slice(3, t))):
        region[part] = number
    mask = (region[:, None] != region[None]).to(x) * -100.0
    q, k, v = (part(x).view(b, t, 2, 4).transpose(1, 2) for part in (m.q, m.k, m.v))
    return m.o(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, t, 8))


def turned_as_complex(m: Any, x: Tensor) -> Tensor:
    """Rotary embeddings by complex numbers, with grouped queries."""
    b, t, _ = x.shape
    angle = torch.arange(t)[:, None] / 100 ** (torch.arange(3) / 3)
    turn = torch.polar(torch.ones_like(angle), angle)

    def turned(z: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(z.unflatten(-1, (-1, 2))) * turn[:, None]).flatten(3)

    q, k = (turned(p(x).view(b, t, h, 6)).transpose(1, 2) for p, h in ((m.q, 4), (m.k, 2)))
    v = m.v(x).view(b, t, 2, 5).transpose(1, 2)
    return m.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).reshape(b, t, 20))


def placed_queries(m: Any, x: Tensor) -> Tensor:
    """Biases for each head and channel in one matrix meet queries that are rows of one matrix."""
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, 2, 4) for part in (m.q, m.k, m.v))
    scores = torch.einsum("bthd,bshd->bhts", q + m.here, k) + torch.einsum("bthd,bshd->bhts", q + m.there, k).tril()
    return m.o(torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).flatten(2))


def heads_convolved(m: Any, x: Tensor) -> Tensor:
    """A kernel of one along the channels of each head, groups are the heads."""
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, 2, 4).transpose(1, 2) for part in (m.q, m.k, m.v))
    return m.o((F.scaled_dot_product_attention(q, k, v) + m.c(v)).transpose(1, 2).reshape(b, t, 8))


def heads_as_examples(m: Any, x: Tensor) -> Tensor:
    """All heads go through one convolution, as if they were further examples."""
    b, t, _ = x.shape
    made = F.relu(m.c(m.v(x).view(b, t, 2, 4).permute(0, 2, 3, 1).reshape(b * 2, 4, t)))
    return m.o(made.view(b, 2, 4, t).permute(0, 3, 1, 2).reshape(b, t, 8))


def rare_operations(m: Any, x: Tensor) -> Tensor:
    """Operations without a rule of their own are what PyTorch makes them of."""
    h = torch.multiply(F.logsigmoid(m.a(x)), m.b(x).absolute())
    return m.o(torch.tensordot(F.hardshrink(h), torch.special.logit(torch.sigmoid(m.w)), 1))


def experts_scaled_before(m: Any, x: Tensor) -> Tensor:
    """Every expert reads the stream scaled by its gate, in two layers on one stream."""
    y = m.i(x)
    for router, into, out in ((m.r1, m.a1, m.b1), (m.r2, m.a2, m.b2)):
        scores, which = router(y).topk(2, 1)
        gates = torch.full((len(x), 3), -torch.inf).scatter(1, which, scores).sigmoid().T
        given = (y.repeat(3, 1) * gates.reshape(-1, 1)).view(3, -1, 5)
        first, second = torch.bmm(given, into).chunk(2, -1)
        y = y + torch.bmm(F.silu(first) * second, out).sum(0)
    return m.o(y)


def chosen_twice(m: Any, x: Tensor) -> Tensor:
    """The second expert is the best of those that are left."""
    scores = m.router(x)
    first = scores.max(-1, keepdim=True)[1]
    second = scores.scatter(-1, first, -torch.inf).max(-1, keepdim=True)[1]
    which = torch.cat([first, second], -1)
    weights = torch.softmax(scores, -1).gather(-1, which)
    hidden = torch.relu(torch.einsum("ti,tkih->tkh", x, m.a[which]))
    return (torch.einsum("tkh,tkho->tko", hidden, m.b[which]) * weights[..., None]).sum(1)


def attending(function: Any, **further: Any) -> Calls:
    return Calls(function, **linears(q=(6, 8), k=(6, 8), v=(6, 8), o=(8, 3)), **further)


FOUND: dict[str, Case] = {
    "padded in time": Case(
        lambda: Calls(padded_in_time, **linears(i=(5, 6), a=(18, 7), o=(7, 3))), ((2, 4, 5),), (6, 7)
    ),
    "padded on one side": Case(
        lambda: Calls(
            lambda m, x: m.o(F.relu(m.b(F.pad(F.relu(m.a(x)), (0, 1, 0, 1))))),
            a=nn.Conv2d(3, 6, 1),
            b=nn.Conv2d(6, 6, 2, groups=6),
            o=nn.Conv2d(6, 2, 1),
        ),
        ((2, 3, 5, 5),),
        (6,),
    ),
    "drawn out in time": Case(lambda: Calls(drawn_out, **linears(i=(5, 12), o=(6, 3))), ((2, 4, 5),), (6,)),
    "a token beside chosen patches": Case(
        lambda: Calls(
            token_beside_chosen,
            places=normal(1, 5, 6),
            token=normal(1, 1, 6),
            n=nn.LayerNorm(6),
            **linears(i=(5, 6), o=(6, 3)),
        ),
        ((2, 4, 5),),
        (6,),
    ),
    "a mask filled by hand": Case(lambda: attending(mask_filled_by_hand), ((2, 5, 6),), (2, 4, 4, 4, 4)),
    "turned as complex numbers": Case(
        lambda: Calls(turned_as_complex, **linears(q=(6, 24), k=(6, 12), v=(6, 10), o=(20, 3))),
        ((2, 4, 6),),
        (2, 2, 2, 5, 5),
    ),
    "queries with places": Case(
        lambda: attending(placed_queries, here=normal(2, 4), there=normal(2, 4)), ((2, 5, 6),), (2, 4, 4, 4, 4)
    ),
    "heads are convolved": Case(
        lambda: attending(heads_convolved, c=nn.Conv2d(2, 2, (3, 1), padding=(1, 0), groups=2)),
        ((2, 5, 6),),
        (2, 4, 4, 4, 4),
    ),
    # The kernel is the same for both heads: its channels are common to them.
    "heads are examples": Case(
        lambda: Calls(heads_as_examples, c=nn.Conv1d(4, 4, 3, padding=1), **linears(v=(6, 8), o=(8, 3))),
        ((3, 5, 6),),
        (2, 4, 4),
    ),
    "rare operations": Case(
        lambda: Calls(rare_operations, w=normal(6, 4), **linears(a=(5, 6), b=(5, 6), o=(4, 2))), ((2, 5),), (4, 6)
    ),
    "experts scaled before": Case(
        lambda: Calls(
            experts_scaled_before,
            **linears(i=(5, 5), o=(5, 2), r1=(5, 3), r2=(5, 3)),
            **{name: normal(3, 5, 8) for name in ("a1", "a2")},
            **{name: normal(3, 4, 5) for name in ("b1", "b2")},
        ),
        ((7, 5),),
        (5, 3, 3, 4, 4, 4, 4, 4, 4),
    ),
    "experts chosen twice": Case(
        lambda: Calls(chosen_twice, router=lin(5, 3), a=normal(3, 5, 4), b=normal(3, 4, 2)), ((6, 5),), (3, 4, 4, 4)
    ),
}
