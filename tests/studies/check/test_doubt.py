"""What limits a check: labels that were made wrong are counted and named; the gradient's noise agrees with its law."""

import pytest
import torch
from torch import nn

from isthmus.core.errors import DataError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.noise import gradient_noise
from isthmus.studies.check.doubt import doubt, signal
from isthmus.studies.check.views import view


def case(examples=400, classes=4, flipped=0, seed=0):
    """Classes that a linear model tells apart almost surely, with some labels made wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % classes
    inputs = 4 * nn.functional.one_hot(labels, classes).double() + torch.randn(
        examples, classes, generator=generator, dtype=torch.float64
    )
    wrong = torch.randperm(examples, generator=generator)[:flipped]
    given = labels.clone()
    given[wrong] = (labels[wrong] + 1) % classes
    module = nn.Linear(classes, classes).double()
    weights = {"weight": torch.eye(classes, dtype=torch.float64), "bias": torch.zeros(classes, dtype=torch.float64)}
    return Objective(Network.of(module), inputs, given), weights, set(wrong.tolist())


@pytest.mark.parametrize("flipped", [0, 40, 80])
def test_labels_that_were_made_wrong_are_counted_and_named(flipped):
    objective, weights, wrong = case(flipped=flipped)
    seen = [view(objective, weights, keep=True)] * 2
    found = doubt(seen, objective, [weights], names=["a"], unseen=True)
    assert found.label_share == pytest.approx(flipped / 400, abs=0.02)
    assert len(set(found.suspects) - wrong) <= 1
    assert len(found.suspects) == min(20, flipped) or not flipped


def test_labels_that_the_models_were_trained_on_say_nothing():
    objective, weights, _ = case(flipped=40)
    found = doubt([view(objective, weights, keep=True)], objective, [], names=[], unseen=False)
    assert found.label_share is None
    assert found.suspects == ()
    assert found.disagreement == pytest.approx(0.1, abs=0.02)


def test_one_class_alone_can_be_mistaken_for_nothing():
    objective, weights, _ = case()
    one = Objective(objective.network, objective.inputs[::4], objective.targets[::4])
    assert doubt([view(one, weights, keep=True)], one, [weights], names=["a"], unseen=True).label_share is None


def test_the_noise_scale_agrees_with_that_of_single_gradients():
    """The spread of eight means has 7 degrees of freedom for each entry: 20 entries give its mean to about a fifth."""
    scales, exact = [], []
    for seed in range(8):
        objective, weights, _ = case(examples=800, flipped=160, seed=seed)
        scales.append(signal(objective, weights).noise_scale)
        exact.append(gradient_noise(objective, weights, leading=1).noise_scale)
    assert sum(scales) == pytest.approx(sum(exact), rel=0.2)


def test_at_a_minimum_there_is_no_signal_and_far_from_it_there_is():
    objective, weights, _ = case(examples=800)
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    far = signal(objective, weights)
    for _ in range(3000):
        _, gradient = objective.gradient(weights)
        weights = {name: tensor - 2.0 * gradient[name] for name, tensor in weights.items()}
    near = signal(objective, weights)
    assert far.to_noise > 10 * near.to_noise
    assert far.noise_scale is not None


def test_one_example_has_no_noise_to_measure():
    objective, weights, _ = case()
    with pytest.raises(DataError, match="at least 2 examples, got 1"):
        signal(objective.limited(1), weights)
    assert signal(objective.limited(3), weights).examples == 3
