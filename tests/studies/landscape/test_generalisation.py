"""Sharpness against the gap at one training loss: the networks are matched, independent, and measured on their own."""

import dataclasses

import pytest

from isthmus.core.errors import SettingError
from isthmus.studies.landscape.generalisation import Grid, generalisation
from isthmus.train import Recipe
from isthmus.zoo import load_data
from isthmus.zoo.models import build

RECIPE = Recipe(network="mlp-8x1", settings={"inputs": [1, 8, 8], "classes": 10}, epochs=14, label_noise=0.1)
GRID = Grid(rates=(0.02, 0.05), batch_sizes=(32,), networks=4, target=0.9, tolerance=0.3)


@pytest.fixture(scope="module")
def data():
    return load_data("digits").limited(300)


@pytest.fixture(scope="module")
def found(data):
    return generalisation(RECIPE, data=data, module=build, grid=GRID, products=12)


def test_networks_are_looked_at_where_their_loss_is_nearest_to_the_target(found):
    assert len(found.subjects) == 8
    assert found.diverged == 0
    steps = {rate: [s.step for s in found.subjects if s.rate == rate] for rate in GRID.rates}
    assert all(step % 10 == 0 for each in steps.values() for step in each)  # the ends of epochs of 300 / 32 steps
    assert sum(steps[0.02]) > sum(steps[0.05])
    used = [s for s in found.subjects if s.matched]
    assert found.verdict.networks == len(used) >= 5
    assert all(0.63 <= s.training.loss <= 1.17 for s in used)
    assert found.verdict.unmatched == 8 - len(used)


def test_the_gap_is_between_own_training_labels_and_the_test_set(found):
    for subject in found.subjects:
        assert subject.gap == pytest.approx(subject.test.loss - subject.training.loss)
        assert subject.training.examples == 300


def test_every_measure_has_a_number_for_every_network_and_a_verdict(found):
    names = ["eigenvalue", "trace", "random", "worst", "adaptive"]
    assert list(found.sharpness) == names
    assert [each.measure for each in found.verdict.correlations] == names
    assert all(len(set(column)) == 8 for column in found.sharpness.values())  # no two networks are the same one
    assert found.scale_removed


def test_what_cannot_be_compared_is_refused(data):
    far = dataclasses.replace(GRID, target=1e-4)
    with pytest.raises(
        SettingError, match=r"at least 5 networks must come within 30% of the training loss 0\.0001, got 0"
    ):
        generalisation(dataclasses.replace(RECIPE, epochs=1), data=data, module=build, grid=far)
    with pytest.raises(SettingError, match="gap must be"):
        generalisation(RECIPE, data=data, module=build, gap="accuracy")
    with pytest.raises(SettingError, match="engine must be one of"):
        generalisation(RECIPE, data=data, module=build, engine="fast")
    with pytest.raises(SettingError, match="of its own"):
        generalisation(dataclasses.replace(RECIPE, checkpoints=(3,)), data=data, module=build)
    with pytest.raises(SettingError, match="at least 2 settings"):
        Grid(rates=(0.1,), batch_sizes=(8,))
