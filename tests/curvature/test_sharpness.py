import dataclasses
import math

import pytest
import torch
from torch import nn

from isthmus.core.canonical import rescaled
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.core.weights import to
from isthmus.curvature import adaptive_worst_case, random_sharpness, worst_case


@pytest.fixture
def bowl():
    """A linear map at its minimum: the loss is ½·wᵀAw with A = 2·XᵀX/n known."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(40, 5, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    target = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0], dtype=torch.float64)
    network = Network.of(nn.Linear(5, 1, bias=False).double())
    objective = Objective(network, inputs, inputs @ target[:, None], loss=squared_error, metrics={}, batch_size=16)
    return objective, {"weight": target[None]}, 2 * inputs.T @ inputs / 40


def start(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_the_worst_case_of_a_quadratic_is_its_largest_eigenvalue(bowl):
    objective, weights, matrix = bowl
    found = worst_case(objective, weights, radius=0.2, steps=40, start=start(5))
    assert found.rise == pytest.approx(0.5 * 0.2**2 * float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-9)
    assert (found.rises.diff() >= 0).all()
    assert found.interval is None


def test_the_adaptive_worst_case_scales_the_matrix_by_the_weights(bowl):
    objective, weights, matrix = bowl
    size = weights["weight"][0].abs()
    scaled = size[:, None] * matrix * size
    found = adaptive_worst_case(objective, weights, radius=0.2, steps=60, start=start(5))
    assert found.rise == pytest.approx(0.5 * 0.2**2 * float(torch.linalg.eigvalsh(scaled)[-1]), rel=1e-6)


def test_one_step_is_the_step_along_the_gradient(bowl):
    """SAM's estimate: the loss at w + radius·g/‖g‖."""
    objective, weights, _ = bowl
    away = {"weight": weights["weight"] + 0.3}
    gradient = objective.gradient(away)[1]["weight"]
    moved = {"weight": away["weight"] + 0.1 * gradient / gradient.norm()}
    expected = objective(moved).loss - objective(away).loss
    assert worst_case(objective, away, radius=0.1, steps=1).rise == pytest.approx(expected, rel=1e-12)


def test_at_an_exact_minimum_without_a_start_nothing_is_found(bowl):
    objective, weights, _ = bowl
    assert worst_case(objective, weights, radius=0.1, steps=3).rise == pytest.approx(0, abs=1e-12)


def test_random_sharpness_of_a_quadratic_is_half_the_mean_curvature(bowl):
    """A filter of length ‖w‖: the mean rise is ½·(radius·‖w‖)²·tr(A)/5, for directions uniform on the sphere."""
    objective, weights, matrix = bowl
    generator = torch.Generator().manual_seed(0)
    found = random_sharpness(objective, weights, generator=generator, radius=0.1, directions=400)
    expected = 0.5 * 0.01 * float(weights["weight"].square().sum()) * float(matrix.trace()) / 5
    # Four standard errors of the sample.
    error = float(found.rises.std()) / math.sqrt(400)
    assert abs(found.rise - expected) < 4 * error
    assert found.interval.low < found.rise < found.interval.high


@pytest.fixture
def relu():
    torch.manual_seed(3)
    network = Network.of(nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double())
    index = torch.arange(6)[:, None]
    group = UnitGroup("h", 6, (Site("0.weight", 0, index), Site("2.weight", 1, index, power=-1.0)), kind="scale")
    symmetry = Symmetry((group,), {name: tuple(t.shape) for name, t in network.weights.items()})
    objective = Objective(network, torch.randn(20, 4).double(), torch.randint(3, (20,)), batch_size=7)
    factors = {"h": torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0, 20.0])}
    return objective, network.weights, rescaled(symmetry, network.weights, factors)


def test_adaptive_sharpness_does_not_see_the_scale_and_plain_does(relu):
    objective, weights, other = relu
    assert objective(other).loss == pytest.approx(objective(weights).loss, rel=1e-12)
    one, two = (adaptive_worst_case(objective, w, radius=0.3, steps=5).rise for w in (weights, other))
    assert one == pytest.approx(two, rel=1e-9)
    one, two = (worst_case(objective, w, radius=0.05, steps=5).rise for w in (weights, other))
    assert two > 2 * one


def test_filters_are_perturbed_in_proportion_to_their_length():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    network = Network.of(module)
    seen = []

    class Watched(Objective):
        def __call__(self, weights):
            seen.append(weights)
            return super().__call__(weights)

    objective = Watched(network, torch.randn(5, 2, 4, 4), torch.randint(2, (5,)))
    random_sharpness(objective, network.weights, generator=torch.Generator().manual_seed(0), radius=0.25, directions=2)
    moved = seen[1]
    for name in ("0.weight", "3.weight"):
        length = (moved[name] - network.weights[name]).flatten(1).norm(dim=1)
        assert torch.allclose(length, 0.25 * network.weights[name].flatten(1).norm(dim=1), rtol=1e-4)
    assert torch.equal(moved["0.bias"], network.weights["0.bias"])


def test_half_precision_weights_are_moved_in_float32(classifier):
    weights = to(classifier.network.weights, dtype=torch.bfloat16)
    wide = to(weights, dtype=torch.float32)
    for measure in (worst_case, adaptive_worst_case):
        assert measure(classifier, weights, steps=3).rise == measure(classifier, wide, steps=3).rise


def test_what_is_refused(bowl):
    objective, weights, _ = bowl
    with pytest.raises(SettingError, match="radius must be positive, got 0"):
        worst_case(objective, weights, radius=0)
    with pytest.raises(SettingError, match="steps must be at least 1, got 0"):
        adaptive_worst_case(objective, weights, steps=0)
    with pytest.raises(SettingError, match="directions must be at least 2"):
        random_sharpness(objective, weights, generator=torch.Generator(), directions=1)
    with pytest.raises(WeightsError, match="start must have 5 entries"):
        worst_case(objective, weights, start=torch.ones(4))
    plain = dataclasses.replace(objective, network=Network.of(nn.LayerNorm(5).double()), metrics={})
    with pytest.raises(WeightsError, match="two or more axes"):
        random_sharpness(plain, plain.network.weights, generator=torch.Generator())
