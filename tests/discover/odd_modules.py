"""More modules of the zoo: architectures that are not built of the usual blocks, one difficulty each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, attending, lin, linears, normal
from torch import Tensor, nn


def latents(m: Any, x: Tensor) -> Tensor:
    """Queries from learned latents, keys and values from the input: two streams read one projection."""
    latent, context = m.latent.expand(len(x), -1, -1), m.i(x)
    latent = latent + m.cross(latent, context, context, need_weights=False)[0]
    return m.o(latent.mean(1))


def relative_bias(m: Any, x: Tensor) -> Tensor:
    b, t, _ = x.shape
    q, k, v = (part.view(b, t, 2, 4).transpose(1, 2) for part in m.qkv(x).chunk(3, -1))
    apart = torch.arange(t)[:, None] - torch.arange(t)[None] + t - 1
    scores = q @ k.mT / 2 + m.table[apart].permute(2, 0, 1)
    return m.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, 8))


def distance_bias(m: Any, x: Tensor) -> Tensor:
    """A slope for each head, fixed: heads differ, their channels are free."""
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, 2, 4).transpose(1, 2) for part in (m.q, m.k, m.v))
    slopes = torch.tensor([0.5, 0.25])[:, None, None]
    bias = -(torch.arange(t)[:, None] - torch.arange(t)).abs() * slopes
    return m.o(F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q)).transpose(1, 2).reshape(b, t, 8))


def one_key_for_all(m: Any, x: Tensor) -> Tensor:
    b, t, _ = x.shape
    scores = torch.einsum("bthd,bsd->bhts", m.q(x).view(b, t, 4, 3), m.k(x)).softmax(-1)
    return m.o(torch.einsum("bhts,bsd->bthd", scores, m.v(x)).flatten(2))


def difference_of_attentions(m: Any, x: Tensor) -> Tensor:
    """Two maps in each head, one subtracted from the other."""
    b, t, _ = x.shape
    q, k = (part(x).view(b, t, 2, 2, 3).permute(0, 2, 3, 1, 4) for part in (m.q, m.k))
    scores = (q @ k.mT).softmax(-1)
    v = m.v(x).view(b, t, 2, 5).transpose(1, 2)
    return m.o(((scores[:, :, 0] - scores[:, :, 1] / 2) @ v).transpose(1, 2).reshape(b, t, 10))


def generated_weights(m: Any, x: Tensor, z: Tensor) -> Tensor:
    return m.o(torch.tanh(torch.einsum("bi,bio->bo", x, m.h(z).view(-1, 5, 6))))


def spatial_gate(m: Any, x: Tensor) -> Tensor:
    u, v = F.gelu(m.a(x)).chunk(2, -1)
    return m.b(u * m.s(m.n(v).mT).mT)


def selective_scan(m: Any, x: Tensor) -> Tensor:
    u, gate = m.i(x).chunk(2, -1)
    u = F.silu(m.c(u.mT)[..., : x.shape[1]].mT)
    step = F.softplus(m.step(u))
    b, c = m.bc(u).chunk(2, -1)
    decay = (step[..., None] * -torch.exp(m.a)).cumsum(1)
    state = (step[..., None] * b[:, :, None] * u[..., None] * torch.exp(-decay)).cumsum(1) * torch.exp(decay)
    return m.o(((state * c[:, :, None]).sum(-1) + u * m.d) * F.silu(gate))


def gated_by_hand(m: Any, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 6)
    for t in range(x.shape[1]):
        (r, z, n), (r2, z2, n2) = m.a(x[:, t]).chunk(3, -1), m.b(h).chunk(3, -1)
        z = torch.sigmoid(z + z2)
        h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r2) * n2) + z * h
    return m.o(h)


def bases(m: Any, x: Tensor) -> Tensor:
    """A learned function on every edge."""

    def layer(x: Tensor, c: Tensor, b: Tensor) -> Tensor:
        bumps = torch.exp(-((x[..., None] - torch.linspace(-1, 1, 4)) ** 2))
        return torch.einsum("big,oig->bo", bumps, c) + F.linear(F.silu(x), b)

    return layer(layer(x, m.c1, m.b1), m.c2, m.b2)


def graph_norm(m: Any, x: Tensor, adjacency: Tensor) -> Tensor:
    h = F.relu(adjacency @ m.l1(x))
    h = h - m.share * h.mean(0, keepdim=True)
    return m.l2(adjacency @ (h / (h.pow(2).mean(0, keepdim=True) + 1e-5).sqrt() * m.gain))


def codebook(m: Any, x: Tensor) -> Tensor:
    """The nearest code: codes are units, whichever the input chooses."""
    return m.b(m.code[torch.cdist(m.a(x), m.code).argmin(-1)])


def fourier_mixing(m: Any, x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(m.i(x), dim=1) * torch.view_as_complex(m.w)
    return m.o(torch.fft.irfft(spectrum, n=x.shape[1], dim=1))


def grouped_and_shuffled(m: Any, x: Tensor) -> Tensor:
    """Every group of the second convolution gets one channel of every group of the first."""
    h = F.relu(m.g1(F.relu(m.a(x))))
    n, c, high, wide = h.shape
    h = h.view(n, 3, c // 3, high, wide).transpose(1, 2).reshape(n, c, high, wide)
    return m.o(F.relu(m.g2(m.depth(h))))


def reversible(m: Any, x: Tensor) -> Tensor:
    a, b = m.i(x).chunk(2, -1)
    a = a + m.f(b)
    return m.o(torch.cat([a, b + m.g(a)], -1))


def u_shaped(m: Any, x: Tensor) -> Tensor:
    skip = F.relu(m.d1(x))
    deep = F.relu(m.d2(F.max_pool2d(skip, 2)))
    return m.o(F.relu(m.u(torch.cat([skip, F.interpolate(deep, scale_factor=2)], 1))))


def decoder(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(F.pixel_shuffle(m.b(F.relu(m.a(x))), 2)))


ODD: dict[str, Case] = {
    "latents": Case(
        lambda: Calls(
            latents,
            latent=normal(1, 3, 8),
            cross=nn.MultiheadAttention(8, 2, batch_first=True),
            **linears(i=(5, 8), o=(8, 2)),
        ),
        ((2, 7, 5),),
        (3, 8, 8, 2, 4, 4, 4, 4),
    ),
    "relative bias": Case(
        lambda: Calls(relative_bias, table=normal(9, 2), **linears(qkv=(6, 24), o=(8, 3))),
        ((2, 5, 6),),
        (2, 4, 4, 4, 4),
    ),
    "distance bias": Case(lambda: attending(distance_bias), ((2, 5, 6),), (4, 4, 4, 4)),
    "one key for all queries": Case(
        lambda: Calls(one_key_for_all, **linears(q=(6, 12), k=(6, 3), v=(6, 5), o=(20, 3))), ((2, 5, 6),), (3, 4, 5)
    ),
    "difference of attentions": Case(
        lambda: Calls(difference_of_attentions, **linears(q=(6, 12), k=(6, 12), v=(6, 10), o=(10, 3))),
        ((2, 5, 6),),
        (2, 3, 3, 3, 3, 5, 5),
    ),
    "generated weights": Case(
        lambda: Calls(generated_weights, h=nn.Sequential(lin(4, 7), nn.ReLU(), lin(7, 30)), o=lin(6, 2)),
        ((2, 5), (2, 4)),
        (6, 7),
    ),
    "spatial gate": Case(
        lambda: Calls(spatial_gate, n=nn.LayerNorm(6), **linears(a=(5, 12), s=(4, 4), b=(6, 2))), ((2, 4, 5),), (6,)
    ),
    "selective scan": Case(
        lambda: Calls(
            selective_scan,
            c=nn.Conv1d(6, 6, 3, padding=2, groups=6),
            step=nn.Sequential(lin(6, 2), lin(2, 6)),
            a=normal(6, 4),
            d=normal(6),
            **linears(i=(5, 12), bc=(6, 8), o=(6, 2)),
        ),
        ((2, 4, 5),),
        (2, 4, 6),
    ),
    "gates by hand": Case(lambda: Calls(gated_by_hand, **linears(a=(5, 18), b=(6, 18), o=(6, 2))), ((2, 3, 5),), (6,)),
    "bases on edges": Case(
        lambda: Calls(bases, c1=normal(6, 5, 4), b1=normal(6, 5), c2=normal(2, 6, 4), b2=normal(2, 6)), ((3, 5),), (6,)
    ),
    "graph norm": Case(
        lambda: Calls(graph_norm, share=normal(6), gain=normal(6), **linears(l1=(5, 6), l2=(6, 2))),
        ((7, 5), (7, 7)),
        (6,),
    ),
    "codebook": Case(lambda: Calls(codebook, code=normal(7, 6), **linears(a=(5, 6), b=(6, 2))), ((20, 5),), (6, 7)),
    "fourier mixing of tokens": Case(
        lambda: Calls(fourier_mixing, w=normal(3, 6, 2), **linears(i=(5, 6), o=(6, 2))), ((2, 4, 5),), (6,)
    ),
    "fourier mixing of channels": Case(
        lambda: Calls(lambda m, x: m.o(torch.fft.fft2(m.i(x)).real), **linears(i=(5, 6), o=(6, 2))), ((2, 4, 5),), ()
    ),
    # Each second group gets two channels of one first group and one of each other: these two are alike, and all that
    # lies outside. That whole groups could change places on both sides at once is not found.
    "grouped and shuffled": Case(
        lambda: Calls(
            grouped_and_shuffled,
            a=nn.Conv2d(3, 12, 1),
            g1=nn.Conv2d(12, 12, 1, groups=3),
            depth=nn.Conv2d(12, 12, 3, groups=12),
            g2=nn.Conv2d(12, 12, 1, groups=3),
            o=nn.Conv2d(12, 2, 1),
        ),
        ((2, 3, 5, 5),),
        (2, 2, 2, 4, 4, 4, 4, 4, 4),
    ),
    "part of the units read again": Case(
        lambda: Calls(lambda m, x: m.b(h := m.a(x)) + m.c(h[:, :2]), **linears(a=(5, 6), b=(6, 3), c=(2, 3))),
        ((2, 5),),
        (2, 4),
    ),
    "two overlapping parts": Case(
        lambda: Calls(lambda m, x: (m.b(m.a(x)[:, :4]), m.c(m.a(x)[:, 2:])), **linears(a=(5, 6), b=(4, 2), c=(4, 2))),
        ((2, 5),),
        (2, 2, 2),
    ),
    "largest of three": Case(
        lambda: Calls(lambda m, x: m.b(m.a(x).view(-1, 6, 3).amax(-1)), **linears(a=(5, 18), b=(6, 2))),
        ((2, 5),),
        (6, 3, 3, 3, 3, 3, 3),
    ),
    "both signs": Case(
        lambda: Calls(
            lambda m, x: m.b(torch.cat([F.relu(h := m.a(x)), F.relu(-h)], -1)), **linears(a=(5, 6), b=(12, 2))
        ),
        ((2, 5),),
        (6,),
    ),
    "reversible": Case(
        lambda: Calls(
            reversible, f=nn.Sequential(lin(4, 6), nn.ReLU(), lin(6, 4)), **linears(i=(5, 8), g=(4, 4), o=(8, 2))
        ),
        ((2, 5),),
        (4, 4, 6),
    ),
    "u-shaped": Case(
        lambda: Calls(
            u_shaped,
            d1=nn.Conv2d(3, 4, 3, padding=1),
            d2=nn.Conv2d(4, 6, 3, padding=1),
            u=nn.Conv2d(10, 5, 3, padding=1),
            o=nn.Conv2d(5, 2, 1),
        ),
        ((2, 3, 8, 8),),
        (4, 5, 6),
    ),
    "decoder": Case(
        lambda: Calls(
            decoder, a=nn.ConvTranspose2d(3, 6, 4, 2, 1), b=nn.Conv2d(6, 20, 3), c=nn.ConvTranspose2d(5, 3, 2)
        ),
        ((2, 3, 4, 4),),
        (5, 6),
    ),
}
