"""Modules of the zoo that generate, share or compress weights, one difficulty each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, lin, linears, normal
from torch import Tensor, nn


def monarch(m: Any, x: Tensor) -> Tensor:
    """Block-diagonal, transposed, block-diagonal."""
    h = m.i(x).view(-1, 2, 3)
    h = torch.einsum("bki,kij->bjk", h, m.first)
    return m.o(F.relu(torch.einsum("bjk,jkl->bjl", h, m.second).flatten(1)))


def tensor_train(m: Any, x: Tensor) -> Tensor:
    return m.o(F.relu(torch.einsum("bij,iar,rjc->bac", x.view(-1, 2, 3), m.left, m.right).flatten(1)))


def low_rank(m: Any, x: Tensor) -> Tensor:
    return m.o(torch.tanh(m.w(x) + m.b(m.a(x)) / 2))


def generator(m: Any, z: Tensor) -> Tensor:
    h = F.relu(m.n1(m.a(z).view(-1, 6, 3, 3)))
    return torch.tanh(m.c(F.relu(m.n2(m.b(h)))))


def autoencoder(m: Any, x: Tensor) -> Tensor:
    mean, spread = m.b(torch.relu(m.a(x))).chunk(2, -1)
    return m.d(torch.relu(m.c(mean + torch.randn_like(mean) * torch.exp(spread / 2))))


def autoencoder_with_moments(m: Any, x: Tensor) -> dict[str, Any]:
    mean, spread = m.b(torch.relu(m.a(x))).chunk(2, -1)
    return {"made": m.d(torch.relu(m.c(mean))), "moments": (mean, spread)}


def siamese(m: Any, x: Tensor, y: Tensor) -> Tensor:
    a, b = (m.net(part) for part in (x, y))
    return F.cosine_similarity(a, b) + m.o((a - b).abs())[:, 0] + F.pairwise_distance(a, b)


def equilibrium(m: Any, x: Tensor) -> Tensor:
    given, z = m.u(x), torch.zeros(len(x), 6)
    for _ in range(4):
        z = m.n(torch.relu(m.n2(given + m.b(torch.relu(m.a(z))))))
    return m.o(z)


def tied_decoder(m: Any, x: Tensor) -> Tensor:
    h = torch.sigmoid(F.linear(x, m.w1, m.b1))
    h2 = torch.sigmoid(F.linear(h, m.w2, m.b2))
    return F.linear(torch.sigmoid(F.linear(h2, m.w2.T, m.c2)), m.w1.T)


def quantiles(m: Any, x: Tensor) -> Tensor:
    """Sorted units and their two largest: only the set counts."""
    h = m.a(x)
    return m.o(torch.cat([h.topk(2, -1).values, h.sort(-1).values[:, :3], h.median(-1, keepdim=True).values], -1))


def ensemble_of_ranks(m: Any, x: Tensor) -> Tensor:
    """Batch-ensemble: one matrix, fast weights for each member, members averaged."""
    h = torch.relu((x[None] * m.r[:, None]) @ m.w * m.s[:, None])
    return (h @ m.v).mean(0)


def kept_top(m: Any, x: Tensor) -> Tensor:
    """A sparse autoencoder: the largest two units stay."""
    h = m.a(x)
    least = h.topk(2, -1).values[..., -1:]
    return m.b(torch.where(h >= least, h, 0.0))


def gumbel(m: Any, x: Tensor) -> Tensor:
    """Codes chosen hard, softly differentiated."""
    soft = torch.softmax(m.a(x), -1)
    hard = F.one_hot(soft.argmax(-1), 7).to(soft) - soft.detach() + soft
    return m.o(hard @ m.codes)


def coordinates(m: Any, x: Tensor) -> Tensor:
    """Random Fourier features of coordinates, then sines."""
    h = torch.cat([torch.sin(x @ m.f), torch.cos(x @ m.f)], -1)
    return m.o(torch.sin(30 * m.a(h)))


def spline_flow(m: Any, x: Tensor) -> Tensor:
    """A coupling layer: half of the input is kept, a network of that half moves the rest."""
    a, b = x.chunk(2, -1)
    scale, shift = m.b(torch.tanh(m.a(a))).chunk(2, -1)
    return torch.cat([a, b * torch.exp(scale) + shift], -1)


COMPACT: dict[str, Case] = {
    "monarch": Case(
        lambda: Calls(monarch, first=normal(2, 3, 3), second=normal(3, 2, 2), **linears(i=(5, 6), o=(6, 2))),
        ((2, 5),),
        (2, 3, 3, 3, 2, 2, 2),
    ),
    "tensor train": Case(
        lambda: Calls(tensor_train, left=normal(2, 2, 4), right=normal(4, 3, 3), o=lin(6, 2)), ((2, 6),), (2, 3, 4)
    ),
    "low rank": Case(
        lambda: Calls(low_rank, w=lin(5, 6), a=nn.Linear(5, 3, bias=False), b=nn.Linear(3, 6, bias=False), o=lin(6, 2)),
        ((2, 5),),
        (3, 6),
    ),
    "generator": Case(
        lambda: Calls(
            generator,
            a=lin(5, 54),
            n1=nn.BatchNorm2d(6),
            b=nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False),
            n2=nn.BatchNorm2d(4),
            c=nn.ConvTranspose2d(4, 3, 4, 2, 1),
        ),
        ((2, 5),),
        (4, 6),
    ),
    # The noise is that of each latent number: another order is another draw.
    "autoencoder": Case(
        lambda: Calls(autoencoder, **linears(a=(5, 7), b=(7, 8), c=(4, 6), d=(6, 5))), ((2, 5),), (6, 7)
    ),
    "autoencoder that tells its moments": Case(
        lambda: Calls(autoencoder_with_moments, **linears(a=(5, 7), b=(7, 8), c=(4, 6), d=(6, 5))), ((2, 5),), (6, 7)
    ),
    "siamese": Case(
        lambda: Calls(siamese, net=nn.Sequential(lin(5, 7), nn.ReLU(), lin(7, 6)), o=lin(6, 1)),
        ((2, 5), (2, 5)),
        (6, 7),
    ),
    "equilibrium": Case(
        lambda: Calls(
            equilibrium, n=nn.LayerNorm(6), n2=nn.LayerNorm(6), **linears(u=(5, 6), a=(6, 7), b=(7, 6), o=(6, 2))
        ),
        ((2, 5),),
        (6, 7),
    ),
    "tied decoder": Case(
        lambda: Calls(tied_decoder, w1=normal(6, 5), w2=normal(4, 6), b1=normal(6), b2=normal(4), c2=normal(6)),
        ((2, 5),),
        (4, 6),
    ),
    "quantiles": Case(lambda: Calls(quantiles, **linears(a=(5, 6), o=(6, 2))), ((2, 5),), (6,)),
    "ensemble of ranks": Case(
        lambda: Calls(ensemble_of_ranks, w=normal(5, 6), r=normal(3, 5), s=normal(3, 6), v=normal(6, 2)),
        ((2, 5),),
        (3, 6),
    ),
    "largest units kept": Case(lambda: Calls(kept_top, **linears(a=(5, 7), b=(7, 2))), ((2, 5),), (7,)),
    "codes chosen softly": Case(
        lambda: Calls(gumbel, codes=normal(7, 4), **linears(a=(5, 7), o=(4, 2))), ((9, 5),), (4, 7)
    ),
    "coordinates": Case(lambda: Calls(coordinates, f=normal(2, 6), **linears(a=(12, 5), o=(5, 3))), ((4, 2),), (5, 6)),
    "coupling": Case(lambda: Calls(spline_flow, **linears(a=(3, 6), b=(6, 6))), ((2, 6),), (6,)),
}
