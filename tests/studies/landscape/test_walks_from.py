"""Walks around one solution, as a study asks for them."""

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.studies.landscape.walks import Manner, walk_from


def test_the_level_lies_above_the_loss_that_walkers_see_at_the_start():
    """Running statistics that are far off: estimated anew, the start has another loss than as it was saved."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    module[1].running_mean.fill_(4.0)
    inputs = torch.randn(60, 3)
    objective = Objective(Network.of(module), inputs, torch.arange(60) % 3)
    weights = objective.network.weights
    found = walk_from(
        weights, objective, name="one", manner=Manner(method="level", steps=4, walkers=2, rise=0.25), inputs=inputs
    )
    assert float(found.walk.loss[0, 0]) != pytest.approx(objective(weights).loss, abs=1e-3)
    assert found.walk.settings["level"] == pytest.approx(float(found.walk.loss[0, 0]) + 0.25, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "flight"}, "method must be one of"),
        ({"steps": 4, "descend": (5,)}, "walkers can descend after 1 … 4 steps"),
        ({"gradients": 0}, "gradients of a descent must be at least 1, got 0"),
    ],
)
def test_manners_that_cannot_be(settings, said):
    with pytest.raises(SettingError, match=said):
        Manner(**settings)
