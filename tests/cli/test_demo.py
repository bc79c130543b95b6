"""The main job, small: it measures what it says, and its verdict follows from its numbers."""

import copy
import json

import pytest
import torch

from isthmus.cli.main import invoke
from isthmus.core.checkpoint import load
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.report.demo import demo_page, demo_verdict
from isthmus.report.words import words_for
from isthmus.zoo import load_data
from isthmus.zoo.models import resolve

SMALL = ("--widths", "16,48", "--solutions", "4", "--epochs", "8", "--points", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("demo")
    assert invoke(["demo", *SMALL, "--output", str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_page_and_the_numbers_are_written(folder, results):
    html = (folder / "report.html").read_text()
    assert demo_page(results).verdict in html
    assert [width["width"] for width in results["widths"]] == [16, 48]
    assert results["provenance"]["recipe"]["network"] == "mlp"
    assert all(len(width["accuracy"]) == 4 for width in results["widths"])


def test_alignment_lowers_every_mean_barrier(results):
    for width in results["widths"]:
        means = {name: each["intervals"]["loss_barrier"]["estimate"] for name, each in width["barriers"].items()}
        assert means["weights"] < 0.7 * means["naive"], means
        assert means["activations"] < 0.7 * means["naive"], means
    family = results["family"]["intervals"]["loss_barrier"]["estimate"]
    assert family < 0.1 * results["widths"][0]["barriers"]["naive"]["intervals"]["loss_barrier"]["estimate"]


def test_intervals_are_over_networks(results):
    interval = results["widths"][0]["barriers"]["naive"]["intervals"]["loss_barrier"]
    assert interval["networks"] == 4
    assert interval["low"] < interval["estimate"] < interval["high"]


def test_the_written_weights_are_what_was_measured(folder, results):
    data = load_data("digits")
    network = Network.of(resolve("mlp", inputs=data.shape, classes=10, width=48))
    objective = Objective(network, data.test_inputs, data.test_targets)
    for name, key in (("first", "first"), ("second", "second"), ("second_aligned", "second"), ("merged", "aligned")):
        score = objective(load(folder / f"{name}.safetensors"))
        assert score.loss == pytest.approx(results["merged"][key]["loss"], rel=1e-5), name
    first, second = (load(folder / f"{name}.safetensors") for name in ("second", "second_aligned"))
    assert not torch.equal(first["1.weight"], second["1.weight"])
    assert torch.equal(first["1.weight"].sum(1).sort().values, second["1.weight"].sum(1).sort().values)


def with_barriers(results, *, naive, aligned, accuracy=0.95):
    """The same results with other error barriers at the last width."""
    changed = copy.deepcopy(results)
    width = changed["widths"][-1]
    width["accuracy"] = [accuracy] * 4
    for name, value in (("naive", naive), ("weights", aligned), ("activations", aligned)):
        interval = width["barriers"][name]["intervals"]["error_barrier"]
        interval.update(estimate=value, low=value - 0.005, high=value + 0.005)
    return changed


@pytest.mark.parametrize(
    ("naive", "aligned", "accuracy", "mood", "part"),
    [
        (0.01, 0.01, 0.95, "good", "already lie in one basin"),
        (0.30, 0.01, 0.95, "good", "a permutation of their hidden units connects them"),
        (0.30, 0.10, 0.95, "mixed", "does not remove it"),
        (0.30, 0.295, 0.95, "bad", "do not clearly change that"),
        (0.05, 0.01, 0.12, "neutral", "have not learned enough"),
    ],
)
def test_the_verdict_follows_from_the_numbers(results, naive, aligned, accuracy, mood, part):
    sentence, found = demo_verdict(
        with_barriers(results, naive=naive, aligned=aligned, accuracy=accuracy), words_for("en")
    )
    assert found == mood
    assert part in sentence


def test_the_checkpoints_know_where_they_come_from(folder, shell):
    code, said, _ = shell("history", folder, "--json")
    assert code == 0
    found = json.loads(said)
    by_name = {node["name"]: node for node in found["nodes"]}
    names = ("first", "second", "second_aligned", "merged")
    assert set(by_name) == {f"{name}.safetensors" for name in names}
    assert all(node["known"] and node["lineage"] for node in by_name.values())
    step = {(edge["parent"], edge["child"], edge["role"]) for edge in found["edges"]}
    place = {name: by_name[f"{name}.safetensors"]["content"] for name in names}
    assert step == {
        (place["second"], place["second_aligned"], "model"),
        (place["first"], place["second_aligned"], "fixed"),
        (place["first"], place["merged"], "model"),
        (place["second_aligned"], place["merged"], "model"),
    }
    recipe = by_name["first.safetensors"]["lineage"]["recipe"]
    assert recipe["network"] == "mlp"
    assert recipe["initialisation_seed"] != by_name["second.safetensors"]["lineage"]["recipe"]["initialisation_seed"]


def test_the_page_shows_loss_and_error_at_every_position(results):
    page = demo_page(results)
    tables = [table for section in page.sections for table in section.tables]
    curves = results["widths"][-1]["barriers"]["naive"]["curves"]["(0, 1)"]
    for measured in (curves["loss"], curves["metrics"]["error"]):
        shown = [table for table in tables if [row[0] for row in table.rows] == curves["positions"]]
        assert any([row[1] for row in table.rows] == measured for table in shown)
