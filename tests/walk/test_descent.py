"""Descent without noise, on a bowl whose minimum is known and between two wells."""

import pytest
import torch
from tests.walk.quadratic import bowl
from tests.walk.test_returns import _TwoWells, _wells

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.walk import Descent


def test_the_bottom_of_a_bowl_is_found_and_the_loss_never_rises():
    objective, start = bowl([1.0, 4.0, 0.2], start=[1.0, -2.0, 3.0])
    losses = [objective(Descent(objective, steps=steps, tolerance=0.0)(start)).loss for steps in (1, 2, 5, 20, 200)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-10
    assert torch.equal(start["theta"], torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))


def test_every_side_falls_into_its_own_well():
    objective = Objective(Network.of(_TwoWells()), torch.ones(1, 1, dtype=torch.float64), torch.zeros(1), _wells, {})
    for start in (0.3, 2.0, -0.3, -2.0):
        weights = {"theta": torch.tensor([start, 0.5], dtype=torch.float64)}
        below = Descent(objective, tolerance=0.0)(weights)["theta"]
        assert below.tolist() == pytest.approx([1.0 if start > 0 else -1.0, 0.0], abs=1e-4)


def test_a_descent_says_whether_the_loss_had_stopped_falling():
    objective, start = bowl([1.0, 400.0], start=[1.0, -2.0])
    early = Descent(objective, steps=3).settle(start)
    weights, late = Descent(objective, steps=5000).settle(start)
    assert not early[1]
    assert late
    assert objective(weights).loss < objective(early[0]).loss


def test_refresh_sees_every_place():
    objective, start = bowl([1.0], start=[1.0])
    seen = []

    def refresh(weights):
        seen.append(float(weights["theta"]))
        return weights

    below = Descent(objective, steps=3, refresh=refresh)(start)
    assert seen[0] == 1.0
    assert float(below["theta"]) in seen


def test_settings_that_cannot_be():
    objective, _ = bowl([1.0])
    with pytest.raises(SettingError, match="steps must be at least 1"):
        Descent(objective, steps=0)
