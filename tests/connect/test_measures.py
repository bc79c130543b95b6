"""Calibration and function distance, by hand."""

import pytest
import torch
from torch import nn

from isthmus.connect import Line, barrier, expected_calibration_error
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective


def test_calibration_error_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.45, 0.55]])
    targets = torch.tensor([0, 1, 1, 1])
    # 15 bins: .9 → two examples, accuracy ½, gap .4; .7 → one, gap .3; .55 → one, gap .45.
    assert expected_calibration_error(probabilities, targets) == pytest.approx((2 * 0.4 + 0.3 + 0.45) / 4)
    assert expected_calibration_error(torch.eye(2)[targets], targets) == 0.0
    # All in one bin: |¾ − mean confidence|.
    assert expected_calibration_error(probabilities, targets, bins=1) == pytest.approx(abs(0.75 - 0.7625))


def test_a_bin_holds_its_upper_edge():
    # Two bins: a confidence of exactly ½ belongs to the lower, .6 to the upper; in one bin their gaps would cancel.
    probabilities = torch.tensor([[0.5, 0.5], [0.6, 0.4]])
    assert expected_calibration_error(probabilities, torch.tensor([0, 1]), bins=2) == pytest.approx((0.5 + 0.6) / 2)


def test_distances_to_both_ends():
    network = Network.of(nn.Linear(1, 2, bias=False).double())
    start, end = ({"weight": torch.tensor([[a], [-a]], dtype=torch.float64)} for a in (2.0, -1.0))
    inputs = torch.tensor([[1.0], [-1.0], [2.0]], dtype=torch.float64)
    objective = Objective(network, inputs, torch.tensor([0, 0, 1]), batch_size=2)
    line = Line(start, end)
    result = barrier(line, objective, points=5, further=["calibration", "distance", "disagreement"])
    for index, t in enumerate(result.positions):
        own = torch.sigmoid(2 * (2 - 3 * float(t)) * inputs[:, 0])
        assert float(result.metrics["distance_to_start"][index]) == pytest.approx(
            float((own - torch.sigmoid(4 * inputs[:, 0])).abs().mean()), abs=1e-12
        )
        assert float(result.metrics["disagreement_with_end"][index]) == (1.0 if t < 2 / 3 else 0.0)
        both = torch.stack([own, 1 - own], 1)
        expected = expected_calibration_error(both, objective.targets)
        assert float(result.metrics["ece"][index]) == pytest.approx(expected)
    assert float(result.metrics["distance_to_end"][-1]) == 0.0
    assert "distance_to_end" in result.middle.metrics
    plain = barrier(line, objective, points=5)
    assert torch.equal(plain.loss, result.loss)
    assert set(plain.metrics) == {"error"}


def test_sequences_of_labels_are_flattened():
    torch.manual_seed(0)
    network = Network.of(nn.Linear(3, 4))
    inputs, targets = torch.randn(5, 7, 3), torch.randint(4, (5, 7))
    objective = Objective(network, inputs, targets, batch_size=2)
    whole = Objective(network, inputs.flatten(0, 1), targets.flatten())
    other = {name: tensor + 1.0 * torch.randn_like(tensor) for name, tensor in network.weights.items()}
    line = Line(network.weights, other)
    results = [barrier(line, o, points=3, further=["calibration", "distance"]) for o in (objective, whole)]
    for name in results[0].metrics:
        assert torch.allclose(results[0].metrics[name], results[1].metrics[name], atol=1e-6)


def test_unknown_measures_are_refused():
    network = Network.of(nn.Linear(3, 4))
    objective = Objective(network, torch.randn(5, 3), torch.randint(4, (5,)))
    with pytest.raises(SettingError, match="must be among calibration, distance, disagreement, got beauty"):
        barrier(Line(network.weights, network.weights), objective, further=["beauty"])  # type: ignore[list-item]


def test_ignored_labels_count_in_no_measure():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 4)))
    end = {name: tensor + torch.randn_like(tensor) for name, tensor in network.weights.items()}
    tokens, targets = torch.randint(7, (20, 6)), torch.randint(4, (20, 6))
    for place, row in enumerate(targets):
        row[place % 5 + 1 :] = -100
    counts, line = targets != -100, Line(network.weights, end)
    padded, flat = (
        barrier(line, Objective(network, *data), points=3, further=["calibration", "distance", "disagreement"])
        for data in ((tokens, targets), (tokens[counts], targets[counts]))
    )
    assert padded.metrics.keys() == flat.metrics.keys() >= {"ece", "distance_to_end", "disagreement_with_start"}
    for name, curve in padded.metrics.items():
        assert torch.allclose(curve, flat.metrics[name], atol=1e-6), name
