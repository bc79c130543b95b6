"""The stationary law on quadratics and on a network that was brought to its minimum."""

import dataclasses
import math

import pytest
import torch

from isthmus.core.errors import DataError, SettingError, WeightsError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.noise import Bowl, settled, stationary
from isthmus.report.section import section
from isthmus.studies.redundancy.stationary import Walking, judged, on_network, on_quadratics
from isthmus.zoo import load_data
from isthmus.zoo.networks import network

DECAY = 0.02


@pytest.fixture(scope="module")
def place():
    """A small smooth network on digits at a true minimum: weight decay gives it one."""
    data = load_data("digits").limited(120)
    module = network("mlp-4x1", inputs=(1, 8, 8), activation="tanh", seed=0)
    objective = Objective(Network.of(module), data.train_inputs, data.train_targets)
    start = {name: tensor.double() for name, tensor in module.state_dict().items()}
    return objective, settled(objective, start, weight_decay=DECAY, iterations=600).weights


@pytest.mark.slow
def test_quadratics_obey_within_five_percent():
    for law in on_quadratics():
        assert (law.found.ratio - 1).abs().max() < 0.05, law.kind
        assert law.ratio.low < 1.01
        assert law.ratio.high > 0.99
    spreads = {law.kind: law.spread for law in on_quadratics(("labels", "isotropic"), walkers=256)}
    assert spreads["labels"] < 1.5 < 100 < spreads["isotropic"]


def test_a_trained_network_obeys(place):
    walking = Walking(batch_size=32, walkers=32, steps=260)
    found = on_network(
        *place, kinds=("sampling", "labels", "isotropic", "moving"), pairs=4, weight_decay=DECAY, walking=walking
    )
    assert found.gradient_norm < 1e-5
    assert found.lowest > 0
    for law in found.network:
        assert law.found.relaxed.all(), law.kind
        assert law.ratio.low < 1.1, law.kind
        assert law.ratio.high > 0.9, law.kind
        assert law.ratio.high - law.ratio.low < 0.4
    by_kind = {law.kind: law for law in found.network}
    assert by_kind["labels"].expected_spread < 1.2  # λ cancels
    assert by_kind["moving"].found.predicted[0] > by_kind["moving"].found.predicted[-1]
    assert by_kind["isotropic"].found.predicted[0] < by_kind["isotropic"].found.predicted[-1]


def test_it_is_drawn_and_marks_what_has_not_relaxed(place):
    found = on_network(*place, kinds=("sampling",), pairs=8, weight_decay=DECAY, walking=Walking(walkers=4, steps=90))
    [law] = found.network
    assert law.found.relaxed.tolist() == sorted(law.found.relaxed.tolist(), reverse=True)
    assert law.found.relaxed[0]
    assert not law.found.relaxed[-1]
    assert law.intervals[0] is not None
    assert law.intervals[-1] is None
    drawn = section(found)
    states = [row[-1] for row in drawn.tables[1].rows]
    assert states[0] == "relaxed"
    assert states[-1] == "not relaxed: left out"
    assert len(drawn.figures) == 1
    assert "batches of the data" in drawn.headline
    assert len(section(found, language="ja").tables) == len(drawn.tables)


def test_the_mean_ratio_has_an_interval_over_walkers():
    values = torch.tensor([0.5, 1.0], dtype=torch.float64)
    found = stationary(
        Bowl(values, values), torch.zeros(2, dtype=torch.float64), values=values, noise=values, rate=0.2, batch_size=1,
        steps=400, walkers=50, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    law = judged("labels", found)
    assert law.ratio.estimate == pytest.approx(float(found.ratio.mean()), rel=1e-9)
    assert law.ratio.networks == 50
    expected = 2.0096 * float((found.each.mean(1)).std()) / math.sqrt(50)  # Student, 49 degrees
    assert law.ratio.high - law.ratio.estimate == pytest.approx(expected, rel=1e-3)


def test_what_is_no_minimum_is_refused_unless_forced(place):
    objective, weights = place
    elsewhere = {name: tensor * 1.5 for name, tensor in weights.items()}
    walking = Walking(walkers=2, steps=10)
    with pytest.raises(WeightsError, match=r"needs a minimum, but .* gradient's norm is .* lowest curvature"):
        on_network(objective, elsewhere, kinds=("sampling",), pairs=2, walking=walking)
    forced = on_network(objective, elsewhere, kinds=("sampling",), pairs=2, walking=walking, forced=True)
    assert forced.forced
    # Its own labels make any place a minimum.
    on_network(objective, elsewhere, kinds=("labels",), pairs=2, walking=walking)


def test_refusals(place):
    objective, weights = place
    with pytest.raises(SettingError, match="noise must be some of"):
        on_network(objective, weights, kinds=("thermal",))
    with pytest.raises(SettingError, match=r"below 2/λ_max"):
        on_network(objective, weights, kinds=("sampling",), weight_decay=DECAY, walking=Walking(rate=100.0))
    with pytest.raises(SettingError, match=r"below 2/λ_max = 0\.6667"):
        on_quadratics(rate=0.7)
    numbers = dataclasses.replace(
        objective, targets=torch.zeros(len(objective.targets), 10), loss=squared_error, metrics={}
    )
    with pytest.raises(DataError, match="label noise needs one class"):
        on_network(numbers, weights, kinds=("labels",), forced=True)
