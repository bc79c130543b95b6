"""Six connectivities: each against the dense matrix that it stands for."""

import math

import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.train import Recipe, train
from isthmus.zoo import build, load_data, network
from isthmus.zoo.locally_connected import KINDS

SIZE = (2, 6, 6)


def matrix(kind: str, **settings) -> torch.Tensor:
    """The first layer as a dense matrix: (width, positions, inputs)."""
    layer = network(kind, inputs=SIZE, width=3, **settings).layers[0].double()
    entries = math.prod(SIZE)
    zero = torch.zeros(1, *SIZE, dtype=torch.float64)
    columns = layer(torch.eye(entries, dtype=torch.float64).view(entries, *SIZE)) - layer(zero)
    return columns.flatten(2).permute(1, 2, 0).detach()


@pytest.mark.parametrize("kind", KINDS)
def test_reads_and_weights_are_what_the_table_says(kind):
    rows = matrix(kind)
    _, positions, entries = rows.shape
    reads = (rows != 0).sum(2)
    values = [sorted(row[row != 0].tolist()) for row in rows[0]]
    inner = 4  # a position whose patch lies inside the image
    if kind in ("dense", "tied_dense"):
        assert bool((reads == entries).all())
    else:
        assert int(reads[0, inner]) == 2 * 9
    if kind == "convolutional":
        assert values[inner] == pytest.approx(values[positions - 1])
    elif kind in ("tied_dense", "tied_sparse"):
        assert all(row == pytest.approx(values[0]) for row in values)
        assert not torch.allclose(rows[0, 0], rows[0, 1])
    else:
        assert values[inner] != pytest.approx(values[positions - 1])
    if kind in ("convolutional", "locally_connected"):
        support = (rows[0, inner] != 0).view(SIZE)[0].nonzero()
        assert bool((support.max(0).values - support.min(0).values == 2).all())
    if kind in ("sparse_dense", "tied_sparse"):
        assert bool(((rows != 0) == (rows[:1] != 0)).all())  # channels of a position read the same places


def test_a_convolution_is_torchs():
    module = network("convolutional", inputs=SIZE, width=3)
    layer, images = module.layers[0], torch.randn(4, *SIZE)
    wanted = torch.nn.functional.conv2d(images, layer.weight.view(3, 2, 3, 3), layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(images), wanted)


def test_places_belong_to_the_architecture_not_to_the_seed():
    first, second = (network("sparse_dense", inputs=SIZE, seed=seed).layers[0] for seed in (0, 1))
    assert torch.equal(first.places, second.places)
    assert not torch.equal(first.weight, second.weight)
    other = network("sparse_dense", inputs=SIZE, connectivity=1).layers[0]
    assert not torch.equal(first.places, other.places)


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_counts_can_be_matched(kind):
    module = network(kind, inputs=(1, 8, 8), parameters=20_000)
    assert sum(part.numel() for part in module.parameters()) == pytest.approx(20_000, rel=0.1)
    with pytest.raises(SettingError, match="got a budget of 10"):
        network(kind, inputs=(1, 8, 8), parameters=10)


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_them_train_together(kind):
    recipe = Recipe(
        network=kind, settings={"inputs": [1, 8, 8], "width": 4}, steps=40, rate=0.02, precision="float64", subset=200
    )
    data = load_data("digits")
    ours, right = (train(recipe.replicates(2), data=data, module=build, engine=e) for e in ("vectorised", "sequential"))
    assert ours[0].engine == "vectorised", ours[0].notes
    for one, other in zip(ours, right, strict=True):
        assert one.train.loss < 2.0
        assert one.train.loss == pytest.approx(other.train.loss, rel=1e-8)
