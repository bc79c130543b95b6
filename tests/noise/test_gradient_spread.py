"""The spread of the gradient against the standard error of a mean, and against labels whose effect is known."""

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.noise import (
    PerExampleGradients,
    gradient_under_augmentation,
    gradient_under_label_noise,
    gradient_under_resampling,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return Objective(
        Network.of(nn.Linear(3, 4).double()), torch.randn(90, 3).double(), torch.arange(90) % 4, batch_size=40
    )


@pytest.mark.parametrize("memory", [0, 2**30])
def test_resampled_gradients_add_their_variance_to_the_length(objective, memory):
    """E‖ḡ'‖² = ‖ḡ‖² + tr C/n, with C the covariance over the examples themselves."""
    weights = objective.network.weights
    gradients = PerExampleGradients.at(objective, weights, memory=memory)
    length, turn = gradient_under_resampling(gradients, generator=seeded(), draws=4000)
    rows = torch.cat(list(gradients.chunks()))
    noise = float((rows - rows.mean(0)).square().sum()) / 90 / 90
    assert length.value == pytest.approx(float(rows.mean(0).norm()), rel=1e-9)
    assert length.mean**2 + length.deviation**2 == pytest.approx(
        length.value**2 + noise, rel=0.04
    )  # of 4,000 draws: five errors
    assert turn.value == 0
    assert 0 < turn.low < turn.high < 1


def test_no_wrong_label_turns_nothing_and_all_wrong_ones_do(objective):
    weights = objective.network.weights
    _, none = gradient_under_label_noise(objective, weights, share=0.0, classes=4, generator=seeded(), draws=2)
    assert none.high == pytest.approx(0, abs=1e-12)
    _, some = gradient_under_label_noise(objective, weights, share=1.0, classes=4, generator=seeded(), draws=5)
    assert some.mean > 0.1


def test_a_view_that_turns_the_gradient_around():
    """Linear regression through the origin on mirrored inputs: at zero weights the gradient is -2·mean(x·y)."""
    network = Network.of(nn.Linear(2, 1, bias=False).double())
    inputs = torch.randn(30, 2, generator=seeded()).double()
    objective = Objective(network, inputs, inputs.sum(1, keepdim=True), loss=squared_error, metrics={})
    weights = {"weight": torch.zeros(1, 2).double()}
    length, turn = gradient_under_augmentation(
        objective, weights, lambda parts, _: tuple(-part for part in parts), generator=seeded(), draws=2
    )
    assert turn.mean == pytest.approx(2)
    assert length.mean == pytest.approx(length.value)
    with pytest.raises(SettingError, match="at least 2"):
        gradient_under_augmentation(objective, weights, lambda parts, _: parts, generator=seeded(), draws=1)


def test_a_single_draw_has_no_spread(objective):
    weights, generator = objective.network.weights, seeded()
    with pytest.raises(SettingError, match="draws must be at least"):
        gradient_under_resampling(PerExampleGradients.at(objective, weights), generator=generator, draws=1)
    with pytest.raises(SettingError, match="draws must be at least"):
        gradient_under_label_noise(objective, weights, share=0.1, classes=4, generator=generator, draws=1)
    with pytest.raises(SettingError, match="draws must be at least"):
        gradient_under_augmentation(objective, weights, lambda *parts: parts[:-1], generator=generator, draws=1)
