"""A zoo of small modules, one difficulty each, with the sizes of their groups worked out by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, lin, normal
from torch import Tensor, nn


def shuffled(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    n, c, h, w = x.shape
    return m.b(x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w))


def tied_vocabulary(m: Any, x: Tensor) -> Tensor:
    return F.linear(torch.relu(m.hidden(m.table(x))), m.table.weight)


def shared_layer() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 2))


def heads_by_einsum(m: Any, x: Tensor) -> Tensor:
    q, k, v = (torch.einsum("bti,ihd->bthd", x, w) for w in (m.q, m.k, m.v))
    weights = torch.softmax(torch.einsum("bthd,bshd->bhts", q, k), -1)
    return torch.einsum("bthd,hdo->bto", torch.einsum("bhts,bshd->bthd", weights, v), m.o)


def grouped_queries(m: Any, x: Tensor) -> Tensor:
    b, t, _ = x.shape
    q = m.q(x).view(b, t, 4, 3).transpose(1, 2)
    k, v = m.k(x).view(b, t, 2, 3).transpose(1, 2), m.v(x).view(b, t, 2, 5).transpose(1, 2)
    return m.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).reshape(b, t, 20))


def rotary(m: Any, x: Tensor) -> Tensor:
    b, t, _ = x.shape
    angle = torch.arange(t)[:, None] / 100 ** (torch.arange(3) / 3)
    angle = torch.cat([angle, angle], -1)

    def turned(z: Tensor) -> Tensor:
        return z * angle.cos() + torch.cat([-z[..., 3:], z[..., :3]], -1) * angle.sin()

    q, k = (turned(part(x).view(b, t, 2, 6).transpose(1, 2)) for part in (m.q, m.k))
    v = m.v(x).view(b, t, 2, 5).transpose(1, 2)
    return m.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, 10))


def normed_queries(m: Any, x: Tensor) -> Tensor:
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, 2, 4).transpose(1, 2) for part in (m.q, m.k, m.v))
    return m.o(F.scaled_dot_product_attention(m.qn(q), m.kn(k), v).transpose(1, 2).reshape(b, t, 8))


def mixer(m: Any, x: Tensor) -> Tensor:
    return m.o((x + m.b(F.gelu(m.a(x.mT))).mT).mean(1))


def squeeze_excite(m: Any, x: Tensor) -> Tensor:
    x = m.c(x)
    return m.o(x * torch.sigmoid(m.e(torch.relu(m.d(x.mean((2, 3), keepdim=True))))))


def half_scaled(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    z[:, :3].mul_(2.0)
    return m.b(z)


def layer_scaled(m: Any, x: Tensor) -> Tensor:
    x = m.into(x)
    return m.out(x + m.gamma * m.block(F.layer_norm(x, (6,))))


CASES: dict[str, Case] = {
    "residual": Case(
        lambda: Calls(
            lambda m, x: m.o((h := m.i(x)) + m.b(torch.relu(m.a(h)))),
            i=lin(5, 6),
            a=lin(6, 7),
            b=lin(7, 6),
            o=lin(6, 2),
        ),
        ((2, 5),),
        (6, 7),
    ),
    "lstm": Case(
        lambda: Calls(
            lambda m, x: m.o(m.l(x)[0]), l=nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True), o=lin(12, 3)
        ),
        ((2, 4, 5),),
        (6, 6, 6, 6),
    ),
    "lstm with projection": Case(
        lambda: Calls(lambda m, x: m.o(m.l(x)[1][0][-1]), l=nn.LSTM(5, 6, batch_first=True, proj_size=4), o=lin(4, 3)),
        ((2, 4, 5),),
        (4, 6),
    ),
    "gru": Case(
        lambda: Calls(lambda m, x: m.o(m.l(x)[0][:, -1]), l=nn.GRU(5, 6, 2, batch_first=True), o=lin(6, 3)),
        ((2, 4, 5),),
        (6, 6),
    ),
    "rnn": Case(lambda: Calls(lambda m, x: m.o(m.l(x)[1][-1]), l=nn.RNN(5, 6), o=lin(6, 3)), ((4, 2, 5),), (6,)),
    "grouped convolution": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 4, 1)
        ),
        ((2, 3, 8, 8),),
        (3, 4, 4, 4, 4, 4, 4),
    ),
    "group norm": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 4, 1)),
        ((2, 3, 8, 8),),
        (3, 4, 4, 4),
    ),
    "depthwise with multiplier": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 4, 1)
        ),
        ((2, 3, 8, 8),),
        (4, 2, 2, 2, 2),
    ),
    "transposed convolution": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1)
        ),
        ((2, 3, 8, 8),),
        (2, 3, 3, 4, 4),
    ),
    "three dimensions": Case(
        lambda: nn.Sequential(
            nn.Conv3d(2, 6, 2), nn.BatchNorm3d(6), nn.ELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), lin(6, 2)
        ),
        ((2, 2, 4, 4, 4),),
        (6,),
    ),
    "pixel shuffle": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(3, 4, 1)),
        ((2, 3, 8, 8),),
        (3,),
    ),
    "shuffle": Case(lambda: Calls(shuffled, a=nn.Conv2d(3, 12, 1), b=nn.Conv2d(12, 2, 1)), ((2, 3, 4, 4),), (12,)),
    "bilinear": Case(
        lambda: Calls(
            lambda m, x: m.o(m.b(m.l(x), m.r(x))), l=lin(5, 6), r=lin(5, 7), b=nn.Bilinear(6, 7, 8), o=lin(8, 2)
        ),
        ((2, 5),),
        (6, 7, 8),
    ),
    "gated": Case(lambda: nn.Sequential(lin(5, 12), nn.GLU(), lin(6, 2)), ((2, 5),), (6,)),
    "tied vocabulary": Case(
        lambda: Calls(tied_vocabulary, table=nn.Embedding(11, 6), hidden=lin(6, 6)), ((2, 4),), (6,), integers=True
    ),
    "embedding": Case(lambda: nn.Sequential(nn.Embedding(11, 6), lin(6, 2)), ((2, 4),), (6,), integers=True),
    "normed weights": Case(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(lin(5, 6)),
            nn.ReLU(),
            nn.utils.parametrizations.spectral_norm(lin(6, 7)),
            nn.Tanh(),
            lin(7, 2),
        ),
        ((2, 5),),
        (6, 7),
    ),
    "shared layer": Case(shared_layer, ((2, 5),), (6,)),
    "heads by einsum": Case(
        lambda: Calls(heads_by_einsum, q=normal(5, 2, 4), k=normal(5, 2, 4), v=normal(5, 2, 3), o=normal(2, 3, 6)),
        ((2, 4, 5),),
        (2, 3, 3, 4, 4),
    ),
    # Two key-value heads; in each: two query heads, three channels that they share with the key, five value channels.
    "grouped queries": Case(
        lambda: Calls(grouped_queries, q=lin(6, 12), k=lin(6, 6), v=lin(6, 10), o=lin(20, 3)),
        ((2, 4, 6),),
        (2, 2, 2, 3, 3, 5, 5),
    ),
    # Every frequency turns its own pair of channels: nothing is left to permute between query and key.
    "rotary": Case(
        lambda: Calls(rotary, q=lin(6, 12), k=lin(6, 12), v=lin(6, 10), o=lin(10, 3)), ((2, 4, 6),), (2, 5, 5)
    ),
    # The gain of a norm over a head's channels is shared by all heads: so is the order of these channels.
    "normed queries": Case(
        lambda: Calls(
            normed_queries, q=lin(6, 8), k=lin(6, 8), v=lin(6, 8), o=lin(8, 3), qn=nn.RMSNorm(4), kn=nn.RMSNorm(4)
        ),
        ((2, 3, 6),),
        (2, 4, 4, 4),
    ),
    "padded channels": Case(
        lambda: Calls(lambda m, x: m.b(F.pad(m.a(x), (0, 2)) + m.c(x)), a=lin(5, 4), c=lin(5, 6), b=lin(6, 2)),
        ((2, 5),),
        (2, 4),
    ),
    "rolled": Case(
        lambda: Calls(lambda m, x: m.b(torch.roll(m.a(x), 1, -1) * m.c(x)), a=lin(5, 6), c=lin(5, 6), b=lin(6, 2)),
        ((2, 5),),
        (6,),
    ),
    "instance norm": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.InstanceNorm2d(6, affine=True),
            nn.PReLU(6),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(6, 2, 1),
        ),
        ((2, 3, 6, 6),),
        (6,),
    ),
    "rms norm": Case(lambda: nn.Sequential(lin(5, 6), nn.RMSNorm(6), nn.SiLU(), lin(6, 2)), ((2, 5),), (6,)),
    "mixer": Case(lambda: Calls(mixer, a=lin(4, 8), b=lin(8, 4), o=lin(5, 3)), ((2, 4, 5),), (8,)),
    "softmax over channels": Case(lambda: nn.Sequential(lin(5, 6), nn.Softmax(-1), lin(6, 2)), ((2, 5),), (6,)),
    "squeeze and excite": Case(
        lambda: Calls(
            squeeze_excite, c=nn.Conv2d(3, 8, 3), d=nn.Conv2d(8, 2, 1), e=nn.Conv2d(2, 8, 1), o=nn.Conv2d(8, 2, 1)
        ),
        ((2, 3, 6, 6),),
        (2, 8),
    ),
    "outputs of all kinds": Case(
        lambda: Calls(lambda m, x: {"y": m.b(torch.relu(m.a(x))), "n": (x.sum(),)}, a=lin(5, 6), b=lin(6, 2)),
        ((2, 5),),
        (6,),
    ),
    "written into a view": Case(lambda: Calls(half_scaled, a=lin(5, 6), b=lin(6, 2)), ((2, 5),), (3, 3)),
    "layer scale": Case(
        lambda: Calls(layer_scaled, into=lin(5, 6), out=lin(6, 2), gamma=normal(6), block=lin(6, 6)), ((2, 5),), (6,)
    ),
    "running sum over channels": Case(
        lambda: Calls(lambda m, x: m.b(m.a(x).cumsum(-1)), a=lin(5, 6), b=lin(6, 2)), ((2, 5),), ()
    ),
    "hidden units are the output": Case(lambda: nn.Sequential(lin(5, 6), nn.ReLU()), ((2, 5),), ()),
    "transformer": Case(
        lambda: nn.Transformer(8, 2, 1, 1, 12, batch_first=True),
        ((2, 4, 8), (2, 3, 8)),
        (12, 12, *(3 * (2, 4, 4, 4, 4))),
    ),
    "concatenated branches": Case(
        lambda: Calls(
            lambda m, x: m.o(torch.cat([m.a(x), m.b(x).relu()], 1)),
            a=nn.Conv2d(3, 4, 1),
            b=nn.Conv2d(3, 5, 1),
            o=nn.Conv2d(9, 2, 1),
        ),
        ((2, 3, 4, 4),),
        (4, 5),
    ),
    "two inputs": Case(
        lambda: Calls(lambda m, x, y: m.o(m.a(x) * torch.sigmoid(m.b(y))), a=lin(5, 6), b=lin(4, 6), o=lin(6, 2)),
        ((2, 5), (2, 4)),
        (6,),
    ),
}
