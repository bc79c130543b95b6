import dataclasses
import itertools

import pytest
import torch
from torch import nn

from isthmus.core.errors import SymmetryError
from isthmus.core.network import Network
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.curvature import normalised, rescaled


def rows(size):
    return torch.arange(size)[:, None]


def relu_symmetry(network, layers=(0, 2, 4)):
    """Scale groups of a plain ReLU network, written by hand."""
    groups = []
    for here, after in itertools.pairwise(layers):
        size = len(network.weights[f"{here}.bias"])
        sites = (
            Site(f"{here}.weight", 0, rows(size)),
            Site(f"{here}.bias", 0, rows(size)),
            Site(f"{after}.weight", 1, rows(size), power=-1.0),
        )
        groups.append(UnitGroup(f"{here}.weight", size, sites, kind="scale"))
    return Symmetry(tuple(groups), {name: tuple(t.shape) for name, t in network.weights.items()})


@pytest.fixture
def relu():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    network = Network.of(module)
    return network, relu_symmetry(network)


def random_factors(symmetry, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.size, generator=generator).double() * 5 + 0.1 for g in symmetry.groups}


def test_rescaling_keeps_the_function_and_changes_the_weights(relu):
    network, symmetry = relu
    inputs = torch.randn(9, 4, dtype=torch.float64)
    other = rescaled(network.weights, symmetry, random_factors(symmetry))
    assert torch.allclose(network(other, inputs), network(network.weights, inputs), rtol=1e-12)
    assert not torch.allclose(other["2.weight"], network.weights["2.weight"], rtol=0.1)


def test_normalising_gives_unit_vectors_and_forgets_the_scale(relu):
    network, symmetry = relu
    inputs = torch.randn(9, 4, dtype=torch.float64)
    found = normalised(network.weights, symmetry)
    for layer in (0, 2):
        square = found[f"{layer}.weight"].square().sum(1) + found[f"{layer}.bias"].square()
        assert torch.allclose(square, torch.ones_like(square), rtol=1e-12)
    assert torch.allclose(network(found, inputs), network(network.weights, inputs), rtol=1e-12)
    again = normalised(rescaled(network.weights, symmetry, random_factors(symmetry)), symmetry)
    for name, tensor in found.items():
        assert torch.allclose(again[name], tensor, rtol=1e-10)


def test_the_order_of_the_groups_does_not_matter(relu):
    network, symmetry = relu
    backwards = dataclasses.replace(symmetry, groups=symmetry.groups[::-1])
    one, other = normalised(network.weights, symmetry), normalised(network.weights, backwards)
    assert all(torch.allclose(one[name], other[name], rtol=1e-10) for name in one)


def test_dead_units_and_half_precision_stay_finite(relu):
    network, symmetry = relu
    weights = {name: tensor.clone() for name, tensor in network.weights.items()}
    weights["0.weight"][2], weights["0.bias"][2] = 0, 0
    half = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    found = normalised(half, symmetry)
    assert all(torch.isfinite(tensor).all() and tensor.dtype == torch.bfloat16 for tensor in found.values())
    assert not found["0.weight"][2].any()


def test_a_site_inside_a_slice_and_powers():
    """Only columns 2 and 3 of rows 0 and 1 belong to the units; a running variance goes with the square."""
    within = ((1, torch.tensor([2, 3])),)
    sites = (Site("w", 0, rows(2), within=within), Site("var", 0, rows(2), role="carry", power=2.0))
    symmetry = Symmetry((UnitGroup("g", 2, sites, kind="scale"),), {"w": (3, 4), "var": (2,)})
    weights = {"w": torch.ones(3, 4), "var": torch.ones(2)}
    found = rescaled(weights, symmetry, {"g": torch.tensor([2.0, 3.0])})
    expected = torch.ones(3, 4)
    expected[0, 2:], expected[1, 2:] = 2, 3
    assert torch.equal(found["w"], expected)
    assert torch.equal(found["var"], torch.tensor([4.0, 9.0]))
    assert torch.equal(weights["w"], torch.ones(3, 4))
    unit = normalised(weights, symmetry)["w"]
    assert torch.allclose(unit[:2, 2:].norm(dim=1), torch.ones(2))
    assert torch.equal(unit[:, :2], torch.ones(3, 2))


def test_blocks_of_entries_belong_to_one_unit():
    """After flattening, a channel's scale reaches a block of columns."""
    index = torch.arange(6).view(2, 3)
    sites = (Site("conv", 0, rows(2)), Site("read", 1, index, power=-1.0))
    symmetry = Symmetry((UnitGroup("g", 2, sites, kind="scale"),), {"conv": (2, 1, 3, 3), "read": (4, 6)})
    found = rescaled(
        {"conv": torch.ones(2, 1, 3, 3), "read": torch.ones(4, 6)}, symmetry, {"g": torch.tensor([2.0, 4])}
    )
    assert torch.equal(found["read"][0], torch.tensor([0.5, 0.5, 0.5, 0.25, 0.25, 0.25]))


def test_what_is_refused(relu):
    network, symmetry = relu
    with pytest.raises(SymmetryError, match="unknown: nope"):
        rescaled(network.weights, symmetry, {"nope": torch.ones(1)})
    with pytest.raises(SymmetryError, match="6 positive numbers"):
        rescaled(network.weights, symmetry, {"0.weight": torch.zeros(6)})
    with pytest.raises(SymmetryError, match="has none"):
        normalised(network.weights, dataclasses.replace(symmetry, groups=()))
    with pytest.raises(SymmetryError, match=r"missing: 0\.weight"):
        normalised({}, symmetry)
    circle = [Site("a", 0, rows(2)), Site("b", 0, rows(2))]
    tensors = {"a": (2, 2), "b": (2, 2)}
    first = UnitGroup("one", 2, (circle[0], Site("b", 0, rows(2), power=-1.0)), kind="scale")
    second = UnitGroup("two", 2, (circle[1], Site("a", 0, rows(2), power=-1.0)), kind="scale")
    weights = {"a": torch.rand(2, 2) + 0.1, "b": torch.rand(2, 2) + 0.1}
    with pytest.raises(SymmetryError, match="in a circle"):
        normalised(weights, Symmetry((first, second), tensors))
