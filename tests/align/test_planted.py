"""Planted permutations come back, whole, from plain networks, residual ones and transformers."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.align.networks import column, mlp, noisy, residual, weights_of
from torch import Tensor, nn

from isthmus.align import WeightMatching
from isthmus.core.randomness import child
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights
from isthmus.discover import discover


def _planted_found(symmetry: Symmetry, planted: int, noise: float, *, around: Weights | None = None) -> int:
    """How many of the permutations that were applied to networks come back, with noise on the weights."""
    found = 0
    for seed in range(planted):
        moving, applied = weights_of(symmetry, seed), symmetry.random(child(seed, "planted"))
        if around is not None:
            generator = child(seed, "weights")
            shaken = {n: t.std().nan_to_num() * torch.randn(t.shape, generator=generator) for n, t in around.items()}
            moving = {name: tensor + shaken[name] for name, tensor in around.items()}
        fixed = noisy(applied.apply(moving), noise, seed)
        match = WeightMatching()(symmetry, moving, fixed, generator=child(seed, "match"))
        found += match.permutation.same_as(applied)
    return found


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("shape", [(30, 50, 2), (64, 128, 4)])
def test_planted_permutations_of_residual_networks_come_back(shape: tuple[int, int, int], noise: float) -> None:
    symmetry = residual(*shape)
    assert _planted_found(symmetry, 10, noise) == 10


@pytest.mark.slow
@pytest.mark.timeout(1800)  # of a shared machine
@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("shape", [(30, 50, 2), (64, 128, 4), (256, 512, 4)])
def test_of_100_planted_permutations_95_come_back(shape: tuple[int, int, int], noise: float) -> None:
    symmetry = residual(*shape)
    assert _planted_found(symmetry, 100, noise) >= 95


class Transformer(nn.Module):
    """Small, pre-norm, over a vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.tokens(tokens))))


@pytest.fixture(scope="module")
def transformer() -> tuple[Symmetry, dict[str, Tensor]]:
    torch.manual_seed(0)
    module = Transformer().eval()
    return discover(module, torch.arange(10).reshape(2, 5)), dict(module.state_dict())


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_planted_permutations_of_a_transformer_come_back(transformer, noise: float) -> None:
    symmetry, shapes = transformer
    assert any(group.parent is not None for group in symmetry.groups)
    assert _planted_found(symmetry, 5, noise, around=shapes) == 5


@pytest.mark.slow
@pytest.mark.timeout(1800)  # of a shared machine
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_of_100_planted_permutations_of_a_transformer_95_come_back(transformer, noise: float) -> None:
    symmetry, shapes = transformer
    assert _planted_found(symmetry, 100, noise, around=shapes) >= 95


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_100_of_100_planted_permutations_of_a_plain_network_come_back(noise: float) -> None:
    symmetry = mlp(10, 24, 20, 16, 5)
    assert _planted_found(symmetry, 100, noise) == 100


def test_a_group_on_both_axes_of_a_tensor_rises_and_finds_a_planted_permutation() -> None:
    """A recurrent square matrix: the similarities of units depend on where the units are."""
    size = 12
    sites = (Site("in", 0, column(size)), Site("loop", 0, column(size)), Site("loop", 1, column(size)))
    symmetry = Symmetry((UnitGroup("state", size, sites),), {"in": (size, 2), "loop": (size, size)})
    generator = child(0, "weights")
    moving = {name: torch.randn(shape, generator=generator) for name, shape in symmetry.tensors.items()}
    planted = symmetry.random(generator)
    match = WeightMatching()(symmetry, moving, planted.apply(moving), generator=child(0, "match"))
    assert match.permutation.same_as(planted)
    other = {name: torch.randn(shape, generator=generator) for name, shape in symmetry.tensors.items()}
    match = WeightMatching(start="identity", tolerance=0)(symmetry, moving, other, generator=child(0, "match"))
    assert all(later >= earlier for earlier, later in itertools.pairwise(match.history))
    assert match.objective > match.identity_objective
