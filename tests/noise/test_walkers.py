"""Label noise from the network's own predictions: the Gauss–Newton matrix is both its curvature and its covariance."""

import pytest
import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.curvature import gauss_newton
from isthmus.noise import PerExampleGradients, Sampled, Shaken, drawn_labels, teaching


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def place():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double())
    objective = Objective(network, torch.randn(20, 3).double(), torch.arange(20) % 3)
    return objective, network.weights


def test_labels_come_as_often_as_they_are_probable():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]).expand(20_000, 2, 3)
    labels = drawn_labels(probabilities, seeded())
    shares = torch.stack([(labels == one).double().mean(0) for one in range(3)], 1)
    assert shares[0].tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.012)  # 3.7 standard errors
    assert shares[1].tolist() == [0, 0, 1]


def test_taught_gradients_have_no_mean_and_the_gauss_newton_matrix_as_covariance(place):
    objective, weights = place
    gradients = PerExampleGradients.at(teaching(objective, weights), weights)
    source = Sampled(gradients, batch_size=4, relabel=drawn_labels)
    rows = source(gradients.vector.repeat(20_000, 1), seeded())
    covariance = 4 * rows.T @ rows / len(rows)
    expected = gauss_newton(objective, weights).dense()
    scale = float(expected.abs().max())
    assert float((covariance - expected).abs().max()) < 0.05 * scale
    assert float(rows.mean(0).norm()) < 0.02 * float(rows.norm(dim=1).mean())


def test_all_data_without_noise_is_the_gradient(place):
    objective, weights = place
    gradients = PerExampleGradients.at(objective, weights)
    for kind in ("isotropic", "moving"):
        found = Shaken(gradients, 0.0, kind, weight_decay=0.5)(gradients.vector.repeat(3, 1), seeded())
        expected = gradients.mean() + 0.5 * gradients.vector
        assert torch.allclose(found, expected.expand(3, -1), atol=1e-12)


def test_layers_that_cannot_be_vectorised_go_one_by_one(place):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(2, 3, batch_first=True)
            self.head = nn.Linear(3, 2)

        def forward(self, inputs):
            return self.head(self.cell(inputs)[0][:, -1])

    network = Network.of(Recurrent().double())
    objective = Objective(network, torch.randn(6, 4, 2).double(), torch.arange(6) % 2)
    gradients = PerExampleGradients.at(objective, network.weights)
    rows = Shaken(gradients, 0.0)(gradients.vector.repeat(2, 1), seeded())
    assert torch.allclose(rows, gradients.mean().expand(2, -1), atol=1e-12)
