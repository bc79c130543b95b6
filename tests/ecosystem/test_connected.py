"""``assert_connected``: passes where there is no barrier, and says what is wrong where there is one."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import IsthmusError, SettingError
from isthmus.integrations import assert_connected as assert_it
from isthmus.train import Recipe, train


@pytest.fixture(scope="module")
def trained():
    data = isthmus.load_data("digits")
    recipe = Recipe(network="mlp-64x1", settings={"inputs": [1, 8, 8]}, epochs=3, rate=0.2)
    replicas = train(recipe.replicates(2), data=data, module=isthmus.build, engine="sequential", scores="never")
    return data, isthmus.build(recipe), [replica.weights for replica in replicas]


def test_a_network_is_connected_to_itself_and_the_fixture_is_there(trained, assert_connected):
    data, module, (first, _) = trained
    found = assert_connected(first, first, model=module, data=data, points=3)
    assert (found.height.estimate, found.midpoint, found.align) == (0.0, 0.0, "none")


def test_the_failure_says_the_barrier_the_midpoint_and_what_helps(trained, assert_connected):
    data, module, (first, second) = trained
    with pytest.raises(AssertionError) as caught:
        assert_connected(first, second, model=module, data=data, points=5, most=0.01)
    text = str(caught.value)
    assert text.startswith("error barrier 0.")
    assert "at most 0.01 allowed: not connected as they are; highest at t = 0.50; midpoint +0." in text
    assert f"{len(data.test_targets)} examples, 5 points, " in text
    assert "bootstrap over" in text
    assert "a permutation helps: error barrier 0" in text
    assert "connected after matching weights" in text
    assert 'ask with align="weights"' in text


def test_it_agrees_with_the_barrier_that_is_measured_elsewhere(trained):
    data, module, (first, second) = trained
    objective = isthmus.Objective(isthmus.Network.of(module), data.test_inputs, data.test_targets)
    there = isthmus.barrier(isthmus.Line(first, second), objective, points=5)
    for measure, midpoint in (("error_barrier", there.midpoint_error), ("loss_barrier", there.midpoint)):
        found = assert_it(first, second, objective=objective, points=5, most=100.0, measure=measure)
        assert found.height.estimate == pytest.approx(getattr(there, measure), abs=1e-6)
        assert found.midpoint == pytest.approx(midpoint, abs=1e-6)
        assert found.height.low <= found.height.estimate <= found.height.high


def test_an_even_number_of_points_has_the_midpoint_too(trained):
    data, module, (first, second) = trained
    even, odd = (assert_it(first, second, model=module, data=data, points=points, most=100.0) for points in (4, 5))
    assert even.midpoint == odd.midpoint
    assert even.height.estimate == odd.height.estimate


def test_strict_asks_the_upper_end_of_the_interval(trained):
    data, module, (first, second) = trained
    loose = assert_it(first, second, model=module, data=data, align="weights", points=5)
    between = (loose.height.estimate + loose.height.high) / 2
    assert loose.height.high > loose.height.estimate
    assert_it(first, second, model=module, data=data, align="weights", points=5, most=between)
    with pytest.raises(AssertionError, match="not connected after matching weights"):
        assert_it(first, second, model=module, data=data, align="weights", points=5, most=between, strict=True)


def test_where_no_permutation_helps_it_says_so(trained):
    data, module, (first, _) = trained
    grown = torch.ones(64).index_fill(0, torch.arange(0, 64, 2), 100.0)  # the same function: units scaled, not moved
    second = {
        **first, "1.weight": first["1.weight"] * grown[:, None], "1.bias": first["1.bias"] * grown,
        "3.weight": first["3.weight"] / grown,
    }  # fmt: skip
    with pytest.raises(AssertionError, match=r"nor does a permutation connect them: [1-9]"):
        assert_it(first, second, model=module, data=data, points=3, measure="loss_barrier")


def test_paths_modules_and_words_are_taken(trained, tmp_path):
    _, module, (first, _) = trained
    isthmus.save(first, tmp_path / "a.safetensors")
    module.load_state_dict(first)
    found = assert_it(tmp_path / "a.safetensors", module, model="mlp-64x1", data="digits", points=3)
    assert found.connected


def test_a_regression_has_a_loss_barrier_only():
    module = nn.Linear(2, 1)
    objective = isthmus.Objective(
        isthmus.Network.of(module), torch.randn(9, 2), torch.randn(9, 1),
        loss=isthmus.core.losses.squared_error, metrics={},
    )  # fmt: skip
    found = assert_it(module, nn.Linear(2, 1), objective=objective, measure="loss_barrier", most=1e-6)
    assert math.isnan(found.height.high)  # squared error is convex along the line, and single examples say nothing
    with pytest.raises(SettingError, match="needs an objective with the metric error"):
        assert_it(module, module, objective=objective)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"align": "magic"}, "align must be one of none, weights, activations, got magic"),
        ({"measure": "beauty"}, "measure must be error_barrier or loss_barrier, got beauty"),
        ({"most": -0.1}, "most must be at least 0, got -0.1"),
        ({"most": math.nan}, "most must be at least 0, got nan"),
        ({"points": 2}, "points must be at least 3 to see inside the line, got 2"),
        ({"data": None}, "give an objective, or a model and data"),
    ],
)
def test_wrong_settings_are_one_line(trained, settings, message):
    data, module, (first, _) = trained
    with pytest.raises(IsthmusError, match=message):
        assert_it(first, first, **{"model": module, "data": data, **settings})


def test_a_nan_is_no_connection(trained):
    data, module, (first, _) = trained
    with pytest.raises(IsthmusError, match="finite"):
        assert_it(first, {name: tensor * math.nan for name, tensor in first.items()}, model=module, data=data)


def test_a_failure_of_the_fixture_shows_the_line_that_asked_and_no_line_of_the_library(trained, assert_connected):
    data, module, (first, second) = trained
    for settings in ({"most": 0.0}, {"align": "magic"}):
        with pytest.raises((AssertionError, IsthmusError)) as caught:
            assert_connected(first, second, model=module, data=data, points=3, **settings)
        assert {entry.path.name for entry in caught.traceback} == {"test_connected.py", "pytest_plugin.py"}
        assert [entry.path.name for entry in caught.traceback if not entry.ishidden(caught)] == ["test_connected.py"]


@pytest.mark.slow
def test_the_plugin_works_in_a_test_suite_of_its_own_and_costs_no_torch(tmp_path):
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import sys

            def test_without(): assert "torch" not in sys.modules

            def test_with(assert_connected):
                import torch
                assert_connected(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), model=torch.nn.Linear(2, 2),
                                 data="digits")
            """
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout
