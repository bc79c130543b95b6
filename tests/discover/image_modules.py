"""Modules of the zoo that read images, one difficulty each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, lin, linears, normal
from torch import Tensor, nn


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


def blocks_of_whole_groups(m: Any, x: Tensor) -> Tensor:
    """Every second group gets two channels of each first group."""
    h = F.relu(m.g1(F.relu(m.a(x))))
    n, c, high, wide = h.shape
    h = h.view(n, 2, 4, high, wide).transpose(1, 2).reshape(n, c, high, wide)
    return m.o(F.relu(m.g2(h)))


def modulated(m: Any, x: Tensor, z: Tensor) -> Tensor:
    """Kernels scaled for each example, examples as groups of one convolution."""
    b = len(x)
    h = F.relu(m.a(x))
    w = m.kernel * m.style(F.relu(m.map(z)))[:, None, :, None, None]
    w = w * (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    h = F.conv2d(h.reshape(1, b * 6, *h.shape[2:]), w.reshape(b * 5, 6, 3, 3), padding=1, groups=b)
    return m.o(F.leaky_relu(h.view(b, 5, *h.shape[2:]) + m.shift[:, None, None]))


def modulation_by_condition(m: Any, x: Tensor, z: Tensor) -> Tensor:
    """A block whose norms have no gains but those that a condition gives."""
    shift, scale, gate = m.c(F.silu(m.z(z)))[:, None].chunk(3, -1)
    x = m.i(x)
    h = F.layer_norm(x, (8,)) * (1 + scale) + shift
    return m.o(x + gate * m.b(F.gelu(m.a(h))))


def recurrent_convolution(m: Any, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 6, 5, 5)
    for t in range(x.shape[1]):
        z, r = torch.sigmoid(m.gates(torch.cat([x[:, t], h], 1))).chunk(2, 1)
        h = (1 - z) * h + z * torch.tanh(m.new(torch.cat([x[:, t], r * h], 1)))
    return m.o(h)


def space_to_depth(m: Any, x: Tensor) -> Tensor:
    return m.b(F.relu(F.pixel_unshuffle(m.a(x), 2)))


def capsules(m: Any, x: Tensor) -> Tensor:
    """Routing by agreement; lengths are the answer."""
    u = m.a(x).view(-1, 4, 3)
    votes = torch.einsum("bix,ioxy->bioy", u, m.w)
    logits = torch.zeros(len(x), 4, 2)
    for _ in range(2):
        made = F.normalize((logits.softmax(-1)[..., None] * votes).sum(1), dim=-1)
        logits = logits + (votes * made[:, None]).sum(-1)
    return (logits.softmax(-1)[..., None] * votes).sum(1).norm(dim=-1)


def gate_of_skip(m: Any, x: Tensor) -> Tensor:
    skip = F.relu(m.d1(x))
    deep = F.relu(m.d2(F.avg_pool2d(skip, 2)))
    gate = torch.sigmoid(m.p(F.relu(m.g(F.interpolate(deep, scale_factor=2, mode="bilinear")) + m.s(skip))))
    return m.o(torch.cat([skip * gate, F.interpolate(deep, scale_factor=2)], 1))


def involution(m: Any, x: Tensor) -> Tensor:
    """Kernels made at each place, one for each group of channels."""
    n, _, high, wide = x.shape
    h = m.i(x)
    kernels = m.b(F.relu(m.a(x))).view(n, 2, 1, 9, high, wide)
    patches = F.unfold(h, 3, padding=1).view(n, 2, 3, 9, high, wide)
    return m.o((kernels * patches).sum(3).view(n, 6, high, wide))


def pyramid(m: Any, x: Tensor) -> list[Tensor]:
    """Lateral connections, one head for all sizes."""
    fine = F.relu(m.c1(x))
    coarse = F.relu(m.c2(fine))
    top = m.l2(coarse)
    low = m.l1(fine) + F.interpolate(top, scale_factor=2)
    return [m.head(F.relu(m.tower(part))) for part in (low, top)]


def transformed_space(m: Any, x: Tensor) -> Tensor:
    """A network says where another one looks."""
    theta = m.t(F.relu(m.l(x)).flatten(1)).view(-1, 2, 3)
    h = F.grid_sample(F.relu(m.a(x)), F.affine_grid(theta, [len(x), 6, 4, 4], align_corners=False), align_corners=False)
    return m.o(h.amax((2, 3)))


def second_order(m: Any, x: Tensor) -> Tensor:
    """Covariances of channels, flattened: both axes are the same units."""
    h = m.a(x).flatten(2)
    return m.o((h @ h.mT).flatten(1))


def groups3d(**_: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 2, groups=2),
        nn.ReLU(),
        nn.ConvTranspose3d(6, 8, 2, groups=2),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv3d(8, 8, 2, groups=8),
        nn.AdaptiveMaxPool3d(1),
        nn.Flatten(),
        lin(8, 2),
    )


def normed_kernels() -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3)),
        nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(6, 5, 3)),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(5, 4, 1), dim=1),
        nn.ReLU(),
        nn.Conv2d(4, 2, 1),
    )


IMAGES: dict[str, Case] = {
    # Whole first groups may change places, with their columns in every second group; second groups then stand still.
    "whole groups through a shuffle": Case(
        lambda: Calls(
            blocks_of_whole_groups,
            a=nn.Conv2d(3, 8, 1),
            g1=nn.Conv2d(8, 8, 1, groups=2),
            g2=nn.Conv2d(8, 8, 1, groups=2),
            o=nn.Conv2d(8, 2, 1),
        ),
        ((2, 3, 5, 5),),
        (2, 4, 4, 2, 2, 2, 2, 4, 4),
    ),
    "modulated kernels": Case(
        lambda: Calls(
            modulated,
            a=conv(3, 6),
            kernel=normal(5, 6, 3, 3),
            shift=normal(5),
            o=conv(5, 2, 1),
            **linears(map=(4, 7), style=(7, 6)),
        ),
        ((2, 3, 5, 5), (2, 4)),
        (5, 6, 7),
    ),
    "modulation by a condition": Case(
        lambda: Calls(modulation_by_condition, **linears(i=(5, 8), a=(8, 9), b=(9, 8), o=(8, 2), z=(4, 7), c=(7, 24))),
        ((2, 3, 5), (2, 4)),
        (7, 8, 9),
    ),
    "recurrent convolution": Case(
        lambda: Calls(recurrent_convolution, gates=conv(8, 12), new=conv(8, 6), o=conv(6, 2, 1)),
        ((2, 3, 2, 5, 5),),
        (6,),
    ),
    "space to depth": Case(lambda: Calls(space_to_depth, a=conv(3, 4), b=conv(16, 2)), ((2, 3, 4, 4),), (4,)),
    # That each of the two capsules has an order of its own is not found: both have one.
    "capsules": Case(lambda: Calls(capsules, w=normal(4, 2, 3, 5), a=lin(6, 12)), ((2, 6),), (4, 3, 3, 3, 3, 5)),
    "gate of a skip": Case(
        lambda: Calls(
            gate_of_skip, d1=conv(3, 4), d2=conv(4, 6), g=conv(6, 5, 1), s=conv(4, 5, 1), p=conv(5, 1, 1), o=conv(10, 2)
        ),
        ((2, 3, 8, 8),),
        (4, 5, 6),
    ),
    "involution": Case(
        lambda: Calls(involution, i=conv(3, 6, 1), a=conv(3, 5, 1), b=conv(5, 18, 1), o=conv(6, 2, 1)),
        ((2, 3, 4, 4),),
        (2, 3, 3, 5),
    ),
    "pyramid": Case(
        lambda: Calls(
            pyramid,
            c1=conv(3, 4),
            c2=conv(4, 6, 3, stride=2),
            l1=conv(4, 5, 1),
            l2=conv(6, 5, 1),
            tower=conv(5, 7),
            head=conv(7, 2, 1),
        ),
        ((2, 3, 8, 8),),
        (4, 5, 6, 7),
    ),
    "transformed space": Case(
        lambda: Calls(transformed_space, l=conv(3, 5), t=lin(80, 6), a=conv(3, 6), o=lin(6, 2)), ((2, 3, 4, 4),), (5, 6)
    ),
    # Pairs of channels are alike in both orders; that the four channels could be exchanged too is not found.
    "second order": Case(lambda: Calls(second_order, a=conv(3, 4), o=lin(16, 2)), ((2, 3, 4, 4),), (2, 2, 2, 2, 2, 2)),
    "groups in three dimensions": Case(groups3d, ((2, 2, 4, 4, 4),), (3, 3, 4, 4)),
    "normed kernels": Case(normed_kernels, ((2, 3, 6, 6),), (4, 5, 6)),
}
