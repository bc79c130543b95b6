"""Fisher's information and regression means: closed forms of softmax regression, normal equations, sampling."""

import math

import numpy as np
import pytest
import torch
from tests.merge.by_hand import one
from torch import nn

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.losses import cross_entropy, squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.merge import Fisher, Mean, RegMean, diagonal_fisher


def linear_setting(seed: int, examples: int = 30):
    generator = torch.Generator().manual_seed(seed)
    module = nn.Linear(4, 3).double()
    inputs = torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (examples,), generator=generator)
    return Objective(Network.of(module), inputs, targets, batch_size=7)


def linear_weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    return {"weight": torch.randn(3, 4, generator=generator, dtype=torch.float64),
            "bias": torch.randn(3, generator=generator, dtype=torch.float64)}  # fmt: skip


def test_fisher_of_softmax_regression_has_a_closed_form():
    objective, weights = linear_setting(0), linear_weights(0)
    p = (objective.inputs @ weights["weight"].mT + weights["bias"]).softmax(1)
    # E_y[(p_c − 1[y = c])²] = p_c(1 − p_c); times the squared input for weights.
    spread = p * (1 - p)
    found = diagonal_fisher(objective, weights)
    torch.testing.assert_close(found["bias"], spread.mean(0))
    torch.testing.assert_close(found["weight"], torch.einsum("nc,ni->ci", spread, objective.inputs**2) / 30)


def test_empirical_fisher_is_the_mean_of_squared_gradients():
    objective, weights = linear_setting(1), linear_weights(1)
    found = diagonal_fisher(objective, weights, labels="data", examples=20)
    squares = []
    for place in range(20):
        alone = Objective(objective.network, objective.inputs[place : place + 1], objective.targets[place : place + 1])
        squares.append(alone.gradient(weights)[1]["weight"] ** 2)
    torch.testing.assert_close(found["weight"], torch.stack(squares).mean(0))


def test_sampled_fisher_converges_to_the_expected_one():
    objective, weights = linear_setting(2, examples=5), linear_weights(2)
    drawn_ones = [diagonal_fisher(objective, weights, labels="sampled", seed=seed)["bias"] for seed in range(400)]
    samples = torch.stack(drawn_ones)
    error = samples.std(0) / math.sqrt(400)
    assert bool(((samples.mean(0) - diagonal_fisher(objective, weights)["bias"]).abs() < 4.5 * error).all())


def test_fisher_mean_by_hand_and_where_nobody_is_sure():
    solutions = [one(0.0, 0.0, 2.0), one(4.0, 4.0, 4.0)]
    informations = [one(1.0, 3.0, 0.0), one(1.0, 1.0, 0.0)]
    found = Fisher([], floor=1e-12).weighted(solutions, informations, [1.0, 1.0])["w"]
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    with pytest.raises(SettingError, match="floor must be above 0"):
        Fisher([], floor=0.0)
    with pytest.raises(WeightsError, match="for each of 2 solutions, got 1"):
        Fisher([linear_setting(0)])([linear_weights(0), linear_weights(1)])


def test_regression_mean_solves_the_normal_equations():
    objectives, solutions = [linear_setting(seed) for seed in (0, 1)], [linear_weights(seed) for seed in (0, 1)]
    found = RegMean(objectives, shrink=1.0)(solutions)["weight"]
    # Stack the examples and ask numpy for the least-squares fit to what each solution computes on its own.
    rows = torch.cat([objective.inputs for objective in objectives])
    outputs = torch.cat([o.inputs @ w["weight"].mT for o, w in zip(objectives, solutions, strict=True)])
    expected = np.linalg.lstsq(rows.numpy(), outputs.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_regression_mean_without_off_diagonals_weighs_inputs_by_power():
    objectives, solutions = [linear_setting(seed) for seed in (0, 1)], [linear_weights(seed) for seed in (0, 1)]
    found = RegMean(objectives, shrink=0.0)(solutions)["weight"]
    powers = [(objective.inputs**2).mean(0) for objective in objectives]
    expected = sum(w["weight"] * p for w, p in zip(solutions, powers, strict=True)) / sum(powers)
    torch.testing.assert_close(found, expected)


def test_regression_mean_of_too_few_examples_keeps_the_mean_elsewhere():
    objective, solutions = linear_setting(0, examples=2), [linear_weights(seed) for seed in (0, 1)]
    found = RegMean(objective, shrink=1.0)(solutions)["weight"]
    middle = Mean()(solutions)["weight"]
    torch.testing.assert_close(found, middle)  # the same inputs for both: the fit is the mean, also where undetermined


def test_regression_mean_of_a_convolution_fits_its_outputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)).double()

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    module = Net()
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    objectives = [Objective(Network.of(module), draw(9, 2, 7, 6), torch.zeros(9, 3), squared_error, {}) for _ in "ab"]
    solutions = [{"conv.weight": draw(3, 2, 3, 2), "conv.bias": draw(3)} for _ in "ab"]
    found = RegMean(objectives, shrink=1.0)(solutions)

    def misfit(weight):
        total = 0.0
        for objective, solution in zip(objectives, solutions, strict=True):
            outputs = nn.functional.conv2d(
                objective.inputs, weight - solution["conv.weight"], None, (2, 1), (1, 0), (1, 2)
            )
            total += float(outputs.square().sum())
        return total

    best = misfit(found["conv.weight"])
    for _ in range(20):  # any step away from a least-squares solution costs
        assert misfit(found["conv.weight"] + 1e-3 * draw(3, 2, 3, 2)) > best
    assert misfit(Mean()(solutions)["conv.weight"]) > best


def test_cross_entropy_is_the_loss_that_expected_labels_mean():
    assert linear_setting(0).loss is cross_entropy


def test_a_regression_has_no_classes_to_expect():
    """Its outputs have two axes, too; softmax over them would be a number without meaning."""
    network = Network.of(torch.nn.Linear(3, 1))
    objective = Objective(network, torch.randn(6, 3), torch.randn(6), loss=squared_error, metrics={})
    with pytest.raises(
        SettingError, match=r"one class for each example, got \(6, 1\) and targets \(6,\) of torch.float"
    ):
        diagonal_fisher(objective, network.weights)
    assert diagonal_fisher(objective, network.weights, labels="data")["bias"].shape == (1,)


def test_regression_mean_weighs_solutions_alike_whatever_they_have_seen():
    """Each solution's inputs count as a mean: the same examples twice say nothing more."""
    generator = torch.Generator().manual_seed(0)
    network = Network.of(nn.Linear(3, 2, bias=False).double())
    inputs = [torch.randn(12, 3, generator=generator, dtype=torch.float64) * scale for scale in (1.0, 3.0)]
    solutions = [{"weight": torch.randn(2, 3, generator=generator, dtype=torch.float64)} for _ in range(2)]

    def merged(*seen):
        return RegMean([Objective(network, x, torch.zeros(len(x), dtype=torch.int64)) for x in seen])(solutions)

    once, twice = merged(*inputs), merged(inputs[0].repeat(2, 1), inputs[1])
    assert torch.allclose(once["weight"], twice["weight"], rtol=1e-10)
