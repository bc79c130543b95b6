"""The loss that matchers descend: the objective's own, and with BatchNorm a number that nothing is drawn for."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from isthmus.align import SwapRefinement
from isthmus.align.descent import loss_on, loss_over
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.discover import discover


@pytest.fixture
def normalised():
    """A network with BatchNorm and dropout, and examples of which the last is alone in its batch of 20."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    return module, Objective(Network.of(module), torch.randn(41, 4), torch.arange(41) % 3, batch_size=20)


def test_ignored_labels_weigh_nothing():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 4)))
    tokens, targets = torch.randint(7, (30, 6)), torch.randint(4, (30, 6))
    for place, row in enumerate(targets):
        row[1 + place // 6 :] = -100
    objective = Objective(network, tokens, targets, batch_size=7)
    assert loss_over(objective, network.weights) == pytest.approx(objective(network.weights).loss, rel=1e-6)


def test_batches_standardise_by_themselves_and_nothing_is_dropped(normalised):
    _, objective = normalised
    weights = objective.network.weights

    def by_hand(inputs, targets):
        hidden = functional.linear(inputs, weights["0.weight"], weights["0.bias"])
        hidden = functional.batch_norm(hidden, None, None, weights["1.weight"], weights["1.bias"], training=True)
        scores = functional.linear(functional.relu(hidden), weights["4.weight"], weights["4.bias"])
        return functional.cross_entropy(scores, targets, reduction="sum")

    x, y = objective.inputs, objective.targets
    expected = float(by_hand(x[:20], y[:20]) + by_hand(x[20:], y[20:])) / 41
    before, state = {name: tensor.clone() for name, tensor in weights.items()}, torch.get_rng_state()
    assert loss_over(objective, weights) == pytest.approx(expected, rel=1e-6)
    assert float(loss_on(objective, weights, (x,), y)) == pytest.approx(float(by_hand(x, y)) / 41, rel=1e-6)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


def test_a_refinement_depends_on_its_own_generator_alone(normalised):
    module, objective = normalised
    symmetry = discover(module, objective.inputs[:2])
    other = {name: t.roll(1, 0) if t.dim() else t for name, t in objective.network.weights.items()}
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        match = SwapRefinement(objective, trials=20)(
            symmetry, other, objective.network.weights, generator=torch.Generator().manual_seed(0)
        )
        found.append((match.objective, match.history))
    assert found[0] == found[1]
