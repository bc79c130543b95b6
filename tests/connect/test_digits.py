"""On networks trained for the purpose: what the papers report can be seen again."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from isthmus.connect import Line, barrier, barriers, bend, fit, layer_barriers, variance_ratios
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


def trained(seed, inputs, targets):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimiser.step()
    return Network.of(module)


@pytest.fixture(scope="module")
def digits():
    inputs, targets = (torch.tensor(part) for part in load_digits(return_X_y=True))
    inputs = (inputs / 16).float()
    networks = [trained(seed, inputs[:1200], targets[:1200]) for seed in (0, 1)]
    training = Objective(networks[0], inputs[:1200], targets[:1200])
    test = Objective(networks[0], inputs[1200:], targets[1200:])
    return training, test, [network.weights for network in networks]


def test_seeds_are_parted_by_a_barrier_that_repair_lowers(digits):
    training, test, (start, end) = digits
    plain = barrier(Line(start, end), test)
    repaired = barrier(Line(start, end), test, normalisation="repair", inputs=training.inputs)
    assert plain.loss_barrier > 0.5
    assert plain.error_barrier > 0.2
    assert repaired.loss_barrier < 0.65 * plain.loss_barrier
    assert repaired.error_barrier < 0.65 * plain.error_barrier


def test_variance_collapses_with_depth(digits):
    training, _, (start, end) = digits
    ratios = variance_ratios(training.network, Line(start, end)(0.5), [start, end], training.inputs).ratio
    # Uncorrelated units keep half of their variance in the first layer, and less in every further one.
    assert 0.4 < float(ratios[0]) < 0.7
    assert float(ratios[2]) < float(ratios[1]) < float(ratios[0])


def test_a_bezier_curve_connects_what_a_line_does_not(digits):
    training, test, (start, end) = digits
    learned = fit(
        bend(start, end),
        training,
        steps=200,
        generator=child(0, "fit"),
        optimiser=lambda tensors: torch.optim.Adam(tensors, lr=5e-3),
    )
    line = barrier(Line(start, end), test)
    curve = barrier(learned.path, test)
    assert curve.loss_barrier < 0.1 * line.loss_barrier
    assert curve.error_barrier < 0.02


def test_an_adaptive_grid_finds_the_barrier_of_a_fine_one(digits):
    _, test, (start, end) = digits
    fine = barrier(Line(start, end), test, points=201)
    adaptive = barrier(Line(start, end), test, points=9, adaptive=0.005)
    assert abs(fine.loss_barrier - adaptive.loss_barrier) <= 0.005
    assert len(adaptive.positions) < 60


def test_one_layer_alone_costs_less_than_all(digits):
    _, test, (start, end) = digits
    only = layer_barriers(start, end, test, points=9)
    whole = barrier(Line(start, end), test, points=9)
    assert only.layers == ("0", "2", "4")
    assert float(only.heights["loss_barrier"].max()) < whole.loss_barrier


def test_a_pair_as_a_set(digits):
    _, test, solutions = digits
    found = barriers(solutions, test, points=5)
    assert float(found.loss_barrier[0, 1]) == barrier(Line(solutions[0], solutions[1]), test, points=5).loss_barrier
