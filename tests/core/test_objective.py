"""Objectives: means over examples, right for uneven batches, any precision, sequences and several inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from isthmus.core.errors import DataError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import (
    Objective,
    check_labels,
    class_scores,
    cross_entropy,
    error,
    squared_error,
)
from isthmus.core.randomness import child


def case(batch_size=1000, dtype=torch.float64, examples=11):
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype))
    inputs = torch.randn(examples, 4, generator=child(0, "x"), dtype=torch.float64)
    targets = torch.randint(3, (examples,), generator=child(0, "y"))
    return Objective(network, inputs, targets, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 11, 1000])
def test_means_are_over_examples_for_any_batch_size(batch_size):
    objective = case(batch_size)
    score = objective(objective.network.weights)
    outputs = objective.network(objective.network.weights, objective.inputs)
    assert score.loss == pytest.approx(float(functional.cross_entropy(outputs, objective.targets)), rel=1e-12)
    assert score.error == pytest.approx(float((outputs.argmax(1) != objective.targets).double().mean()))
    assert score.examples == 11


@pytest.mark.parametrize("batch_size", [3, 11])
def test_the_gradient_is_that_of_the_mean(batch_size):
    objective = case(batch_size)
    weights = objective.network.weights
    score, gradient = objective.gradient(weights)
    assert score.loss == pytest.approx(objective(weights).loss, rel=1e-13)
    step, direction = 1e-5, {name: torch.randn_like(tensor) for name, tensor in gradient.items()}
    ahead, behind = (
        objective({n: t + sign * step * direction[n] for n, t in weights.items()}).loss for sign in (1, -1)
    )
    slope = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_inputs_follow_the_precision_of_the_weights(dtype):
    objective = case(dtype=dtype)
    wide = case().network
    exact = Objective(wide, objective.inputs, objective.targets)(
        {name: tensor.double() for name, tensor in objective.network.weights.items()}
    )
    assert objective(objective.network.weights).loss == pytest.approx(exact.loss, rel=0.02)


def test_buffers_may_have_another_precision_than_parameters():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).bfloat16()
    module.register_buffer("table", torch.ones(3, dtype=torch.float32))
    objective = Objective(Network.of(module), torch.randn(5, 4), torch.randint(3, (5,)))
    assert objective(objective.network.weights).examples == 5
    assert objective.gradient(objective.network.weights)[1]["0.weight"].dtype == torch.bfloat16


def test_sequences_count_tokens_with_classes_first_or_last():
    outputs, targets = torch.randn(4, 7, 5), torch.randint(5, (4, 7))
    expected = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
    assert torch.allclose(cross_entropy(outputs, targets).mean(), expected)
    assert torch.allclose(cross_entropy(outputs.movedim(-1, 1), targets).mean(), expected)
    network = Network.of(nn.Linear(3, 5))
    objective = Objective(network, torch.randn(4, 7, 3), targets, batch_size=3)
    assert objective(network.weights).examples == 28


def test_results_with_logits_are_understood():
    class Output:
        logits = torch.randn(4, 5)

    scores, _ = class_scores(Output(), torch.randint(5, (4,)))
    assert scores is Output.logits
    scores, _ = class_scores((Output.logits, "cache"), torch.randint(5, (4,)))
    assert scores is Output.logits
    with pytest.raises(WeightsError, match="one axis more than the labels"):
        class_scores(torch.zeros(4), torch.zeros(4))


def test_squared_error_and_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, one, other):
            return self.scale * (one + other)

    one, other, targets = torch.randn(5, 3), torch.randn(5, 3), torch.randn(5, 3)
    objective = Objective(Network.of(Sum()), (one, other), targets, loss=squared_error, metrics={}, batch_size=2)
    expected = float((2 * (one + other) - targets).square().mean())
    assert objective(objective.network.weights).loss == pytest.approx(expected, rel=1e-6)
    assert objective.limited(2).targets.shape == (2, 3)
    assert len(objective.limited(2).parts) == 2


def test_more_metrics_and_batchwise_outputs():
    import dataclasses

    objective = dataclasses.replace(case(4), metrics={"error": error, "first": lambda o, t: o[:, 0]})
    weights = objective.network.weights
    outputs = torch.cat([output for output, _ in objective.outputs(weights)])
    assert objective(weights).metrics["first"] == pytest.approx(float(outputs[:, 0].mean()))
    assert [len(targets) for _, targets in objective.outputs(weights)] == [4, 4, 3]
    assert not outputs.requires_grad


def test_inputs_and_weights_stay():
    objective = case(4)
    weights = {name: tensor.clone() for name, tensor in objective.network.weights.items()}
    inputs = objective.parts[0].clone()
    objective(weights)
    objective.gradient(weights)
    assert torch.equal(inputs, objective.parts[0])
    assert all(torch.equal(weights[name], tensor) for name, tensor in objective.network.weights.items())
    assert not any(tensor.requires_grad for tensor in weights.values())


def test_wrong_data_are_refused():
    network = Network.of(nn.Linear(2, 3))
    inputs, targets = torch.randn(4, 2), torch.randint(3, (4,))
    for arguments, words in (
        ((inputs, targets[:3]), "equally many, got 4 and 3"),
        ((inputs[:0], targets[:0]), "at least one example"),
    ):
        with pytest.raises(DataError, match=words):
            Objective(network, *arguments)
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        Objective(network, inputs, targets, batch_size=0)
    with pytest.raises(DataError, match="reduction='none'"):
        Objective(network, inputs, targets, loss=functional.cross_entropy)(network.weights)


def test_labels_out_of_range_are_refused():
    check_labels(torch.tensor([0, 2]), 3)
    for labels, words in (
        (torch.tensor([0, 3]), r"0 … 2 \(the model has 3 outputs\), got 0 … 3"),
        (torch.tensor([-1, 0]), "got -1 … 0"),
        (torch.tensor([0.0]), "whole numbers"),
    ):
        with pytest.raises(DataError, match=words):
            check_labels(labels, 3)
