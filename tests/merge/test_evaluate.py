"""Verdicts against numbers worked out by hand."""

import json
import math

import pytest
import torch
from torch import nn

from isthmus.core.errors import WeightsError
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.merge import appraise
from isthmus.merge.evaluate import _sentence


def setting(**keywords):
    module = nn.Linear(1, 2, bias=False)
    inputs, targets = torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([0, 0, 1])
    return Objective(Network.of(module), inputs, targets, batch_size=2, **keywords)


def scores(slope: float) -> dict[str, torch.Tensor]:
    """A network with logits (slope·x, 0)."""
    return {"weight": torch.tensor([[slope], [0.0]])}


def test_ensemble_is_the_mean_of_probabilities():
    right, wrong = 3.0, -1.0
    found = appraise(scores(1.0), {"right": scores(right), "wrong": scores(wrong)}, setting())
    sigmoid = [1 / (1 + math.exp(-slope)) for slope in (right, wrong)]
    assert found.ensemble.loss == pytest.approx(-math.log(sum(sigmoid) / 2), rel=1e-6)
    assert found.merged.loss == pytest.approx(-math.log(1 / (1 + math.exp(-1.0))), rel=1e-6)
    assert [score.error for score in found.ends.values()] == [0.0, 1.0]
    assert found.gain == 0.0
    assert found.gain_over_mean == 0.5


def test_other_losses_average_outputs():
    objective = Objective(
        Network.of(nn.Linear(1, 1, bias=False)), torch.ones(3, 1), torch.full((3, 1), 2.0), squared_error, {}, 2
    )
    ends = [{"weight": torch.tensor([[slope]])} for slope in (1.0, 4.0)]
    found = appraise({"weight": torch.tensor([[2.0]])}, ends, objective)
    assert found.metric == "loss"
    assert found.ensemble.loss == pytest.approx(0.25)
    assert found.gain == pytest.approx(1.0)
    assert "pays" in found.verdict
    assert "not" not in found.verdict


def test_a_loss_is_called_one():
    found = appraise(scores(-2.0), [scores(1.0), scores(2.0)], setting(), by="loss")
    assert found.gain < 0
    assert "does not pay" in found.verdict


def test_a_small_difference_of_errors_is_noise():
    found = appraise(scores(1.0), [scores(2.0)], setting())
    assert "within the noise" in found.verdict


@pytest.mark.parametrize("folder", [True, False])
def test_card_is_written_beside_the_output(tmp_path, folder):
    output = tmp_path if folder else tmp_path / "merged.safetensors"
    found = appraise(scores(1.0), {"a": scores(3.0), "b": scores(-1.0)}, setting())
    data, card = found.save(output)
    assert data.parent == card.parent == tmp_path
    assert json.loads(data.read_text())["merged"]["loss"] == pytest.approx(found.merged.loss)
    text = card.read_text()
    assert f"| **merged** | {found.merged.loss:.4f} | {found.merged.error:.4f} |" in text
    assert "| ensemble of 2 |" in text


def test_unknown_metrics_and_no_ends_are_refused():
    with pytest.raises(WeightsError, match="by must be loss or one of error"):
        appraise(scores(1.0), [scores(1.0)], setting(), by="accuracy")
    with pytest.raises(WeightsError, match="got none"):
        appraise(scores(1.0), [], setting())


def test_an_ensemble_of_classes_at_every_pixel():
    """Probabilities were made over the last axis, which in an image is a place, not the classes."""
    module = nn.Conv2d(1, 2, 1, bias=False)
    inputs, targets = torch.ones(2, 1, 3, 4), torch.zeros(2, 3, 4, dtype=torch.int64)
    objective = Objective(Network.of(module), inputs, targets)
    ends = [{"weight": torch.tensor([slope, 0.0]).view(2, 1, 1, 1)} for slope in (3.0, -1.0)]
    found = appraise(ends[0], ends, objective)
    sigmoid = [1 / (1 + math.exp(-slope)) for slope in (3.0, -1.0)]
    assert found.ensemble.loss == pytest.approx(-math.log(sum(sigmoid) / 2), rel=1e-6)


def test_a_merge_that_answers_alike_and_less_surely_is_told():
    found = appraise(scores(0.5), [scores(3.0), scores(2.0)], setting())
    assert "(error the same)" in found.verdict  # it said -0.0000
    assert "less sure of its answers" in found.verdict
    assert "less sure" not in appraise(scores(2.97), [scores(3.0), scores(2.0)], setting()).verdict


def test_an_end_of_nan_is_not_the_best_wherever_it_stands():
    network = Network.of(nn.Linear(3, 4))
    objective = Objective(network, torch.randn(50, 3), torch.arange(50) % 4)
    good = network.weights
    broken = {name: tensor * math.nan for name, tensor in good.items()}
    for ends in ({"a": good, "b": broken}, {"b": broken, "a": good}):
        found = appraise(good, ends, objective, by="loss")
        assert found.gain == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("gain", "said"), [(0.0167, "(error 0.0167 below)"), (-0.0167, "(error 0.0167 above)")])
def test_a_difference_within_the_noise_has_a_side_and_no_sign(gain, said):
    """A reader takes ``error -0.0167`` for an error below zero."""
    assert said in _sentence("error", gain, 0.01, 0.0, 0.0)


def test_the_error_of_a_gain_is_binomial():
    found = appraise(scores(1.0), [scores(-1.0)], setting())
    assert (found.merged.error, found.ends["solution 0"].error, found.error_of_gain) == (0.0, 1.0, 0.0)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(40, 1, generator=generator), torch.arange(40) % 2
    objective = Objective(Network.of(nn.Linear(1, 2, bias=False)), inputs, targets)
    found = appraise(scores(1.0), [scores(1.0)], objective)
    share = found.merged.error
    assert 0.2 < share < 0.8
    assert found.error_of_gain == pytest.approx(math.sqrt(2 * share * (1 - share) / 40))


def test_a_gain_counts_from_two_errors_and_surety_from_a_tenth():
    assert "within the noise" in _sentence("error", 0.03, 0.02, 0.0, 0.0)
    assert "The merge pays" in _sentence("error", 0.05, 0.02, 0.0, 0.0)
    ends = [scores(1.0)]  # losses here are log(1 + exp(-slope)): .313 at 1, .335 at .92, .371 at .8
    assert "less sure" not in appraise(scores(0.92), ends, setting()).verdict
    assert "less sure" in appraise(scores(0.8), ends, setting()).verdict


@pytest.mark.parametrize("places", [3, 2])
def test_an_ensemble_of_classes_at_every_token(places):
    """Classes come last, even where there are as many as places: each token's probabilities are averaged."""
    slopes = ([3.0, -1.0, 0.5], [-2.0, 0.25, 4.0])  # of each network, for each of three tokens: logits (slope, 0)
    inputs = torch.tensor([[0, 1, 2], [2, 0, 0], [1, 1, 2], [2, 2, 1]])[:, :places]
    targets = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]])[:, :places]
    ends = [{"weight": torch.tensor([[slope, 0.0] for slope in each])} for each in slopes]
    objective = Objective(Network.of(nn.Embedding(3, 2)), inputs, targets)

    def likely(token, label):
        first = sum(1 / (1 + math.exp(-each[token])) for each in slopes) / 2
        return first if label == 0 else 1 - first

    pairs = list(zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True))
    found = appraise(ends[0], ends, objective).ensemble
    assert found.loss == pytest.approx(-sum(math.log(likely(*pair)) for pair in pairs) / len(pairs), rel=1e-6)
    assert found.error == pytest.approx(sum(likely(*pair) < 0.5 for pair in pairs) / len(pairs))
