"""The study of what survives a merge: its arms, its normalisation, its refusals, and its claims on digits."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from scipy import stats

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import silent
from isthmus.core.record import to_json
from isthmus.core.statistics import spearman
from isthmus.core.weights import lerp
from isthmus.report.section import section
from isthmus.studies.continual.arms import Bench, Trainings, joined, replayed
from isthmus.studies.continual.continual import ARMS, Curriculum, continual
from isthmus.studies.continual.contrasts import Alternative, contrast, sign_test
from isthmus.studies.continual.prediction import Observed, validated
from isthmus.train import Recipe
from isthmus.zoo import build, load_data
from isthmus.zoo.cues import Cue, cued, in_colour

QUICK = Recipe(network="mlp-32x1", settings={"inputs": [3, 8, 8]}, rate=0.05, batch_size=64, epochs=5)


@pytest.fixture(scope="module")
def quick():
    curriculum = Curriculum(QUICK, task={"rate": 0.02, "epochs": 12}, replicas=2, points=5)
    return continual(curriculum, load_data("digits"))


def test_the_ends_are_the_arms_own_networks(quick):
    first = [quick.curve(arm, "colour", "cue_only").accuracy[:, 0] for arm in ARMS]
    assert all(torch.equal(first[0], other) for other in first[1:])
    for arm in ("parallel", "incremental", "doubled"):
        assert float(quick.curve(arm, "noise", "cue_only").accuracy[:, -1].min()) > 0.5
    assert float(quick.curve("shared", "colour", "cue_only").accuracy[:, -1].min()) > 0.5
    assert quick.curve("base", "noise", "with_cue").accuracy.shape == (2, 1)


def test_retention_is_normalised_by_the_holder_and_the_floor(quick):
    for arm, cue, end in (("parallel", "colour", 0), ("parallel", "noise", -1), ("incremental", "noise", -1)):
        accuracy = quick.curve(arm, cue, "cue_only").accuracy
        floor = np.maximum(quick.curve("base", cue, "cue_only").accuracy[:, 0].numpy(), 0.1)
        own = accuracy[:, end].numpy()
        wanted = (accuracy.numpy() - floor[:, None]) / (own - floor)[:, None]
        found = quick.kept(arm, cue)
        np.testing.assert_allclose(found.values.numpy(), wanted)
        np.testing.assert_allclose(found.values[:, end].numpy(), 1.0)
    shared = quick.kept("shared", "colour")
    np.testing.assert_allclose(shared.values[:, [0, -1]].mean(1).numpy(), 1.0)
    assert [found.cue for found in quick.retention if found.arm == "shared"] == ["colour"]


def test_contrasts_are_paired_and_at_the_middle(quick):
    found = next(
        c
        for c in quick.contrasts
        if (c.name, c.capability, c.probe) == ("incremental_over_parallel", "colour", "cue_only")
    )
    one, other = (quick.curve(arm, "colour", "cue_only").accuracy[:, 2] for arm in ("incremental", "parallel"))
    assert found.differences == pytest.approx((one - other).tolist())
    assert found.alternative == "greater"
    base = [c for c in quick.contrasts if c.capability == "base"]
    assert {c.alternative for c in base} == {"two-sided"}
    assert len(base) == 2


def test_a_forecast_scores_every_merge(quick):
    forecast = quick.forecast
    assert sorted({o.position for o in forecast.observed}) == [0.25, 0.5, 0.75]
    assert len(forecast.observed) == 3 * 2 * len(quick.retention)
    middle = [o for o in forecast.observed if o.position == 0.5]
    quarter = next(
        o for o in forecast.observed if (o.position, o.arm, o.capability, o.replica) == (0.25, "doubled", "noise", 0)
    )
    assert quarter.lost == pytest.approx(1 - float(quick.kept("doubled", "noise").values[0, 1]))
    lost = {(o.arm, o.capability, o.replica): o.lost for o in middle}
    assert lost["parallel", "colour", 1] == pytest.approx(1 - float(quick.kept("parallel", "colour").values[1, 2]))
    scores = {(o.arm, o.capability): o.scores for o in middle if o.replica == 0}
    # Trained on from the holder: what it learned is still in the other end.
    assert scores["incremental", "colour"]["dilution"] < scores["parallel", "colour"]["dilution"]
    assert scores["parallel", "colour"]["distance"] == scores["parallel", "noise"]["distance"]
    assert to_json(quick)


def test_training_goes_on_from_the_given_weights():
    """No steps leave the weights as they were; the seeds of the order decide what steps do."""
    data = in_colour(load_data("digits"))
    starts = [build(dataclasses.replace(QUICK, initialisation_seed=s)).state_dict() for s in (5, 6)]
    trainings = Trainings(QUICK, {"epochs": 0}, 2, "cpu", silent)
    for start, end in zip(starts, trainings.continued("first", data, starts), strict=True):
        assert all(torch.equal(start[name], end[name]) for name in start)
    trainings = Trainings(QUICK, {"steps": 3}, 2, "cpu", silent)
    first, again, other = (trainings.continued(name, data, [starts[0]] * 2) for name in ("first", "first", "again"))
    torch.testing.assert_close(first[0]["1.weight"], again[0]["1.weight"])
    assert not torch.allclose(first[0]["1.weight"], other[0]["1.weight"])
    assert not torch.allclose(first[0]["1.weight"], first[1]["1.weight"])
    assert trainings.task_recipe(0, "second", factor=2).steps == 6


def test_joint_and_replayed_examples():
    data = load_data("digits").limited(9)
    other = cued(data, [Cue("noise")])
    both = joined([data, other])
    assert len(both.train_targets) == 18
    mixed = replayed(data, other)
    assert torch.equal(mixed.train_inputs[1::2], data.train_inputs[1::2])
    assert torch.equal(mixed.train_inputs[::2], other.train_inputs[::2])
    assert torch.equal(mixed.test_inputs, other.test_inputs)


def test_batch_statistics_are_estimated_anew_between_the_ends():
    torch.manual_seed(0)
    network = Network.of(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)))
    start = dict(network.weights)
    end = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in start.items()}
    inputs = torch.randn(50, 4)
    bench = Bench(network, {}, inputs, 3)
    mixed = bench.mixed(start, end)
    hidden = inputs @ (start["0.weight"] + 0.5).T + start["0.bias"] + 0.5
    torch.testing.assert_close(mixed["1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed["1.running_var"], hidden.var(0, correction=0), rtol=1e-4, atol=1e-4)
    assert torch.equal(bench.mixed(start, end, 1.0)["1.running_mean"], end["1.running_mean"])


def test_a_cue_that_was_not_learned_stops_the_study():
    curriculum = Curriculum(
        QUICK, cues=(Cue("colour"), Cue("noise", swapped=0.4)), task={"epochs": 1}, replicas=2, points=3
    )
    with pytest.raises(SettingError, match=r"the colour cue must be learned.*floor is 10%.*swapped"):
        continual(curriculum, load_data("digits"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cues": (Cue("noise"), Cue("noise"))}, "two different cues"),
        ({"replicas": 1}, "replicas"),
        ({"points": 4}, "points must be odd"),
        ({"margin": 0.0}, "margin"),
    ],
)
def test_impossible_curricula(changes, says):
    with pytest.raises(SettingError, match=says):
        Curriculum(QUICK, **changes)


def test_a_task_keeps_the_network_and_must_not_diverge():
    with pytest.raises(SettingError, match="must not set network"):
        continual(Curriculum(QUICK, task={"network": "mlp-8x1"}), load_data("digits").limited(50))
    with pytest.raises(SettingError, match=r"first, replica 0 did; lower the rate"):
        continual(Curriculum(QUICK, task={"rate": 1e6}, replicas=2), load_data("digits").limited(100))


@pytest.mark.parametrize(("above", "below"), [(6, 0), (5, 1), (0, 6), (3, 3), (0, 0), (2, 9)])
def test_the_sign_test_is_scipys_binomial_test(above, below):
    sides: tuple[Alternative, ...] = ("greater", "two-sided")
    for side in sides:
        wanted = stats.binomtest(above, above + below, alternative=side).pvalue if above + below else 1.0
        assert sign_test(above, below, alternative=side) == pytest.approx(wanted)


def test_contrasts_leave_out_ties_and_refuse_unpaired_numbers():
    found = contrast([1, 2, 3], [0, 2, 1], name="n", capability="c", probe="p", alternative="greater")
    assert (found.above, found.below) == (2, 0)
    assert found.interval.estimate == 1.0
    assert found.p == 0.25
    assert not found.holds
    with pytest.raises(SettingError, match="equally many"):
        contrast([1], [1, 2], name="n", capability="c", probe="p", alternative="greater")


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = (rng.integers(0, 6, 12).astype(float).tolist() for _ in range(2))
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0])  # pyright: ignore[reportArgumentType]


def test_a_perfect_score_beats_a_shuffled_one():
    rng = np.random.default_rng(0)
    observed = []
    for replica in range(8):
        for arm in range(6):
            lost = float(rng.random())
            scores = {"distance": float(rng.random()), "angle": lost**3, "dilution": -lost}
            observed.append(Observed(replica, str(arm), "c", 0.5, lost, scores))
    found = validated(observed)
    assert found.best == "angle"
    by = {ranking.score: ranking for ranking in found.rankings}
    assert by["angle"].correlation.estimate == by["angle"].correlation.high == pytest.approx(1.0)
    assert by["angle"].over_naive.low > 0.3
    assert by["dilution"].correlation.estimate == pytest.approx(-1.0)
    assert by["distance"].over_naive.estimate == 0.0


def test_measured_curves_are_those_of_the_mixed_weights():
    """One arm again, by hand: same weights, same α, same images."""
    data = in_colour(load_data("digits"))
    network = Network.of(build(QUICK))
    starts, ends = (
        [build(dataclasses.replace(QUICK, initialisation_seed=s)).state_dict() for s in seeds]
        for seeds in ((0, 1), (2, 3))
    )
    objective = Objective(network, data.test_inputs, data.test_targets)
    bench = Bench(network, {("a", "b"): objective}, data.train_inputs, 3)
    found = bench.along(starts, ends)["a", "b"]
    for replica in range(2):
        for place, t in enumerate((0.0, 0.5, 1.0)):
            wanted = 1 - objective(lerp(starts[replica], ends[replica], t)).error
            assert float(found[replica, place]) == pytest.approx(wanted)


@pytest.mark.slow
def test_the_claims_hold_on_digits_with_six_seeds():
    """Sign tests at .05 each; six of six seeds are needed, so a claim that is a coin toss passes once in 64 times."""
    recipe = Recipe(network="mlp-64x2", settings={"inputs": [3, 8, 8]}, rate=0.05, batch_size=64, epochs=15)
    found = continual(Curriculum(recipe), load_data("digits"))
    assert found.kept("shared", "colour").kept
    assert not found.kept("parallel", "colour").kept
    held = {(c.name, c.capability, c.probe): c.holds for c in found.contrasts}
    for cue in ("colour", "noise"):
        assert held["specific_lost", cue, "retention"]
        assert held["incremental_over_parallel", cue, "cue_only"]
        assert held["incremental_over_doubled", cue, "retention"]
    assert held["shared_over_parallel", "colour", "retention"]
    assert found.forecast is not None
    rankings = {ranking.score: ranking for ranking in found.forecast.rankings}
    assert rankings[found.forecast.best].over_naive.low > 0


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_section_has_a_line_for_every_arm_and_the_base(quick, language):
    drawn = section(quick, language=language)
    assert len(drawn.figures) == 5
    for figure in drawn.figures:
        series = set(re.findall('"series": "([^"]+)"', json.dumps(figure.spec, ensure_ascii=False)))
        shared = 0 if "noise" in figure.title or "ノイズ" in figure.title else 1
        assert len(series) == 3 + shared + 3  # arms, then base, joint and replay
    assert all(len(row) == len(table.columns) for table in drawn.tables for row in table.rows)
