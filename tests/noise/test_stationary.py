import math

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.noise import Bowl, PerExampleGradients, Sampled, Shaken, gradient_noise, predicted_variance, stationary

VALUES = torch.tensor([0.4, 0.7, 1.0, 3.0], dtype=torch.float64)
NOISES = {"label": VALUES, "isotropic": torch.ones_like(VALUES), "moving optimum": VALUES.square()}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", NOISES)
def test_the_law_on_a_quadratic_within_five_percent(kind):
    noise = NOISES[kind]
    bowl = Bowl(VALUES, noise, batch_size=4)
    start = torch.zeros(4, dtype=torch.float64)
    found = stationary(
        bowl, start, values=VALUES, noise=noise, rate=0.1, batch_size=4, steps=1600, walkers=400, generator=seeded(1)
    )
    assert found.relaxed.all()
    assert (found.ratio - 1).abs().max() < 0.05
    assert found.spread == pytest.approx(float(found.predicted.max() / found.predicted.min()), rel=0.1)
    assert ((found.measured - found.predicted).abs() < 5 * found.errors).all()


@pytest.mark.parametrize("source", ["bowl", "shaken"])
def test_the_same_generator_gives_the_same_law_and_another_one_another(source, trained):
    objective, minimum, values, vectors = trained
    gradients = PerExampleGradients.at(objective, minimum)
    noisy = Bowl(VALUES, VALUES) if source == "bowl" else Shaken(gradients, 0.1, "isotropic")
    start, values = (torch.zeros(4, dtype=torch.float64), VALUES) if source == "bowl" else (gradients.vector, values)
    settings = {"rate": 0.1, "batch_size": 1, "walkers": 4, "steps": 20, "noise": values}
    if source == "shaken":
        settings["vectors"] = vectors
    first, again, other = (
        stationary(noisy, start, values=values, generator=seeded(seed), **settings).measured for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_formula_is_the_fixed_point_of_the_recursion():
    """v ← (1 − ηλ)²·v + η²C/n."""
    variance = torch.zeros(4, dtype=torch.float64)
    for _ in range(3000):
        variance = (1 - 0.3 * VALUES).square() * variance + 0.3**2 * NOISES["isotropic"] / 8
    assert torch.allclose(predicted_variance(VALUES, NOISES["isotropic"], rate=0.3, batch_size=8), variance, rtol=1e-12)


def test_label_noise_hides_the_curvature_and_other_noise_does_not():
    """Spread over λ from .01 to 3 at rate .1, in closed form: 1.2, about 255 and 353."""
    values = torch.tensor([0.01, 3.0], dtype=torch.float64)
    spreads = []
    for noise in (values, torch.ones_like(values), values.square()):
        predicted = predicted_variance(values, noise, rate=0.1, batch_size=1)
        spreads.append(float(predicted.max() / predicted.min()))
    assert spreads == pytest.approx([1.999 / 1.7, 300 * 1.7 / 1.999, 300 * 1.999 / 1.7])


def test_directions_that_have_not_relaxed_are_marked_and_left_out():
    values = torch.tensor([0.001, 1.0], dtype=torch.float64)
    start = torch.zeros(2, dtype=torch.float64)
    settings = {"noise": torch.ones_like(values), "rate": 0.1, "batch_size": 1, "walkers": 128, "steps": 400}
    found = stationary(Bowl(values, settings["noise"]), start, values=values, generator=seeded(), **settings)
    assert found.relaxed.tolist() == [False, True]
    assert math.isnan(found.ratio[0])
    assert float(found.measured[0]) < 0.2 * float(found.predicted[0])
    assert found.spread == 1


def test_a_rotated_basis_is_seen_through_its_vectors():
    basis = torch.linalg.qr(torch.randn(4, 4, generator=seeded(2), dtype=torch.float64)).Q
    matrix = (basis * VALUES) @ basis.T

    def gradients(positions, generator):
        drawn = torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        return positions @ matrix + drawn

    found = stationary(
        gradients,
        torch.zeros(4, dtype=torch.float64),
        values=VALUES,
        vectors=basis,
        noise=torch.ones(4),
        rate=0.1,
        batch_size=1,
        steps=800,
        walkers=256,
        generator=seeded(),
    )
    assert (found.ratio - 1).abs().max() < 0.08


@pytest.fixture
def trained():
    """Linear regression at its minimum: a network whose Hessian is constant, so that the law must hold."""
    torch.manual_seed(0)
    inputs = torch.randn(400, 3, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.7])
    targets = inputs @ torch.tensor([[1.0], [-1.0], [0.5]], dtype=torch.float64) + 0.3 * torch.randn(400, 1).double()
    network = Network.of(nn.Linear(3, 1, bias=False).double())
    objective = Objective(network, inputs, targets, loss=squared_error, metrics={})
    minimum = {"weight": torch.linalg.lstsq(inputs, targets).solution.T.contiguous()}
    values, vectors = torch.linalg.eigh(2 * inputs.T @ inputs / 400)
    return objective, minimum, values, vectors


def test_the_law_for_a_network_under_batch_sampling(trained):
    objective, minimum, values, vectors = trained
    noise = gradient_noise(objective, minimum, eigenbasis=(values, vectors))
    gradients = PerExampleGradients.at(objective, minimum)
    found = stationary(
        Sampled(gradients, batch_size=20),
        gradients.vector,
        values=values,
        vectors=vectors,
        noise=noise.eigenbasis.noise,
        rate=0.02,
        batch_size=20,
        steps=700,
        walkers=100,
        generator=seeded(),
        slope=gradients.mean(),
    )
    assert found.relaxed.all()
    # Noise that grows away from the minimum adds some percent at this rate; the sample a few more.
    assert (found.ratio - 1).abs().max() < 0.15
    assert (found.drift < 0.5).all()


def test_fresh_label_noise_gives_every_direction_the_same_variance(trained):
    """Squared error (y − ŷ)² with noise of variance s² in the target: C = 2s²λ and Var = ηs²·2/(n(2−ηλ))."""
    objective, minimum, values, vectors = trained
    gradients = PerExampleGradients.at(objective, minimum)

    def relabel(targets, generator):
        return targets + 2 * torch.randn(targets.shape, generator=generator, dtype=torch.float64)

    found = stationary(
        Sampled(gradients, batch_size=20, relabel=relabel),
        gradients.vector,
        values=values,
        vectors=vectors,
        noise=2 * 4 * values,
        rate=0.02,
        batch_size=20,
        steps=700,
        walkers=100,
        generator=seeded(),
    )
    assert (found.ratio - 1).abs().max() < 0.2
    assert found.spread < 1.3


@pytest.mark.parametrize("kind", ["isotropic", "moving"])
def test_noise_that_knows_nothing_of_the_data(trained, kind):
    """Isotropic: C/n = s². A moving optimum: C/n = (λs)². Exact, since the Hessian is constant."""
    objective, minimum, values, vectors = trained
    gradients = PerExampleGradients.at(objective, minimum)
    noise = (values.square() if kind == "moving" else torch.ones(3)) * 0.1**2
    found = stationary(
        Shaken(gradients, 0.1, kind),
        gradients.vector,
        values=values,
        vectors=vectors,
        noise=noise,
        rate=0.05,
        batch_size=1,
        steps=400,
        walkers=100,
        generator=seeded(),
        slope=gradients.mean(),
    )
    assert found.relaxed.all()
    assert (found.ratio - 1).abs().max() < 0.12
    assert torch.allclose(found.each.mean(0), found.ratio)


def test_weight_decay_adds_to_every_curvature(trained):
    """With decay d the minimum is ridge regression's and every eigenvalue grows by d."""
    objective, _, values, vectors = trained
    inputs, targets, decay = objective.inputs, objective.targets, 1.0
    matrix = 2 * inputs.T @ inputs / 400
    ridge = {"weight": torch.linalg.solve(matrix + decay * torch.eye(3), 2 * inputs.T @ targets / 400).T.contiguous()}
    gradients = PerExampleGradients.at(objective, ridge)
    noise = gradient_noise(objective, ridge, eigenbasis=(values, vectors)).eigenbasis.noise
    slope = gradients.mean() + decay * gradients.vector
    assert slope.norm() < 1e-12
    found = stationary(
        Sampled(gradients, batch_size=50, weight_decay=decay),
        gradients.vector,
        values=values + decay,
        vectors=vectors,
        noise=noise,
        rate=0.02,
        batch_size=50,
        steps=400,
        walkers=100,
        generator=seeded(),
        slope=slope,
    )
    assert (found.ratio - 1).abs().max() < 0.15
    assert (found.drift < 0.5).all()


def test_negative_curvature_outside_the_given_directions_is_refused(trained):
    objective, minimum, values, vectors = trained
    gradients = PerExampleGradients.at(objective, minimum)
    settings = {"noise": values, "rate": 0.01, "batch_size": 20, "steps": 10, "walkers": 2, "vectors": vectors}
    with pytest.raises(WeightsError, match=r"lowest curvature -0\.5"):
        stationary(Sampled(gradients, 20), gradients.vector, values=values, lowest=-0.5, generator=seeded(), **settings)


def test_no_minimum_is_refused_unless_forced(trained):
    objective, minimum, values, vectors = trained
    elsewhere = {"weight": minimum["weight"] + 1}
    gradients = PerExampleGradients.at(objective, elsewhere)
    settings = {"noise": values, "rate": 0.01, "batch_size": 20, "steps": 10, "walkers": 2, "vectors": vectors}
    sampled = Sampled(gradients, batch_size=20)
    with pytest.raises(WeightsError, match=r"needs a minimum, but the bottom lies beyond .* gradient's norm is"):
        stationary(sampled, gradients.vector, values=values, generator=seeded(), slope=gradients.mean(), **settings)
    stationary(
        sampled, gradients.vector, values=values, generator=seeded(), slope=gradients.mean(), forced=True, **settings
    )
    bent = values.clone()
    bent[0] = -1
    with pytest.raises(WeightsError, match="lowest curvature -1"):
        stationary(sampled, gradients.vector, values=bent, generator=seeded(), **settings)


def test_what_is_refused():
    start, noise = torch.zeros(4, dtype=torch.float64), torch.ones(4)
    with pytest.raises(SettingError, match=r"below 2/λ_max = 0\.6667 or SGD diverges, got 0\.7"):
        predicted_variance(VALUES, noise, rate=0.7, batch_size=1)
    with pytest.raises(SettingError, match="at least 2 walkers and 10 steps, got 1 and 100"):
        stationary(
            Bowl(VALUES, noise),
            start,
            values=VALUES,
            noise=noise,
            rate=0.1,
            batch_size=1,
            steps=100,
            walkers=1,
            generator=seeded(),
        )
