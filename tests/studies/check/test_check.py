"""The check before deployment: its verdict follows from barriers that a second way gives too, and from nothing else."""

import dataclasses
import json

import pytest
import torch

from isthmus.connect import Line, barrier
from isthmus.core.canonical import rescaled
from isthmus.core.checkpoint import save
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.record import to_json
from isthmus.discover import discover
from isthmus.studies.check.capabilities import foresee
from isthmus.studies.check.check import check
from isthmus.studies.check.checklist import Origin, origin_of
from isthmus.studies.check.verdict import Effort, Thresholds
from isthmus.studies.check.views import cross, view
from isthmus.train import Recipe, train
from isthmus.zoo.data import Data, load
from isthmus.zoo.models import build

RECIPE = Recipe(network="mlp-64x2", settings={"inputs": [1, 8, 8], "classes": 10}, epochs=4)

LIGHT = Effort(points=5, repair_points=3, directions=2, curvature=False)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def two(digits):
    return [replica.weights for replica in train(RECIPE.replicates(2), data=digits, module=build)]


@pytest.fixture(scope="module")
def strangers(digits, two):
    return check(build(RECIPE), two, digits, names=["a", "b"], effort=LIGHT)


def test_a_permuted_copy_needs_its_permutation_and_nothing_else(digits, two):
    module = build(RECIPE)
    symmetry = discover(module, digits.test_inputs[:2])
    copy = symmetry.random(torch.Generator().manual_seed(1)).apply(two[0])
    found = check(module, [two[0], copy], digits, effort=LIGHT)
    (pair,) = found.pairs
    assert (found.verdict, found.compatible, found.established) == ("permutation", True, True)
    assert pair.agreement == 1.0
    assert pair.crossings["naive"].error_barrier.low > 0.02
    # A planted permutation comes back whole on plain networks, so the way is flat.
    assert pair.crossings["weights"].error_barrier.high == 0.0
    assert float(pair.crossings["weights"].loss_barrier.estimate) < 1e-6
    assert all(c.kept.estimate == pytest.approx(1.0) for c in pair.retention.capabilities)
    assert {way.name for way in found.ways if way.open} == {"permutation", "repair", "ensemble", "distil"}


def test_a_model_and_itself_are_interchangeable_as_they_are(digits, two):
    found = check(build(RECIPE), [two[0], two[0]], digits, effort=LIGHT)
    assert (found.verdict, found.compatible, found.established) == ("as_they_are", True, True)
    assert found.pairs[0].preference == 0.5


def test_free_scales_of_units_change_no_measure_of_flatness(digits, two):
    module, effort = build(RECIPE), dataclasses.replace(LIGHT, curvature=True, flat_examples=100)
    symmetry = discover(module, digits.test_inputs[:2], kinds=("permutation", "scale"))
    factors = {group.name: torch.logspace(-1, 1, group.size) for group in symmetry.groups if group.kind == "scale"}
    assert factors
    copy = rescaled(symmetry, two[0], factors)
    ours, scaled = check(module, [two[0], copy], digits, effort=effort).models
    assert scaled.eigenvalue == pytest.approx(ours.eigenvalue, rel=1e-3)
    assert scaled.trace.estimate == pytest.approx(ours.trace.estimate, rel=1e-3)
    assert scaled.sharpness.rise == pytest.approx(ours.sharpness.rise, rel=1e-3)


def test_ignored_labels_count_nowhere():
    """Sequences of unequal length padded with -100, against the same tokens one by one."""
    torch.manual_seed(0)
    tokens = torch.randint(7, (90, 6))
    labels = tokens % 3
    for place, row in enumerate(labels):
        row[place % 5 + 2 :] = -100
    modules = [torch.nn.Sequential(torch.nn.Embedding(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)) for _ in range(2)]
    solutions = [module.state_dict() for module in modules]
    counts = labels != -100
    padded, flat = (
        check(modules[0], solutions, Data(inputs, targets, inputs, targets, 3), effort=LIGHT)
        for inputs, targets in ((tokens, labels), (tokens[counts], labels[counts]))
    )
    assert padded.examples == flat.examples == int(counts.sum())
    assert [model.capabilities for model in padded.models] == [model.capabilities for model in flat.models]
    assert [model.accuracy for model in padded.models] == [model.accuracy for model in flat.models]
    (pair,), (other,) = padded.pairs, flat.pairs
    for way in ("naive", "weights"):
        assert torch.allclose(pair.crossings[way].error, other.crossings[way].error)
        assert pair.crossings[way].examples == other.crossings[way].examples
    assert [one.foreseen for one in pair.retention.capabilities] == [
        one.foreseen for one in other.retention.capabilities
    ]


def test_strangers_are_judged_by_the_barriers_that_connect_measures(digits, two, strangers):
    objective = Objective(Network.of(build(RECIPE)), digits.test_inputs, digits.test_targets)
    known = barrier(Line(*two), objective, points=5)
    crossing = strangers.pairs[0].crossings["naive"]
    assert crossing.error_barrier.estimate == pytest.approx(known.error_barrier, abs=1e-9)
    assert crossing.loss_barrier.estimate == pytest.approx(known.loss_barrier, abs=1e-6)
    assert crossing.midpoint.estimate == pytest.approx(known.midpoint_error, abs=1e-9)
    assert crossing.accuracy == pytest.approx(1 - known.middle.error)
    assert strangers.verdict == "permutation"
    # Every class counts once: the accuracy by class, weighted by size, is the accuracy.
    classes = strangers.pairs[0].retention.capabilities
    assert sum(c.examples * c.first for c in classes) / 360 == pytest.approx(strangers.models[0].accuracy.estimate)


def test_a_result_is_json_without_loss(strangers):
    values = json.loads(to_json(strangers))
    assert values["kind"] == "Check"
    assert values["pairs"][0]["crossings"]["naive"]["way"] == "naive"


def test_models_that_learned_nothing_are_not_compatible(digits):
    module = build(RECIPE)
    blank = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    found = check(module, [blank, blank], digits, effort=LIGHT)
    assert found.verdict == "as_they_are"  # there is no barrier between them ...
    assert not found.compatible  # ... and that means nothing
    assert not next(item for item in found.items if item.point == "chance").passed
    assert not any(way.open for way in found.ways if way.name in ("as_they_are", "permutation", "repair"))


def test_a_floor_that_is_not_reached_makes_models_incompatible(digits, two):
    easy, hard = (
        check(build(RECIPE), two, digits, effort=LIGHT, thresholds=Thresholds(floors={"all": floor, "3": 0.1}))
        for floor in (0.5, 0.9999)
    )
    assert easy.verdict == hard.verdict
    assert (easy.compatible, hard.compatible) == (True, False)


def test_a_floor_for_no_capability_is_refused_before_the_pairs(digits, two, monkeypatch):
    monkeypatch.setattr("isthmus.studies.check.bench.Bench.pairs", None)
    with pytest.raises(SettingError, match=r"floors must name a capability .*got eleven"):
        check(build(RECIPE), two, digits, effort=LIGHT, thresholds=Thresholds(floors={"eleven": 0.5}))


def test_a_named_capability_is_foreseen_and_measured(digits, two):
    only = digits.test_targets < 3
    suites = {"low digits": (digits.test_inputs[only], digits.test_targets[only])}
    found = check(build(RECIPE), two, digits, effort=LIGHT, capabilities=suites)
    *classes, named = found.pairs[0].retention.capabilities
    assert named.name == "low digits"
    low = [c for c in classes if c.name in "012"]
    for end in ("first", "second", "average"):
        together = sum(c.examples * getattr(c, end) for c in low) / sum(c.examples for c in low)
        assert getattr(named, end) == pytest.approx(together)


def test_too_few_models_and_bad_settings(digits, two):
    with pytest.raises(SettingError, match="at least 2 models, got 1"):
        check(build(RECIPE), two[:1], digits)
    with pytest.raises(SettingError, match="barrier must lie between 0 and 1"):
        Thresholds(barrier=2.0)
    with pytest.raises(SettingError, match="accuracies between 0 and 1, got x=7"):
        Thresholds(floors={"x": 7.0})
    with pytest.raises(SettingError, match="points must be odd"):
        Effort(points=4)


def test_quick_uses_fewer_examples_where_time_is_short(digits, two):
    hurried = check(build(RECIPE), two, digits, effort=dataclasses.replace(LIGHT, seconds=1e-9))
    assert hurried.pairs[0].crossings["naive"].examples == 189  # the fewest that can establish 2 %
    assert hurried.examples == 360  # the models themselves are still judged on all


def test_a_linear_network_is_foreseen_exactly():
    generator = torch.Generator().manual_seed(0)
    network = Network.of(torch.nn.Linear(5, 4))
    start, end = (
        {name: torch.randn(t.shape, generator=generator, dtype=torch.float64) for name, t in network.weights.items()}
        for _ in range(2)
    )  # fmt: skip
    inputs = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    objective = Objective(network, inputs, torch.randint(4, (200,), generator=generator), batch_size=64)
    middle = view(objective, Line(start, end)(0.5))
    assert torch.equal(foresee(objective, start, end), 1.0 - middle.wrong)


def test_a_barrier_in_a_batch_norm_network_is_that_of_connect():
    torch.manual_seed(0)
    make = lambda: torch.nn.Sequential(  # noqa: E731
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    network, other = Network.of(make()), Network.of(make())
    inputs, targets = torch.randn(90, 4), torch.randint(3, (90,))
    objective = Objective(network, inputs, targets, batch_size=40)
    ends = (network.weights, other.weights)
    for policy in ("reestimate", "repair"):
        crossing, _, average = cross(
            (0, 1), ends, tuple(view(objective, e) for e in ends), objective, way="naive", inputs=inputs,
            positions=[0.0, 0.25, 0.5, 0.75, 1.0], generator=torch.Generator(), policy=policy,
        )  # fmt: skip
        known = barrier(Line(*ends), objective, points=5, inputs=inputs, normalisation=policy)
        assert torch.allclose(crossing.loss, known.loss, atol=1e-6)
        assert objective(average).loss == pytest.approx(known.middle.loss, abs=1e-6)


def test_what_is_recorded_is_found(tmp_path):
    recipe = {"order_seed": 3}
    save({"w": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"recipe": json.dumps(recipe)})
    made = {"versions": {"torch": "9"}, "data": "abc"}
    rows = [{"file": "a.safetensors", "recipe": {"ignored": 1}}]
    (tmp_path / "replicas.json").write_text(json.dumps({"replicas": rows, "provenance": made}))
    assert origin_of(tmp_path / "a.safetensors") == Origin(recipe, {"torch": "9"}, "abc", "a.safetensors")


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"replicas": 3}', '{"replicas": [1, {"file": 2}], "provenance": 4}'])
def test_records_that_cannot_be_read_are_none(tmp_path, text):
    save({"w": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"recipe": text[:1]})
    for name in ("replicas.json", "a.json"):
        (tmp_path / name).write_text(text)
    assert origin_of(tmp_path / "a.safetensors") == Origin()
    assert origin_of(tmp_path / "absent.pt") == Origin()
