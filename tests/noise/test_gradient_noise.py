import dataclasses
import math

import pytest
import torch
from torch import nn

from isthmus.core.errors import DataError, WeightsError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import flatten, to
from isthmus.noise import PerExampleGradients, gradient_noise, gradient_under_resampling


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    return Objective(network, torch.randn(31, 4), torch.randint(3, (31,)), batch_size=8)


@pytest.fixture
def single(classifier):
    """Every example's gradient by an objective of its own, float64."""
    weights = to(classifier.network.weights, dtype=torch.float64)
    rows = []
    for place in range(31):
        part = slice(place, place + 1)
        one = dataclasses.replace(classifier, inputs=classifier.inputs[part], targets=classifier.targets[part])
        rows.append(flatten(one.gradient(weights)[1]))
    return torch.stack(rows)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_gradients_of_single_examples(classifier, single, memory):
    gradients = PerExampleGradients.at(classifier, classifier.network.weights, dtype=torch.float64, memory=memory)
    for _ in range(2):
        assert torch.allclose(torch.cat(list(gradients.chunks())), single, rtol=1e-10, atol=1e-14)
    assert bool(gradients.kept) == bool(memory)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_everything_from_the_full_matrix(classifier, single, memory):
    covariance = single.T.cov()
    vectors = torch.linalg.qr(torch.randn(43, 4, dtype=torch.float64)).Q
    values = torch.tensor([4.0, 3.0, 2.0, 1.0])
    weights = classifier.network.weights
    found = gradient_noise(
        classifier, weights, eigenbasis=(values, vectors), leading=3, dtype=torch.float64, memory=memory
    )
    truth, basis = torch.linalg.eigh(covariance)
    assert torch.allclose(found.values, truth.flip(0)[:3], rtol=1e-5)
    assert found.total.variance == pytest.approx(float(covariance.trace()), rel=1e-10)
    assert found.total.gradient_norm == pytest.approx(float(single.mean(0).norm()), rel=1e-10)
    noise = (vectors * (covariance @ vectors)).sum(0)
    assert torch.allclose(found.eigenbasis.noise, noise, rtol=1e-9)
    inside = (basis[:, -3:].T @ vectors).square().sum(0)
    assert torch.allclose(found.eigenbasis.inside, inside, atol=1e-3)
    order = noise.argsort(descending=True).argsort().double()
    expected = torch.corrcoef(torch.stack([order, torch.arange(4).double()]))[0, 1]
    assert found.eigenbasis.rank_correlation == pytest.approx(float(expected))
    shares = (single - single.mean(0)).square().sum(1)
    assert torch.allclose(found.example_share, shares / shares.sum(), rtol=1e-9)
    assert found.loudest(1).item() == int(shares.argmax())
    by_class = [float(found.example_share[classifier.targets == c].sum()) for c in range(3)]
    assert found.class_share.tolist() == pytest.approx(by_class)
    first = single[:, :25]
    assert found.layers["0"].variance == pytest.approx(float(first.T.cov().trace()), rel=1e-10)
    assert list(found.layers) == ["0", "2"]


def test_of_a_small_network_the_leading_directions_come_first():
    """Of so few parameters the covariance is decomposed whole, in another way than a large one."""
    network = Network.of(nn.Linear(3, 2).double())
    inputs, targets = torch.randn(40, 3, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.2]), torch.arange(40) % 2
    objective = Objective(network, inputs, targets, batch_size=16)
    found = gradient_noise(objective, network.weights, leading=3)
    # ∂/∂W of the cross entropy is (p − y)·xᵀ, that by the bias p − y.
    slopes = network(network.weights, inputs).softmax(1) - nn.functional.one_hot(targets, 2)
    rows = torch.cat([(slopes[:, :, None] * inputs[:, None]).flatten(1), slopes], 1)
    truth, basis = torch.linalg.eigh(rows.T.cov())
    assert torch.allclose(found.values, truth.flip(0)[:3], rtol=1e-9)
    assert torch.allclose((found.vectors * basis.flip(1)[:, :3]).sum(0).abs(), torch.ones(3, dtype=torch.float64))


def test_the_noise_scale_is_what_was_planted():
    """Squared error of a constant prediction: the gradient of example i is 2(w − y_i), so all is known."""
    generator = torch.Generator().manual_seed(3)
    targets = 1.0 + 2.0 * torch.randn(20000, 1, generator=generator, dtype=torch.float64)
    network = Network.of(nn.Linear(1, 1, bias=False).double())
    objective = Objective(
        network, torch.ones(20000, 1, dtype=torch.float64), targets, loss=squared_error, metrics={}, batch_size=5000
    )
    found = gradient_noise(objective, {"weight": torch.tensor([[2.0]], dtype=torch.float64)})
    # Mean 2(2−1) = 2, variance (2·2)² = 16: a noise scale of 4.
    assert found.noise_scale == pytest.approx(4, rel=0.06)
    assert found.total.signal_to_noise == pytest.approx(20000 / found.noise_scale)
    at_minimum = {"weight": targets.mean().view(1, 1)}
    assert gradient_noise(objective, at_minimum).noise_scale == math.inf
    assert found.class_share is None


def test_a_model_of_tokens_and_a_layer_that_cannot_be_vectorised():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.cell, self.read = nn.Embedding(5, 3), nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 5)

        def forward(self, tokens):
            return self.read(self.cell(self.embed(tokens))[0])

    torch.manual_seed(1)
    network = Network.of(Recurrent())
    tokens = torch.randint(5, (6, 4))
    objective = Objective(network, tokens, tokens.roll(-1, 1), batch_size=4)
    gradients = PerExampleGradients.at(objective, network.weights)
    expected = flatten(objective.gradient(network.weights)[1])
    assert torch.allclose(gradients.mean().float(), expected, atol=1e-6)


def test_half_precision_and_some_tensors_only(classifier):
    weights = to(classifier.network.weights, dtype=torch.bfloat16)
    found = gradient_noise(classifier, weights, tensors=["2.weight"], leading=2)
    assert found.vectors.shape == (15, 2)
    assert list(found.layers) == ["2"]


def test_what_is_refused(classifier):
    weights = classifier.network.weights
    with pytest.raises(DataError, match="at least 2 examples"):
        gradient_noise(classifier.limited(1), weights)
    with pytest.raises(WeightsError, match="columns of 43 entries"):
        gradient_noise(classifier, weights, eigenbasis=(torch.ones(2), torch.ones(40, 2)))
    with pytest.raises(WeightsError, match="unknown: nope"):
        gradient_noise(classifier, weights, tensors=["nope"])


def test_unequal_numbers_of_tokens_weigh_as_in_the_objective():
    """Single gradients average to the objective's; of resampled ones only the values that count are divided by."""
    torch.manual_seed(0)
    network = Network.of(torch.nn.Sequential(torch.nn.Embedding(7, 5), torch.nn.Linear(5, 4)).double())
    tokens, targets = torch.randint(7, (20, 6)), torch.randint(4, (20, 6))
    for place, row in enumerate(targets):
        row[place % 5 + 1 :] = -100
    targets[-1] = -100
    objective = Objective(network, tokens, targets, batch_size=7)
    truth = flatten(objective.gradient(network.weights)[1], tensors=network.parameter_names)
    for memory in (0, 2**30):
        gradients = PerExampleGradients.at(objective, network.weights, memory=memory)
        assert torch.allclose(gradients.mean(), truth, atol=1e-12)
    assert not torch.cat(list(gradients.chunks()))[-1].any()
    assert gradient_noise(objective, network.weights).total.gradient_norm == pytest.approx(float(truth.norm()))
    generator = torch.Generator().manual_seed(0)
    length, _ = gradient_under_resampling(gradients, generator=generator, draws=2)
    drawn = torch.randint(20, (2, 20), generator=generator.manual_seed(0))
    again = [flatten(objective.over(places).gradient(network.weights)[1], tensors=network.parameter_names).norm()
             for places in drawn]  # fmt: skip
    assert length.mean == pytest.approx(float(sum(again)) / 2)
