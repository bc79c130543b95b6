"""What a study measures of networks and pairs, each number found a second way."""

import math

import pytest
import torch
from torch.nn import functional

from isthmus.studies.factors.measures import MEASURES, subject
from isthmus.train import Recipe
from isthmus.zoo import build

RECIPE = Recipe(network="mlp-8x1", settings={"inputs": (1, 8, 8)}, data="digits", subset=120)
SETTINGS = {"points": 5, "on": "test", "examples": 60, "statistics_examples": 50}


@pytest.fixture(scope="module")
def pair():
    """Two networks that were not trained, the second with some zeros."""
    weights = [{name: t.detach().clone() for name, t in build(RECIPE).state_dict().items()} for _ in range(2)]
    drawn = torch.Generator().manual_seed(5)
    for tensor in weights[1].values():
        tensor += 0.5 * torch.randn(tensor.shape, generator=drawn)
        if tensor.dim() == 2:
            tensor[0, :3] = 0.0
    return subject([RECIPE, RECIPE], weights, data_folder=None, device="cpu")


def flat(weights):
    return torch.cat([tensor.double().flatten() for tensor in weights.values()])


def scored(weights, inputs, targets):
    """Loss and error by the module itself."""
    module = build(RECIPE).eval()
    module.load_state_dict(weights)
    with torch.no_grad():
        outputs = module(inputs)
    wrong = (outputs.argmax(1) != targets).double().mean()
    return float(functional.cross_entropy(outputs.double(), targets)), float(wrong)


def measured(name, of):
    return MEASURES[name].function(of, SETTINGS)


def test_a_single_network_is_scored_on_its_own_training_set_and_on_the_whole_test_set(pair):
    found = measured("score", pair)
    loss, error = scored(pair.weights[0], pair.data.test_inputs, pair.data.test_targets)
    assert (found["test_loss"], found["test_error"]) == pytest.approx((loss, error), rel=1e-5)
    own = pair.objective("training")
    assert len(own.targets) == 120
    loss, error = scored(pair.weights[0], own.inputs, own.targets)
    assert (found["training_loss"], found["training_error"]) == pytest.approx((loss, error), rel=1e-5)


def test_the_size_is_of_the_first_network(pair):
    second = subject(pair.recipes[1:], pair.weights[1:], data_folder=None, device="cpu")
    for one in (pair, second):
        vector = flat(one.weights[0])
        found = measured("size", one)
        assert found["parameters"] == len(vector)
        assert found["nonzero_parameters"] == int((vector != 0).sum())
        assert found["norm"] == pytest.approx(float(vector.norm()), rel=1e-6)


def test_overlap_and_distance_are_the_vectors_own(pair):
    first, second = (flat(weights) for weights in pair.weights)
    found = measured("overlap", pair)
    assert found["overlap"] == pytest.approx(float(first @ second / first.norm() / second.norm()), rel=1e-6)
    assert found["distance"] == pytest.approx(float((first - second).norm()), rel=1e-6)


def test_the_barrier_is_that_of_the_line_from_the_first_to_the_second(pair):
    found = measured("barrier", pair)
    inputs, targets = pair.data.test_inputs[:60], pair.data.test_targets[:60]
    start, end = pair.weights
    losses, errors = [], []
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        between = {name: (1 - t) * start[name] + t * end[name] for name in start}
        loss, error = scored(between, inputs, targets)
        losses.append(loss)
        errors.append(error)
    assert found["loss"].tolist() == pytest.approx(losses, rel=1e-4)
    assert found["error"].tolist() == pytest.approx(errors, abs=1e-9)
    straight = [losses[0] + t * (losses[-1] - losses[0]) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found["loss_barrier"] == pytest.approx(max(a - b for a, b in zip(losses, straight, strict=True)), abs=1e-4)
    assert found["midpoint"] == pytest.approx(losses[2] - (losses[0] + losses[-1]) / 2, abs=1e-4)
    assert losses[0] != pytest.approx(losses[-1], rel=0.01)  # the ends can be told apart


def test_units_that_were_exchanged_are_brought_back_before_the_aligned_barrier(pair):
    """The second network is the first with three hidden units moved in a circle: five of eight stay."""
    order = [1, 2, 0, 3, 4, 5, 6, 7]
    first = pair.weights[1]
    incoming, bias, outgoing = [name for name in first if first[name].shape[0] == 8 or first[name].shape[-1] == 8]
    moved = {**first, incoming: first[incoming][order], bias: first[bias][order], outgoing: first[outgoing][:, order]}
    same = subject([RECIPE, RECIPE], [first, moved], data_folder=None, device="cpu")
    found = measured("aligned", same)
    assert found["aligned_overlap"] == pytest.approx(1.0, abs=1e-6)
    assert found["fixed_share"] == 5 / 8
    assert math.isclose(found["aligned_loss_barrier"], 0.0, abs_tol=1e-5)
    assert measured("overlap", same)["overlap"] < 0.95
