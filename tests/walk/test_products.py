"""Inner products of long rows against float64, and what they keep where a walker hardly moved."""

import torch
from tests.walk.small import classifier

from isthmus.walk.crowd import from_start
from isthmus.walk.ground import Ground
from isthmus.walk.products import way, with_sum


def test_blocks_add_up_to_the_float64_products():
    draw = torch.Generator().manual_seed(0)
    first, second, other = (torch.randn(3, 200_001, generator=draw) for _ in range(3))
    both = first.double() + second.double()
    square, product = with_sum(first, second, other)
    assert torch.allclose(square, both.square().sum(1), rtol=1e-6)
    bound = 1e-6 * both.norm(dim=1) * other.double().norm(dim=1)
    assert bool(((product - (both * other.double()).sum(1)).abs() < bound).all())
    along, square = way(first[0], second[0])
    step = first[0].double() - second[0].double()
    assert torch.isclose(square, step.square().sum(), rtol=1e-6)
    assert abs(float(along - step @ second[0].double())) < 1e-6 * float(step.norm() * second[0].double().norm())


def test_an_overlap_keeps_its_digits_where_the_way_is_short():
    objective = classifier()
    ground = Ground(objective, objective.network.weights)
    draw = torch.Generator().manual_seed(1)
    for length in (1e-4, 1.0, 100.0):
        places = ground.home + length * torch.randn(4, len(ground.home), generator=draw)
        overlap, distance = from_start(ground, places)
        wide, home = places.double(), ground.home.double()
        step = wide - home
        unit = wide / wide.norm(dim=1, keepdim=True)
        # 1 − cos = |u − v|²/2 for unit vectors: no digits lost.
        gap = (unit - home / home.norm()).square().sum(1) / 2
        assert torch.allclose(1 - overlap, gap, rtol=1e-4, atol=1e-15)
        assert torch.allclose(distance, step.norm(dim=1), rtol=1e-6)
