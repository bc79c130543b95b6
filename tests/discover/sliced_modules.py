"""Small modules whose tables are read slice by slice, and whose windows are spread, pooled and put together again.

The sizes of their groups were worked out by hand; automorphisms of Hessians at points that all permutations of
entries within a tensor keep gave the same numbers where derivatives exist.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, lin, linears, normal
from torch import Tensor, nn


def layers_in_one_table(m: Any, x: Tensor) -> Tensor:
    """Weights of all layers in one tensor, as a loop over layers or a scan keeps them."""
    h = m.i(x)
    for weight, bias in zip(m.w, m.b, strict=True):
        h = torch.tanh(h @ weight + bias)
    return m.o(h)


def blocks_in_one_table(m: Any, x: Tensor) -> Tensor:
    h = m.i(x)
    for layer in range(2):
        h = h + torch.tanh(h @ m.w[layer] + m.b[layer]) @ m.v[layer]
    return m.o(h)


def gains_in_one_table(m: Any, x: Tensor) -> Tensor:
    return m.o(torch.tanh(m.b(torch.tanh(m.a(x)) * m.t[0] + m.t[1])) * m.t[2] + m.t[3])


def thresholds_of_each(m: Any, x: Tensor) -> Tensor:
    """Each unit is compared with four thresholds of its own: these are units inside it."""
    return m.o(torch.sigmoid(torch.tanh(m.a(x))[:, :, None] - m.t).sum(-1))


def product_codes(m: Any, x: Tensor) -> Tensor:
    """Two codebooks, each for its own half of the channels."""
    half = m.i(x).view(-1, 2, 3)
    apart = (half[:, :, None] - m.codes).square().sum(-1)
    return m.o(torch.einsum("bgk,gkd->bgd", torch.softmax(-apart, -1), m.codes).flatten(1))


def words_by_convolution(m: Any, x: Tensor) -> Tensor:
    """Kernels that cover a whole embedding, for two lengths of words."""
    image = m.e(x)[:, None]
    return m.o(torch.cat([F.relu(part(image)).squeeze(3).amax(2) for part in (m.two, m.three)], 1))


def picture_of_a_code(m: Any, x: Tensor) -> Tensor:
    """A dense layer's rows seen as small images, which are enlarged: each channel is a unit of four rows."""
    small = F.relu(m.a(x)).view(-1, 5, 2, 2)
    return m.c(F.relu(m.b(F.interpolate(small, scale_factor=2, mode="bilinear"))))


def patches_put_together(m: Any, x: Tensor) -> Tensor:
    """A token's channels, as patches of an image, overlapping ones added up."""
    return m.o(F.relu(F.fold(m.a(x).mT, (4, 4), 2)))


def back_to_where_they_were(m: Any, x: Tensor) -> Tensor:
    pooled, places = F.max_pool2d(m.a(x), 2, return_indices=True)
    return m.o(F.max_unpool2d(torch.tanh(m.b(pooled)), places, 2))


def sums_of_both(m: Any, x: Tensor) -> Tensor:
    """Sums that bring units together with others each time: of each, one unit as it is and two bent, or reverse."""
    h = torch.tanh(m.a(x))
    return m.o(torch.tanh(torch.cat([h, torch.tanh(2 * h)], 1).reshape(-1, 3, 4).sum(1) + m.p))


class Rounded(nn.Module):
    """A linear layer that holds its weight as integers of one byte, and their scale."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-128, 128, (outward, inward), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(outward))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype)) * self.scale


SLICED: dict[str, Case] = {
    "layers in one table": Case(
        lambda: Calls(layers_in_one_table, w=normal(3, 4, 4), b=normal(3, 4), **linears(i=(5, 4), o=(4, 2))),
        ((2, 5),),
        (4, 4, 4, 4),
    ),
    "blocks in one table": Case(
        lambda: Calls(
            blocks_in_one_table, w=normal(2, 4, 5), b=normal(2, 5), v=normal(2, 5, 4), **linears(i=(5, 4), o=(4, 2))
        ),
        ((2, 5),),
        (4, 5, 5),
    ),
    "gains in one table": Case(
        lambda: Calls(gains_in_one_table, t=normal(4, 6), **linears(a=(5, 6), b=(6, 6), o=(6, 2))), ((2, 5),), (6, 6)
    ),
    "thresholds of each": Case(
        lambda: Calls(thresholds_of_each, t=normal(3, 4), **linears(a=(5, 3), o=(3, 2))), ((2, 5),), (3, 4, 4, 4)
    ),
    "product codes": Case(
        lambda: Calls(product_codes, codes=normal(2, 4, 3), **linears(i=(5, 6), o=(6, 2))), ((2, 5),), (2, 3, 3, 4, 4)
    ),
    "words by convolution": Case(
        lambda: Calls(
            words_by_convolution,
            e=nn.Embedding(11, 6),
            two=nn.Conv2d(1, 3, (2, 6)),
            three=nn.Conv2d(1, 4, (3, 6)),
            o=lin(7, 2),
        ),
        ((2, 4),),
        (3, 4, 6),
        integers=True,
    ),
    "picture of a code": Case(
        lambda: Calls(picture_of_a_code, a=lin(3, 20), b=nn.Conv2d(5, 6, 3), c=nn.Conv2d(6, 2, 1)), ((2, 3),), (5, 6)
    ),
    "patches put together": Case(
        lambda: Calls(patches_put_together, a=lin(5, 12), o=nn.Conv2d(3, 2, 1)), ((2, 9, 5),), (3,)
    ),
    "back to where they were": Case(
        lambda: Calls(back_to_where_they_were, a=nn.Conv2d(3, 5, 1), b=nn.Conv2d(5, 5, 1), o=nn.Conv2d(5, 2, 1)),
        ((2, 3, 4, 4),),
        (5,),
    ),
    # The first and the third sum are of units 0, 2 and 4; in both of them 0 and 4 are alike, and 2 is not.
    "sums of both": Case(lambda: Calls(sums_of_both, p=normal(4), **linears(a=(3, 6), o=(4, 2))), ((2, 3),), (2, 2, 2)),
    "rounded weights": Case(
        lambda: nn.Sequential(lin(5, 6), nn.ReLU(), Rounded(6, 7), nn.ReLU(), lin(7, 2)), ((2, 5),), (6, 7)
    ),
}
