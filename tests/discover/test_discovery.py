"""Discovery on small networks whose groups are known."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.core.errors import SymmetryError


def sizes(symmetry: isthmus.Symmetry) -> list[int]:
    return sorted(group.size for group in symmetry.groups)


def test_mlp_count_is_the_published_one() -> None:
    layers: list[nn.Module] = [nn.Flatten()]
    for inward, outward in ((784, 512), (512, 512), (512, 512)):
        layers += [nn.Linear(inward, outward), nn.ReLU()]
    mlp = nn.Sequential(*layers, nn.Linear(512, 10))
    symmetry = isthmus.discover(mlp, torch.zeros(2, 1, 28, 28))
    assert sizes(symmetry) == [512, 512, 512]
    # 3498 is the published figure, floored for each layer.
    assert sum(int(math.lgamma(group.size + 1) / math.log(10)) for group in symmetry.groups) == 3498


def test_flatten_moves_blocks_of_columns_and_statistics_are_carried() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5)
    )
    symmetry = isthmus.discover(network, torch.zeros(2, 3, 8, 8))
    (group,) = symmetry.groups
    sites = {(site.tensor, site.dim): site for site in group.sites}
    assert sites["5.weight", 1].index.tolist() == [list(range(9 * c, 9 * c + 9)) for c in range(8)]
    assert sites["1.running_mean", 0].role == "carry"
    assert sites["1.running_var", 0].role == "carry"
    assert sites["1.weight", 0].role == "match"


class Attending(nn.Module):
    """A class token, positions, two encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.place = nn.Parameter(torch.zeros(1, 17, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.encoder(x)[:, 0])


def test_attention_has_heads_and_channels_inside_each() -> None:
    symmetry = isthmus.discover(Attending(), torch.zeros(2, 3, 16, 16))
    # The stream; two layers of: hidden units, heads, and in each of two heads query-key and value-output channels.
    assert sizes(symmetry) == sorted([16] + 2 * [24, 2, 8, 8, 8, 8])
    heads = next(group for group in symmetry.groups if group.size == 2)
    assert len(symmetry.children(heads.name)) == 4
    assert symmetry.proof is not None
    assert symmetry.proof.error < 1e-12
    assert symmetry.proof.dtype == "float64"


class Lost(nn.Module):
    """An operation without a rule reads the hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.fft.fft(self.into(x)).abs())


def test_unknown_operation_pins_and_is_named_with_its_line() -> None:
    symmetry = isthmus.discover(Lost(), torch.zeros(3, 4))
    assert symmetry.groups == ()
    assert any("fft" in obstacle.operation and "into.weight" in obstacle.tensors for obstacle in symmetry.obstacles)
    assert any(__file__ in obstacle.where for obstacle in symmetry.obstacles)


def test_a_refused_export_names_the_users_line() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(SymmetryError) as caught:
        isthmus.discover(Branching(), torch.ones(2))
    assert __file__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_module_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    isthmus.discover(network, torch.zeros(2, 3))
    assert all(part.training for part in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_modules_are_discovered_in_threads() -> None:
    modules = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda module: isthmus.discover(module, torch.zeros(2, 1, 8, 8)), modules))
    assert [sizes(symmetry) for symmetry in found] == [[4]] * 8


@pytest.mark.parametrize("kinds", [("permutation",), ("scale",)])
def test_an_example_that_the_module_refuses_is_one_line(kinds):
    network = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(SymmetryError, match=r"must accept the example .* IndexError: index out of range") as caught:
        isthmus.discover(network, torch.full((2, 3), 99), kinds=kinds)
    assert "\n" not in str(caught.value)
