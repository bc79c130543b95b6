"""Layer-wise barriers: exact where only one layer differs, equal to the whole line for the last of all up to one."""

import pytest
import torch
from torch import nn

from isthmus.connect import Line, barrier, layer_barriers
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


def made(seed, norm=False):
    torch.manual_seed(seed)
    middle = nn.BatchNorm1d(6) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(3, 6), middle, nn.ReLU(), nn.Linear(6, 4)).double()


def objective(norm=False):
    inputs = torch.randn(20, 3, generator=child(0, "x"), dtype=torch.float64)
    return Objective(Network.of(made(0, norm)), inputs, torch.arange(20) % 4)


def test_the_last_of_all_up_to_one_is_the_whole_line():
    start, end = (Network.of(made(seed)).weights for seed in (0, 1))
    result = layer_barriers(start, end, objective(), mode="up_to", points=7)
    whole = barrier(Line(start, end), objective(), points=7)
    assert result.layers == ("0", "3")
    assert torch.allclose(result.loss[-1], whole.loss, rtol=1e-12)
    assert torch.allclose(result.error[-1], whole.error)
    assert float(result.heights["loss_barrier"][-1]) == pytest.approx(whole.loss_barrier)


def test_only_one_layer_moves():
    start, end = (Network.of(made(seed)).weights for seed in (0, 1))
    result = layer_barriers(start, end, objective(), points=5)
    hybrid = {name: (end if name.startswith("3.") else start)[name] for name in start}
    assert float(result.loss[1, -1]) == objective()(hybrid).loss
    assert float(result.loss[1, 0]) == objective()(start).loss
    # The last layer alone: cross-entropy is convex in it, so no point lies above the chord.
    assert float(result.heights["loss_barrier"][1]) <= 1e-12
    some = layer_barriers(start, end, objective(), layers=["3"], points=5)
    assert torch.equal(some.loss[0], result.loss[1])


def test_a_layer_that_is_the_same_has_no_barrier():
    start, end = (dict(Network.of(made(seed)).weights) for seed in (0, 1))
    for name in ("0.weight", "0.bias"):
        end[name] = start[name]
    result = layer_barriers(start, end, objective(), points=5)
    assert float(result.loss[0].max() - result.loss[0].min()) <= 1e-15


def test_hybrids_are_judged_with_statistics_of_their_own():
    start, end = (Network.of(made(seed, norm=True)).weights for seed in (0, 1))
    goal = objective(norm=True)
    result = layer_barriers(start, end, goal, points=5, inputs=goal.inputs, mode="up_to")
    whole = barrier(Line(start, end), goal, points=5, inputs=goal.inputs).between_treated_ends()
    assert torch.allclose(result.loss[-1], whole.loss, rtol=1e-10)


def test_unknown_layers_and_modes_are_refused():
    start = Network.of(made(0)).weights
    with pytest.raises(SettingError, match="unknown: 7"):
        layer_barriers(start, start, objective(), layers=["7"])
    with pytest.raises(SettingError, match="mode must be only or up_to"):
        layer_barriers(start, start, objective(), mode="all")  # type: ignore[arg-type]
