"""What is planted is found: wrong labels, a spread that statistics predicts, the same loss from a single solution."""

import dataclasses

import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.report.section import section
from isthmus.studies.redundancy.remedies import RECIPE
from isthmus.studies.redundancy.risk import before_training, lowest_loss
from isthmus.studies.redundancy.uncertainty import assess, brier, shifted
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
    named = [suspect.example for suspect in found.risks.suspects]
    assert len(set(named) & set(wrong.tolist())) >= 8  # of ten; by chance half of one
    assert 0.02 < found.risks.labels.share < 0.12  # planted: 5 %
    assert section(found).tables[1].rows[0][0] == named[0]
    # A flipped label goes five up, and held-out predictors know where it came from.
    right = [s for s in found.risks.suspects if s.example in wrong.tolist()]
    assert sum((s.likely + 5) % 10 == s.label for s in right) >= len(right) - 1
    # The network has not learned the wrong labels by heart yet: they are the loudest.
    assert sum(one.example in wrong.tolist() for one in found.loudest) >= 8


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
    assert sum(one.noise for one in found.risks.classes) == pytest.approx(1)
    assert sum(one.examples for one in found.risks.classes) == 600


def test_views_are_shifts_by_a_pixel():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    [views] = shifted((images.repeat(50, 1, 1, 1),), torch.Generator().manual_seed(0))
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


def test_the_gradient_spreads_beside_the_loss(data, solved):
    found = assess(*solved, data, RECIPE_HERE, folds=2, label_noise=(0.1, 0.5))
    turns = {spread.source: spread for spread in found.spreads if spread.measure == "turn"}
    assert turns["0.1 of labels wrong"].mean < turns["0.5 of labels wrong"].mean
    assert all(spread.value == 0 for spread in turns.values())
    measures = {spread.measure for spread in found.spreads if spread.source == "other examples"}
    assert measures == {"loss", "error", "brier", "gradient", "turn"}
    assert found.metrics.measures == ("loss", "error", "brier")
    basis = found.eigenbasis
    assert len(basis.values) == 10
    assert basis.rank_correlation > 0.3  # near a minimum noise grows with curvature
    assert float(basis.inside.mean()) > 10 * basis.expected_inside
    drawn = section(found)
    assert len(drawn.figures) == 1
    assert drawn.tables[0].title == "Risk table before training"
    assert drawn.leading >= 1
    assert len(section(found, language="ja").tables) == len(drawn.tables)


def test_what_is_known_before_training(data, solved):
    network, _ = solved
    found = assess(network, [], data, RECIPE_HERE, folds=2)
    assert found.spreads == ()
    assert 0 < found.start_scale < 100
    drawn = section(found)
    assert len(drawn.tables) == 3
    assert not drawn.figures
    by_name = {risk.name: risk for risk in found.risks.risks}
    error = by_name["error"]
    tests = len(data.test_targets)
    assert error.value == found.risks.labels.disagreement
    assert error.reach == pytest.approx(1.96 * (error.value * (1 - error.value) / tests) ** 0.5)
    assert by_name["rarest"].reach > 3 * error.reach  # about a tenth of the examples
    assert by_name["labels"].reach == found.risks.floor == found.risks.labels.share


def test_the_lowest_loss_that_labels_allow_is_their_entropy():
    """A fifth of two classes' labels flipped, among ten: (-.2·ln .2 - .8·ln .8)·.2 nats."""
    joint = 0.1 * torch.eye(10, dtype=torch.float64)
    joint[:2, :2] = torch.tensor([[0.08, 0.02], [0.02, 0.08]])
    assert lowest_loss(joint) == pytest.approx(0.2 * 0.500402, rel=1e-5)
    assert lowest_loss(torch.eye(3, dtype=torch.float64) / 3) == 0


def test_classes_whose_labels_were_flipped_stand_out(data):
    labels = data.train_targets.clone()
    two = (labels <= 1).nonzero().flatten()
    labels[two[::5]] = 1 - labels[two[::5]]
    found = before_training(dataclasses.replace(data, train_targets=labels), RECIPE_HERE, folds=2)
    by_label = {one.label: one for one in found.classes}
    assert 0.1 < by_label[0].wrong < 0.3  # a fifth
    assert all(0 <= one.wrong <= 1 for one in found.classes)
    assert min(by_label[0].wrong, by_label[1].wrong) > max(by_label[label].wrong for label in range(2, 10))
    assert found.loss_floor > before_training(data, RECIPE_HERE, folds=2).loss_floor


def test_brier_is_the_squared_distance_of_probabilities():
    scores = torch.tensor([[0.0, 0.0], [0.0, 1e9]])
    assert brier(scores, torch.tensor([0, 0])).tolist() == pytest.approx([0.5, 2.0])
