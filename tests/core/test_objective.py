"""Objectives: means over examples, right for uneven batches, any precision, sequences and several inputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from isthmus.core.errors import DataError, WeightsError
from isthmus.core.losses import answers, check_labels, class_scores, cross_entropy, error, squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.weights import stack


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


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_ignored_labels_count_in_no_mean(batch_size):
    """Torch's cross-entropy is the oracle; the last batch of four holds nothing but padding."""
    base = case(batch_size)
    targets = base.targets.clone()
    targets[[0, 2, 8, 9, 10]] = -100
    objective = dataclasses.replace(base, targets=targets)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in base.network.weights.items()}
    outputs = base.network(weights, base.inputs)
    expected = functional.cross_entropy(outputs, targets)
    score, gradient = objective.gradient(base.network.weights)
    assert score.loss == pytest.approx(expected.item(), rel=1e-12)
    assert score.examples == 6
    wrong = (outputs.argmax(1) != targets)[targets != -100]
    assert score.error == pytest.approx(float(wrong.double().mean()))
    (slope,) = torch.autograd.grad(expected, weights["0.weight"])
    assert torch.allclose(gradient["0.weight"], slope, rtol=1e-10)
    both = stack([base.network.weights, base.network.weights])
    many, gradients = objective.gradients(both, together=True)
    assert many[1].loss == pytest.approx(score.loss, rel=1e-12)
    assert (many[1].metrics, many[1].examples) == (score.metrics, score.examples)
    assert torch.allclose(gradients["0.weight"][1], slope, rtol=1e-10)
    assert objective.many(both, together=True)[0].loss == pytest.approx(score.loss, rel=1e-12)


def test_ignored_tokens_count_in_neither_loss_nor_error():
    network = Network.of(nn.Linear(3, 5))
    inputs, targets = torch.randn(4, 7, 3), torch.randint(5, (4, 7))
    targets[:, 5:] = -100
    score = Objective(network, inputs, targets, batch_size=3)(network.weights)
    outputs = network(network.weights, inputs)
    assert score.loss == pytest.approx(float(functional.cross_entropy(outputs.movedim(2, 1), targets)), rel=1e-6)
    assert score.error == pytest.approx(float((outputs.argmax(2) != targets)[:, :5].float().mean()))
    with pytest.raises(DataError, match="one label that counts"):
        Objective(network, inputs, torch.full_like(targets, -100))(network.weights)


def test_minus_one_hundred_is_a_number_to_a_regression():
    network = Network.of(nn.Linear(3, 1))
    inputs, targets = torch.randn(4, 3), torch.tensor([1, -100, 2, 3])
    score = Objective(network, inputs, targets, loss=squared_error, metrics={})(network.weights)
    expected = (network(network.weights, inputs)[:, 0] - targets).square().mean()
    assert (score.examples, score.loss) == (4, pytest.approx(float(expected), rel=1e-6))


@pytest.mark.parametrize("left_out", ["outputs", "targets", "both", "neither"])
def test_one_number_for_each_example_is_compared_with_its_own_target(left_out):
    """(examples, 1) against (examples,) would be broadcast to every pair."""
    outputs, targets = torch.randn(6, 1), torch.randn(6, 1)
    expected = (outputs - targets).square()[:, 0]
    given = outputs[:, 0] if left_out in ("outputs", "both") else outputs
    wanted = targets[:, 0] if left_out in ("targets", "both") else targets
    assert torch.allclose(squared_error(given, wanted), expected)
    with pytest.raises(WeightsError, match="targets' shape"):
        squared_error(torch.randn(6, 2), torch.randn(6))


def test_a_metric_for_each_sequence_beside_a_loss_for_each_token():
    network = Network.of(nn.Linear(3, 5))
    inputs, targets = torch.randn(4, 7, 3), torch.randint(5, (4, 7))
    whole = {"any": lambda outputs, labels: (outputs.argmax(2) == labels).any(1).float()}
    score = Objective(network, inputs, targets, metrics=whole, batch_size=3)(network.weights)
    expected = (network(network.weights, inputs).argmax(2) == targets).any(1).float().mean()
    assert score.metrics["any"] == pytest.approx(float(expected))


def test_mappings_tuples_and_results_hold_their_scores():
    scores = torch.randn(4, 5)
    for outputs in (scores, {"logits": scores, "hidden": torch.zeros(2)}, {"out": scores, "aux": scores + 1},
                    (scores, "cache"), [scores], {"anything": scores}):  # fmt: skip
        assert answers(outputs) is scores
    assert answers({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(WeightsError, match="dict"):
        class_scores({"a": scores, "b": scores}, torch.zeros(4))


def test_a_network_that_normalises_by_the_batch_sees_all_examples_in_one():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    network, inputs, targets = Network.of(module), torch.randn(9, 3), torch.randint(2, (9,))
    assert network.batch_dependent == ("1",)
    assert Network.of(nn.BatchNorm1d(4)).batch_dependent == ()
    expected = float(functional.cross_entropy(module(inputs), targets).detach())
    for batch_size in (1, 4, 100):
        objective = Objective(network, inputs, targets, batch_size=batch_size)
        assert objective(network.weights).loss == pytest.approx(expected, rel=1e-6)
        assert len(list(objective.batches())) == 1


def test_convolutions_on_a_cpu_take_large_batches_in_parts():
    at_once = 16 * torch.get_num_threads()
    examples = 9 * at_once + 1
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 62 * 62, 4)).double()
    network, inputs = Network.of(module), torch.randn(examples, 1, 64, 64, dtype=torch.float64)
    targets, seen = torch.randint(4, (examples,)), []
    targets[::7] = -100
    hooked = network.hooked(before={"0": lambda layer, given: seen.append(len(given[0]))})
    score, gradient = Objective(hooked, inputs, targets).gradient(network.weights)
    assert sum(seen) == examples
    assert max(seen) <= at_once
    assert len(seen) == 10
    assert min(seen) >= at_once // 2  # none is left alone
    outputs = module(inputs)
    loss = functional.cross_entropy(outputs, targets, ignore_index=-100)
    assert score.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert score == Objective(hooked, inputs, targets)(network.weights)
    wrong = (outputs.argmax(1) != targets)[targets != -100]
    assert score.error == pytest.approx(float(wrong.double().mean()), rel=1e-12)
    for slope, found in zip(torch.autograd.grad(loss, list(module.parameters())), gradient.values(), strict=True):
        assert torch.allclose(found, slope, rtol=1e-9, atol=1e-12)


def test_what_normalises_by_the_batch_is_not_taken_in_parts():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(),
                           nn.Linear(2 * 62 * 62, 4))  # fmt: skip
    network, inputs, targets = Network.of(module), torch.randn(90, 1, 64, 64), torch.randint(4, (90,))
    expected = float(functional.cross_entropy(module(inputs), targets).detach())
    assert Objective(network, inputs, targets)(network.weights).loss == pytest.approx(expected, rel=1e-5)


def test_gradients_in_half_precision_stay_in_its_range():
    """Each example's gradient is 100; summed over a batch of 1,000 it would leave float16's range."""
    network = Network.of(nn.Linear(1, 1, bias=False).half())
    objective = Objective(
        network, torch.full((1000, 1), 100.0), torch.zeros(1000), metrics={}, loss=lambda o, _: o[:, 0]
    )
    assert float(objective.gradient(network.weights)[1]["weight"]) == pytest.approx(100.0, rel=1e-3)


def test_some_of_the_examples():
    objective = case()
    chosen = torch.tensor([7, 2, 2])
    for part, inputs, targets in (
        (objective.over(chosen), objective.inputs[chosen], objective.targets[chosen]),
        (objective.over(slice(3, 9)), objective.inputs[3:9], objective.targets[3:9]),
        (objective.limited(4), objective.inputs[:4], objective.targets[:4]),
    ):
        assert part.inputs.equal(inputs)
        assert part.targets.equal(targets)


def test_a_trial_says_what_does_not_fit():
    objective = case()
    assert objective.tried("digits").shape == (2, 3)
    with pytest.raises(DataError, match=r"take inputs of shape \(5,\) of digits, but: mat1"):
        Objective(objective.network, torch.zeros(3, 5), torch.arange(3)).tried("digits")
    with pytest.raises(DataError, match=r"digits: labels must lie in 0 … 2 .* got 0 … 3"):
        Objective(objective.network, torch.zeros(4, 4), torch.arange(4)).tried("digits")


def test_a_module_in_place_of_its_network_is_told_how_to_become_one():
    with pytest.raises(DataError, match=r"network must be a Network, got the module Linear; wrap it: Network\.of\("):
        Objective(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))  # pyright: ignore[reportArgumentType]
