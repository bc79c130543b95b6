"""Modular networks: receptive fields, links, growth, and the symmetry between their units."""

import math

import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.discover import discover
from isthmus.zoo.modular import Modular, grown
from isthmus.zoo.networks import network


def modular(**settings):
    return network("modular", inputs=(1, 8, 8), width=6, **settings)


def test_a_block_sees_its_window_and_its_links_only():
    module = modular(links=0).double()
    images = torch.randn(100, 1, 8, 8, dtype=torch.float64, requires_grad=True)  # one alone may leave all units silent
    [hidden] = module.blocks[3](images, [])[:1]
    hidden.sum().backward()
    seen = (images.grad[:, 0] != 0).any(0)
    assert bool(seen[3:, 3:].all())  # the last quarter and one pixel of overlap
    assert int(seen.sum()) == 25


def test_units_of_different_blocks_and_linked_ones_stay_apart():
    found = discover(modular(blocks=3, links=2), torch.zeros(2, 1, 8, 8))
    # First layers of blocks 0 and 1: two units are heard by the next block, four are not. Top layers are heard by none.
    assert sorted(group.size for group in found.groups) == [2, 2, 4, 4, 6, 6, 6, 6]
    assert found.log10_size < math.lgamma(19) / math.log(10) * 2


def test_growing_keeps_the_function_and_gives_the_new_block_a_gradient():
    small = modular(blocks=2).double()
    large = grown(small, generator=torch.Generator().manual_seed(1))
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(large(images), small(images), rtol=1e-12, atol=1e-12)
    assert len(large.blocks) == 3
    large(images).square().sum().backward()
    assert float(large.head.weight.grad[:, -6:].abs().sum()) > 0
    with pytest.raises(SettingError, match="window without a block"):
        grown(modular(), generator=torch.Generator())


@pytest.mark.parametrize(
    "settings", [{"grid": 0}, {"links": 7}, {"blocks": 5}, {"grid": 9}, {"overlap": -1}, {"inputs": (64,)}]
)
def test_refusals(settings):
    with pytest.raises(SettingError, match="must"):
        Modular(**{"inputs": (1, 8, 8), "width": 6, **settings})
