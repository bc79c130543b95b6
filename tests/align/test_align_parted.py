"""Groups that share an axis of one tensor: kept products must not mix up each other's places."""

import pytest
import torch

from isthmus.align.weight_matching import WeightMatching
from isthmus.core.randomness import child
from isthmus.discover import discover
from isthmus.zoo.networks import network
from isthmus.zoo.remedies import masked


@pytest.mark.parametrize(
    "make",
    [
        lambda: masked(network("mlp", width=97, depth=3, inputs=(1, 8, 8)), structure="blocks"),
        lambda: network("ortho", width=61, depth=3, inputs=(1, 8, 8), form="degrees"),
        lambda: network("modular", width=40, depth=3, inputs=(1, 8, 8), links=10),
    ],
)
def test_a_planted_permutation_of_parted_layers_comes_back(make):
    module = make()
    symmetry = discover(module, torch.zeros(2, 1, 8, 8))
    assert len({(site.tensor, site.dim) for group in symmetry.groups for site in group.sites}) < sum(
        len(group.sites) for group in symmetry.groups
    )
    weights = dict(module.state_dict())
    planted = symmetry.random(torch.Generator().manual_seed(0))
    match = WeightMatching()(symmetry, planted.apply(weights), weights, generator=child(0, "parted"))
    restored = match.permutation.apply(planted.apply(weights))
    assert all(torch.equal(restored[name], tensor) for name, tensor in weights.items())
