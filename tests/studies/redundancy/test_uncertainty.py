"""What is planted is found: wrong labels, a spread that statistics predicts, the same loss from a single solution."""

import dataclasses

import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.report.section import section
from isthmus.studies.redundancy.remedies import RECIPE
from isthmus.studies.redundancy.uncertainty import _shifted, assess
from isthmus.train import train
from isthmus.zoo import build, load_data

RECIPE_HERE = dataclasses.replace(RECIPE, network="mlp-16x1", settings={"inputs": [1, 8, 8]}, epochs=6)


@pytest.fixture(scope="module")
def data():
    return load_data("digits").limited(600)


@pytest.fixture(scope="module")
def solved(data):
    replicas = train(RECIPE_HERE.replicates(2), data=data, module=build, device="cpu")
    return Network.of(build(RECIPE_HERE)), [replica.weights for replica in replicas]


def test_planted_wrong_labels_lead_the_list(data, solved):
    wrong = torch.arange(0, 600, 20)
    labels = data.train_targets.clone()
    labels[wrong] = (labels[wrong] + 5) % 10
    found = assess(*solved, dataclasses.replace(data, train_targets=labels), RECIPE_HERE, folds=3)
    named = [suspect.example for suspect in found.suspects]
    assert len(set(named) & set(wrong.tolist())) >= 8  # of ten; by chance half of one
    assert 0.02 < found.label_noise < 0.12  # planted: 5 %
    assert section(found).tables[3].rows[0][0] == named[0]


def test_the_bootstrap_agrees_with_the_standard_error(data, solved):
    network, solutions = solved
    found = assess(network, solutions[:1], data, RECIPE_HERE, folds=2)
    objective = Objective(network, data.test_inputs, data.test_targets)
    error = objective(solutions[0]).error
    loss, wrong = found.spreads[:2]
    assert loss.value == pytest.approx(objective(solutions[0]).loss, rel=1e-5)
    expected = (error * (1 - error) / len(data.test_targets)) ** 0.5
    assert wrong.deviation == pytest.approx(expected, rel=0.15)
    assert found.metrics is None
    assert sum(found.class_share) == pytest.approx(1)


def test_views_are_shifts_by_a_pixel():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    [views] = _shifted((images.repeat(50, 1, 1, 1),), torch.Generator().manual_seed(0))
    assert views.shape == (100, 3, 4, 5)
    inner = {tuple((view - images[place % 2])[:, 1:-1, 1:-1].unique().tolist()) for place, view in enumerate(views)}
    # Along a row the numbers grow by 1, along a column by 5.
    assert inner == {(float(5 * rows + columns),) for rows in (-1, 0, 1) for columns in (-1, 0, 1)}


def test_labels_of_one_class_are_refused(data, solved):
    one = dataclasses.replace(data, train_targets=torch.zeros_like(data.train_targets))
    with pytest.raises(DataError, match="at least two classes"):
        assess(*solved, one, RECIPE_HERE)
    few = data.limited(20)
    with pytest.raises(DataError, match="as many examples as folds"):
        assess(*solved, few, RECIPE_HERE)
