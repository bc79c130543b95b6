"""Barriers of all pairs, as they are and aligned, for networks as users have them."""

import torch
from torch import nn
from torch.nn import functional

from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.discover import discover
from isthmus.studies.comparison import compare


class Two(nn.Module):
    """Two inputs, one number for each example."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, left, right):
        return self.out(functional.relu(self.left(left) + self.right(right)))


def test_a_regression_of_two_inputs_and_a_planted_permutation():
    torch.manual_seed(0)
    module, inputs = Two(), (torch.randn(20, 4), torch.randn(20, 3))
    symmetry = discover(module, tuple(part[:2] for part in inputs))
    weights = Network.of(module).weights
    twin = symmetry.random(torch.Generator().manual_seed(1)).apply(weights)
    with torch.no_grad():
        answers = module(*inputs)[:, 0]
    objective = Objective(Network.of(module), inputs, answers, loss=squared_error, metrics={}, batch_size=7)
    found = compare([weights, twin], objective, symmetry=symmetry, inputs=inputs,
                    methods=("naive", "weights", "activations"), points=5)  # fmt: skip
    heights = {name: float(one.heights["loss_barrier"][0, 1]) for name, one in found.barriers.items()}
    assert heights["naive"] > 1e-3
    assert heights["weights"] < 1e-6
    assert heights["activations"] < 1e-6
