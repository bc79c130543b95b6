"""Matchers by name: every name gives its own, and what is missing is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.studies.matchers import BY_DATA, METHODS, matcher


def test_every_name_gives_a_matcher_of_its_own():
    network, inputs = Network.of(nn.Linear(3, 2)), torch.randn(2500, 3)
    objective = Objective(network, inputs, torch.zeros(2500, dtype=torch.int64))
    found = {method: matcher(method, network, inputs, objective=objective) for method in METHODS}
    assert len({repr(one) for one in found.values()}) == len(METHODS)
    assert len(found["activations"].inputs) == 2000


@pytest.mark.parametrize(("method", "says"), [*[(name, "must have data") for name in BY_DATA], ("magic", "got magic")])
def test_what_is_missing_is_said(method, says):
    with pytest.raises(SettingError, match=says):
        matcher(method)
