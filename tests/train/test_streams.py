"""Hashed random numbers: the published generator, uniform, and independent of what else is drawn."""

import pytest
import torch

from isthmus.train import streams
from isthmus.train.streams import draw, orders


def splitmix64(seed: int, count: int) -> list[int]:
    """The generator as published, in Python's own integers."""
    mask, numbers = (1 << 64) - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


@pytest.mark.parametrize("seed", [0, 1, 2**62 + 12345, 1234567])
def test_draws_are_the_published_generators(seed):
    assert draw([seed], 20)[0].tolist() == [number >> 1 for number in splitmix64(seed, 20)]


def test_the_published_first_number():
    # The reference implementation's first output for seed 0, as it is quoted everywhere.
    assert splitmix64(0, 1) == [0xE220A8397B1DCDAF]


def test_a_stream_does_not_depend_on_its_neighbours():
    assert torch.equal(draw([5, 6, 7], 10)[1], draw([6], 10)[0])
    assert torch.equal(draw([6], 30)[0, :10], draw([6], 10)[0])


def test_orders_are_permutations_and_uniform():
    found = orders(list(range(6000)), 3)
    assert torch.equal(found.sort(1).values, torch.arange(3).expand(6000, 3))
    counts = torch.bincount((found * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    counts = counts[counts > 0]
    assert len(counts) == 6
    # Chi-square with five degrees of freedom: 20.5 is exceeded with probability .001.
    assert float(((counts - 1000) ** 2 / 1000.0).sum()) < 20.5


def test_equal_numbers_keep_their_places(monkeypatch):
    """As on any other device; a sorting that is free to exchange them would make orders depend on the machine."""
    numbers = torch.tensor([[3, 1, 2] * 100, list(range(300))])
    monkeypatch.setattr(streams, "draw", lambda seeds, count, device="cpu": numbers)
    wanted = [*range(1, 300, 3), *range(2, 300, 3), *range(0, 300, 3)]
    assert orders([0, 1], 300).tolist() == [wanted, list(range(300))]
