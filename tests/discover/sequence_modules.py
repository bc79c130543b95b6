"""Modules of the zoo that read sequences and sets: attentions, recurrences, state spaces, graphs, one each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, attending, lin, linears, normal
from torch import Tensor, nn


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merged(x: Tensor) -> Tensor:
    return x.transpose(-3, -2).flatten(-2)


def zeros_for_the_key(m: Any, x: Tensor) -> Tensor:
    """One projection, whose bias is put together from those of queries and values and none for keys."""
    made = F.linear(x, m.w, torch.cat([m.qb, torch.zeros_like(m.vb), m.vb]))
    q, k, v = (heads_of(part, 2) for part in made.chunk(3, -1))
    return m.o(merged(F.scaled_dot_product_attention(q, k, v)))


def turned(x: Tensor) -> Tensor:
    angle = torch.arange(x.shape[-2])[:, None] / 100 ** (torch.arange(x.shape[-1] // 2) / 3)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def latent_attention(m: Any, x: Tensor) -> Tensor:
    """Keys and values from a small latent; beside them one key with rotary channels that all heads share."""
    latent, shared = m.kv_down(x).split([5, 2], -1)
    k, v = heads_of(m.kv_up(m.kv_norm(latent)), 2).split([3, 4], -1)
    q, turning = heads_of(m.q_up(m.q_norm(m.q_down(x))), 2).split([3, 2], -1)
    q = torch.cat([q, turned(turning)], -1)
    k = torch.cat([k, turned(shared)[:, None].expand(-1, 2, -1, -1)], -1)
    return m.o(merged(F.scaled_dot_product_attention(q, k, v, is_causal=True)))


def windows(m: Any, x: Tensor) -> Tensor:
    """Each token looks at itself and its two neighbours."""
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    k, v = (F.pad(part, (0, 0, 1, 1)).unfold(2, 3, 1) for part in (k, v))
    scores = torch.einsum("bhtd,bhtdw->bhtw", q, k).softmax(-1)
    return m.o(merged(torch.einsum("bhtw,bhtdw->bhtd", scores, v)))


def linear_attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    state = torch.einsum("bhtd,bhtv->bhdv", k, v)
    return m.o(merged(torch.einsum("bhtd,bhdv->bhtv", q, state) / (q @ k.sum(2)[..., None] + 1e-6)))


def retention(m: Any, x: Tensor) -> Tensor:
    """Every head forgets at its own, fixed pace."""
    b, t, _ = x.shape
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    apart = (torch.arange(t)[:, None] - torch.arange(t)).float()
    decay = torch.where(apart >= 0, torch.tensor([0.9, 0.8])[:, None, None] ** apart, 0.0)
    made = merged(q @ k.mT * decay @ v)
    made = F.group_norm(made.reshape(b * t, -1), 2).view(b, t, -1)
    return m.o(F.silu(m.g(x)) * made)


def token_shift(m: Any, x: Tensor) -> Tensor:
    """A weighted average over time whose weights decay by channel, as in RWKV."""
    before = F.pad(x, (0, 0, 1, -1))
    k, v, r = (part(x * mix + before * (1 - mix)) for part, mix in ((m.k, m.mk), (m.v, m.mv), (m.r, m.mr)))
    decay, top, bottom, made = torch.exp(-torch.exp(m.decay)), 0.0, 0.0, []
    for t in range(x.shape[1]):
        now = torch.exp(k[:, t])
        first = torch.exp(m.first) * now
        made.append((top + first * v[:, t]) / (bottom + first))
        top, bottom = decay * top + now * v[:, t], decay * bottom + now
    return m.o(torch.sigmoid(r) * torch.stack(made, 1))


def squared_keys(m: Any, x: Tensor) -> Tensor:
    return m.o(torch.sigmoid(m.r(x)) * m.v(F.relu(m.k(x)) ** 2))


def matrix_memory(m: Any, x: Tensor) -> Tensor:
    """A matrix that remembers values by keys, with gates of the exponential kind."""
    b = len(x)
    q, k, v = m.q(x), m.k(x), m.v(x)
    i, f = torch.exp(m.gates(x)[..., :1]), torch.sigmoid(m.gates(x)[..., 1:])
    memory, norm, made = torch.zeros(b, 5, 4), torch.zeros(b, 4), []
    for t in range(x.shape[1]):
        memory = f[:, t, :, None] * memory + i[:, t, :, None] * v[:, t, :, None] * k[:, t, None]
        norm = f[:, t] * norm + i[:, t] * k[:, t]
        size = (norm * q[:, t]).sum(-1, keepdim=True).abs().clamp_min(1)
        made.append(torch.einsum("bvk,bk->bv", memory, q[:, t]) / size)
    return m.o(torch.stack(made, 1))


def recurrent_heads(m: Any, x: Tensor) -> Tensor:
    """Recurrent weights within each head only."""
    h = x.new_zeros(len(x), 2, 3)
    c = x.new_zeros(len(x), 2, 3)
    for t in range(x.shape[1]):
        gates = m.a(x[:, t]).view(-1, 4, 2, 3) + torch.einsum("bhi,hgij->bghj", h, m.r)
        i, f, z, o = gates.unbind(1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
        h = torch.sigmoid(o) * torch.tanh(c)
    return m.o(h.flatten(1))


def diagonal_states(m: Any, x: Tensor) -> Tensor:
    """A convolution as long as the sequence, made of complex exponentials: states of each channel are units."""
    u = m.i(x).mT
    t = torch.arange(x.shape[1])
    rate = torch.complex(-torch.exp(m.real), m.imaginary) * torch.exp(m.step)[:, None]
    kernel = 2 * (torch.view_as_complex(m.c)[..., None] * torch.exp(rate[..., None] * t)).real.sum(1)
    n = 2 * x.shape[1]
    made = torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(kernel, n=n), n=n)[..., : x.shape[1]]
    return m.o(F.gelu(made + u * m.d[:, None]).mT)


def state_space_heads(m: Any, x: Tensor) -> Tensor:
    """One decay for each head, input and output maps of the state shared by all heads, as in Mamba-2."""
    b, t, _ = x.shape
    z, u, into, out, step = m.i(x).split([6, 6, 4, 4, 2], -1)
    u, step = u.view(b, t, 2, 3), F.softplus(step + m.bias)
    decay = (step * -torch.exp(m.a)).cumsum(1)
    apart = torch.tril(torch.exp(decay[:, :, None] - decay[:, None]).permute(0, 3, 1, 2))
    made = torch.einsum("bhts,btn,bsn,bsh,bshp->bthp", apart, out, into, step, u) + m.d[:, None] * u
    return m.o(m.n(made.flatten(2) * F.silu(z)))


def random_features(m: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    q, k = (torch.exp(z @ m.features.T - z.square().sum(-1, keepdim=True) / 2) for z in (q, k))
    return m.o(merged(q @ (k.mT @ v) / (q @ k.sum(2)[..., None])))


def talking_heads(m: Any, x: Tensor) -> Tensor:
    q, k = heads_of(m.q(x), 2), heads_of(m.k(x), 2)
    scores = m.before((q @ k.mT).permute(0, 2, 3, 1)).softmax(2)
    return m.o(merged(m.after(scores).permute(0, 3, 1, 2) @ heads_of(m.v(x), 2)))


def learned_prefix(m: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    k, v = (torch.cat([p.expand(len(x), -1, -1, -1), z], 2) for p, z in ((m.pk, k), (m.pv, v)))
    return m.o(merged(F.scaled_dot_product_attention(q, k, v)))


def registers(m: Any, x: Tensor) -> Tensor:
    """Tokens that no place tells apart and that nobody reads in the end."""
    y = torch.cat([m.tokens.expand(len(x), -1, -1), m.i(x)], 1)
    y = y + m.at(y, y, y, need_weights=False)[0]
    return m.o(y[:, 3:])


def slots_of_memory(m: Any, x: Tensor) -> Tensor:
    return torch.softmax(m.a(x) @ m.keys.T, -1) @ m.values


def across_channels(m: Any, x: Tensor) -> Tensor:
    """Channels attend to channels: keys and values share theirs, queries have the output's."""
    q, k, v = (part(x).view(len(x), -1, 2, 3).permute(0, 2, 3, 1) for part in (m.q, m.k, m.v))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    made = (q @ k.mT * m.heat).softmax(-1) @ v
    return m.o(made.permute(0, 3, 1, 2).flatten(2))


def experts_choose(m: Any, x: Tensor) -> Tensor:
    """Experts choose tokens, and one layer later tokens are read again."""
    y = m.i(x)
    weights, token = torch.softmax(m.router(y), -1).T.topk(2, -1)
    hidden = torch.relu(torch.einsum("eci,eih->ech", y[token], m.a))
    made = torch.einsum("ech,eho->eco", hidden, m.b) * weights[..., None]
    return m.o(y + torch.zeros_like(y).index_add(0, token.reshape(-1), made.reshape(-1, 5)))


SEQUENCES: dict[str, Case] = {
    "zeros for the key": Case(
        lambda: Calls(zeros_for_the_key, w=normal(24, 6), qb=normal(8), vb=normal(8), o=lin(8, 3)),
        ((2, 5, 6),),
        (2, 4, 4, 4, 4),
    ),
    "latent attention": Case(
        lambda: Calls(
            latent_attention,
            kv_norm=nn.RMSNorm(5),
            q_norm=nn.RMSNorm(7),
            **linears(kv_down=(6, 7), kv_up=(5, 14), q_down=(6, 7), q_up=(7, 10), o=(8, 3)),
        ),
        ((2, 5, 6),),
        (2, 3, 3, 4, 4, 5, 7),
    ),
    "windows": Case(lambda: attending(windows), ((2, 5, 6),), (2, 4, 4, 4, 4)),
    "linear attention": Case(lambda: attending(linear_attention, 10), ((2, 5, 6),), (2, 4, 4, 5, 5)),
    "retention": Case(lambda: attending(retention, 10, g=lin(6, 10)), ((2, 5, 6),), (4, 4, 5, 5)),
    "token shift": Case(
        lambda: Calls(
            token_shift,
            **{name: normal(5) for name in ("mk", "mv", "mr")},
            decay=normal(6),
            first=normal(6),
            **linears(k=(5, 6), v=(5, 6), r=(5, 6), o=(6, 2)),
        ),
        ((2, 4, 5),),
        (6,),
    ),
    "squared keys": Case(
        lambda: Calls(squared_keys, **linears(k=(5, 7), v=(7, 6), r=(5, 6), o=(6, 2))), ((2, 4, 5),), (6, 7)
    ),
    "matrix memory": Case(
        lambda: Calls(matrix_memory, **linears(q=(6, 4), k=(6, 4), v=(6, 5), gates=(6, 2), o=(5, 3))),
        ((2, 3, 6),),
        (4, 5),
    ),
    "recurrent heads": Case(
        lambda: Calls(recurrent_heads, a=lin(5, 24), r=normal(2, 4, 3, 3), o=lin(6, 2)), ((2, 3, 5),), (2, 3, 3)
    ),
    "diagonal states": Case(
        lambda: Calls(
            diagonal_states,
            **{name: normal(6, 3) for name in ("real", "imaginary")},
            c=normal(6, 3, 2),
            step=normal(6),
            d=normal(6),
            **linears(i=(5, 6), o=(6, 2)),
        ),
        ((2, 8, 5),),
        (6, 3, 3, 3, 3, 3, 3),
    ),
    "state-space heads": Case(
        lambda: Calls(
            state_space_heads,
            a=normal(2),
            bias=normal(2),
            d=normal(2),
            n=nn.RMSNorm(6),
            **linears(i=(5, 22), o=(6, 2)),
        ),
        ((2, 4, 5),),
        (2, 3, 3, 4),
    ),
    "random features": Case(
        lambda: attending(random_features, 6, features=normal(5, 4)), ((2, 5, 6),), (2, 3, 3, 4, 5)
    ),
    "talking heads": Case(
        lambda: attending(talking_heads, 6, before=lin(2, 3), after=lin(3, 2)), ((2, 5, 6),), (2, 2, 3, 3, 3, 4, 4)
    ),
    "learned prefix": Case(
        lambda: attending(learned_prefix, pk=normal(1, 2, 3, 4), pv=normal(1, 2, 3, 4)),
        ((2, 5, 6),),
        # Within each head the prefixes have an order of their own.
        (2, 3, 3, 4, 4, 4, 4),
    ),
    "registers": Case(
        lambda: Calls(
            registers,
            tokens=normal(1, 3, 8),
            at=nn.MultiheadAttention(8, 2, batch_first=True),
            **linears(i=(5, 8), o=(8, 2)),
        ),
        ((2, 4, 5),),
        (2, 3, 4, 4, 4, 4, 8),
    ),
    "slots of memory": Case(
        lambda: Calls(slots_of_memory, keys=normal(7, 6), values=normal(7, 3), a=lin(5, 6)), ((2, 5),), (6, 7)
    ),
    "across channels": Case(
        lambda: Calls(across_channels, heat=normal(2, 1, 1), **linears(q=(5, 6), k=(5, 6), v=(5, 6), o=(6, 2))),
        ((2, 4, 5),),
        (2, 3, 3, 3, 3),
    ),
    "experts choose tokens": Case(
        lambda: Calls(
            experts_choose, a=normal(3, 5, 4), b=normal(3, 4, 5), **linears(i=(5, 5), router=(5, 3), o=(5, 2))
        ),
        ((6, 5),),
        (3, 4, 4, 4, 5),
    ),
}
