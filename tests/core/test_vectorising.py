"""Attention of many networks at once: in plain products, with torch's own result."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from isthmus.core.network import Network
from isthmus.core.vectorising import attention


class Attending(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.inner, self.causal = nn.Linear(4, 12), causal

    def forward(self, inputs):
        query, key, value = self.inner(inputs).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4).unbind(0)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


def parts(places=5, seen=7):
    draw = torch.Generator().manual_seed(0)
    shapes = [(3, 2, places, 4), (3, 2, seen, 4), (3, 2, seen, 4)]
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("asked", [{}, {"is_causal": True}, {"scale": 0.3}, {"is_causal": True, "scale": 2.0}])
@pytest.mark.parametrize("seen", [5, 7])
def test_products_are_torchs_attention(asked, seen):
    given = parts(seen=seen)
    torch.testing.assert_close(attention(*given, **asked), functional.scaled_dot_product_attention(*given, **asked))


def test_a_mask_is_left_to_torch():
    given, mask = parts(), torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(attention(*given, mask), functional.scaled_dot_product_attention(*given, mask))


@pytest.mark.parametrize("causal", [False, True])
def test_many_networks_attend_at_once(causal):
    modules = [Attending(causal).double() for _ in range(3)]
    inputs = torch.randn(6, 5, 4, dtype=torch.float64)
    stacked = {name: torch.stack([one.state_dict()[name] for one in modules]) for name in modules[0].state_dict()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, where it goes through the networks one after the other
        found = Network.of(modules[0]).many(stacked, inputs)
    torch.testing.assert_close(found, torch.stack([one(inputs) for one in modules]))
