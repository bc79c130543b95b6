"""Counts of copies against their closed forms, and what equal and dead units take from them."""

import math

import pytest
import torch
from torch import nn

from isthmus.discover import discover
from isthmus.noise import redundancy
from isthmus.report.section import section
from isthmus.studies.redundancy.counting import count, references
from isthmus.zoo.networks import network

EXAMPLE = torch.zeros(2, 1, 8, 8)


def mlp(width, depth=2, activation="relu"):
    return network("mlp", inputs=(1, 8, 8), width=width, depth=depth, activation=activation)


def test_the_published_count_of_an_mlp():
    found = count(mlp(512, 3), EXAMPLE, factors=False)
    assert found.total.log10_floored == 3498
    assert [layer.floored for layer in found.layers] == [1166] * 3
    assert not found.factors


def vgg16():
    """Simonyan & Zisserman 2015 (arXiv 1409.1556), table 1, column D, for images of 32 × 32 pixels."""
    layers, previous = [], 3
    for width, convolutions in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(convolutions):
            layers += [nn.Conv2d(previous, width, 3, padding=1), nn.ReLU()]
            previous = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, *head)


def test_the_published_count_of_vgg16():
    with torch.device("meta"):
        module = vgg16()
    found = discover(module, torch.zeros(1, 3, 32, 32, device="meta"), verify=False)
    assert redundancy(found).log10_floored == 35160


@pytest.mark.parametrize(("activation", "signs", "scales"), [("relu", 0, 12), ("tanh", 12, 0), ("gelu", 0, 0)])
def test_signs_and_scales_by_layer(activation, signs, scales):
    found = count(mlp(6, activation=activation), EXAMPLE)
    assert [layer.units for layer in found.layers] == [6, 6]
    assert sum(layer.log10_signs for layer in found.layers) == pytest.approx(signs * math.log10(2))
    assert sum(layer.scale_dimensions for layer in found.layers) == scales


def test_against_width_and_depth():
    family = {(width, depth): lambda w=width, d=depth: mlp(w, d) for depth in (1, 2) for width in (4, 8)}
    found = count(mlp(8), EXAMPLE, family=family)
    expected = [depth * math.lgamma(width + 1) / math.log(10) for width, depth in family]
    assert [size.log10_copies for size in found.sizes] == pytest.approx(expected)
    drawn = section(found)
    assert len(drawn.figures) == 1
    assert len(drawn.tables) == 3
    assert drawn.tables[-1].rows[-1] == ["own", 8, "–"]  # floor(log10 8!) twice


def test_our_counts_of_the_published_networks_are_theirs():
    assert {one.name: one.counted for one in references()} == {"MLP, 3 × 512": 3498, "VGG16": 35160}
    assert all(one.counted == one.published for one in references())


def test_units_that_never_fire_are_found_on_data():
    module = mlp(6, depth=2)
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weights["1.bias"][2] = -1e3
    inputs = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    blind = count(module, EXAMPLE, solutions={"a": weights}).effective["a"]
    assert [group.dead for group in blind.groups] == [0, 0]
    seeing = count(module, EXAMPLE, solutions={"a": weights}, inputs=inputs)
    assert next((group.dead, group.silent) for group in seeing.effective["a"].groups) == (1, 1)
    assert seeing.examples == 50
    assert "never fire" not in section(seeing).tables[1].note


def test_what_training_leaves():
    module = mlp(6, depth=1)
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    whole = count(module, EXAMPLE, solutions={"whole": weights}).effective["whole"]
    assert whole.share == 1
    twin = {name: tensor.clone() for name, tensor in weights.items()}
    for name in ("1.weight", "1.bias"):
        twin[name][1] = twin[name][0]
    twin["3.weight"][:, 1] = twin["3.weight"][:, 0]
    found = count(module, EXAMPLE, solutions={"twin": twin}).effective["twin"]
    assert found.groups[0].duplicates == 1
    assert found.log10_distinct == pytest.approx(math.log10(720 / 2))


def test_noise_is_measured_between_aligned_checkpoints():
    module = mlp(8, depth=1)
    symmetry = discover(module, EXAMPLE)
    weights = {name: tensor.double() for name, tensor in module.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    near = {name: t + 1e-3 * torch.randn(t.shape, generator=generator, dtype=t.dtype) for name, t in weights.items()}
    moved = symmetry.random(generator).apply(near)
    found = count(module, EXAMPLE, solutions={"a": weights, "b": moved})
    assert found.noise_from == "aligned checkpoints"
    assert found.noise == pytest.approx(1e-3 / math.sqrt(2), rel=0.5)
    assert found.effective["a"].share == 1
    assert count(module, EXAMPLE, solutions={"a": weights, "b": moved}, noise=10.0).effective["a"].share == 0
