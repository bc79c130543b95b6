"""Settling against ridge regression's closed form."""

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.status import Status
from isthmus.noise import check_minimum, settled


@pytest.fixture
def ridge():
    """Inputs of unequal scale in uneven batches, and the minimum with decay .3."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(57, 4, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.3, 0.1])
    targets = torch.randn(57, 2, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    network = Network.of(nn.Linear(4, 2, bias=False).double())
    objective = Objective(network, inputs, targets, loss=squared_error, metrics={}, batch_size=20)
    # The squared error is averaged over both outputs.
    matrix = inputs.T @ inputs / 57 + 0.3 * torch.eye(4, dtype=torch.float64)
    return objective, torch.linalg.solve(matrix, inputs.T @ targets / 57).T


def test_the_bottom_is_the_closed_forms(ridge):
    objective, expected = ridge
    start = {name: tensor.clone() for name, tensor in objective.network.weights.items()}
    found = settled(objective, start, weight_decay=0.3, tolerance=1e-6)
    assert found.status is Status.CONVERGED
    assert torch.allclose(found.weights["weight"], expected, atol=1e-5)
    assert found.gradient_norm < 1e-6 < found.before
    assert found.loss == pytest.approx(
        objective(found.weights).loss + 0.15 * float(found.weights["weight"].square().sum()), rel=1e-12
    )
    assert torch.equal(start["weight"], objective.network.weights["weight"])


def test_the_limit_of_iterations_is_said(ridge):
    objective, _ = ridge
    found = settled(objective, objective.network.weights, weight_decay=0.3, iterations=1, tolerance=1e-9)
    assert found.status is Status.STOPPED
    assert found.iterations == 1
    assert found.gradient_norm < found.before
    with pytest.raises(SettingError, match="at least 1 iteration, got 0"):
        settled(objective, objective.network.weights, iterations=0)


def test_tied_tensors_settle_as_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, inputs):
            return self.second(self.first(inputs))

    network = Network.of(Tied().double())
    inputs = torch.randn(20, 3, dtype=torch.float64)
    objective = Objective(network, inputs, inputs, loss=squared_error, metrics={})
    found = settled(objective, network.weights, iterations=200)
    assert found.weights["second.weight"] is found.weights["first.weight"]
    assert found.loss < 1e-6


def test_one_direction_beyond_the_walkers_spread_is_no_minimum():
    """Along a direction of curvature λ the bottom lies slope/λ away; beyond √predicted along any of them is too far."""
    values, predicted = torch.tensor([4.0, 1.0]), torch.tensor([0.25, 0.25])
    columns = torch.eye(3, dtype=torch.float64)[:, :2]
    for slope in ([1.9, 0.0, 0.0], [0.0, 0.45, 0.0], [0.0, 0.0, 0.7]):
        check_minimum(values, predicted, columns, torch.tensor(slope))
    for slope in ([2.1, 0.0, 0.0], [0.0, 0.55, 0.0], [0.0, 0.0, 0.75]):  # the last beyond √(.25 + .25) of the rest
        with pytest.raises(WeightsError, match="beyond the walkers' own spread"):
            check_minimum(values, predicted, columns, torch.tensor(slope))
    with pytest.raises(WeightsError, match=r"lowest curvature -1;"):
        check_minimum(values, predicted, columns, None, lowest=-1.0)
