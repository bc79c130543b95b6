"""``isthmus check`` in a pipeline: exit codes, JUnit, pages in two languages, stores, replicas made on the spot."""

import json
from xml.etree import ElementTree

import pytest
import torch
from tests.cli.conftest import MODEL

from isthmus.cli.main import invoke
from isthmus.core.checkpoint import load, save

COMMON = ("--model", MODEL, "--data", "digits", "--quick")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two replicas as ``isthmus train`` writes them, and a copy of the first with its units in another order."""
    folder = tmp_path_factory.mktemp("checked")
    fields = "batch_size=64,rate=0.1"
    command = ["train", "--model", MODEL, "--solutions", "2", "--epochs", "8", "--recipe", fields, "-o", str(folder)]
    assert invoke(command) == 0
    weights = load(folder / "replica-0.safetensors")
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    moved = {**weights, "1.weight": weights["1.weight"][order], "1.bias": weights["1.bias"][order]}
    moved["3.weight"] = weights["3.weight"][:, order]
    save(moved, folder / "copy.safetensors")
    return folder


def test_yes_is_0_and_no_is_1_and_nonsense_is_2(shell, trained):
    first, copy = trained / "replica-0.safetensors", trained / "copy.safetensors"
    code, out, _ = shell("check", first, copy, *COMMON)
    assert code == 0
    assert "interchangeable after a permutation" in out
    code, out, _ = shell("check", first, copy, *COMMON, "--floor", "0.999", "--json")
    assert code == 1
    assert json.loads(out)["verdict"] == "permutation"
    assert not json.loads(out)["compatible"]
    code, out, err = shell("check", first, trained / "absent.safetensors", *COMMON)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_too_few_examples_are_told_before_the_work(shell, trained):
    pair = (trained / "replica-0.safetensors", trained / "copy.safetensors")
    _, _, few = shell("check", *pair, *COMMON, "--examples", "188")
    assert (
        "188 labels are too few to be sure of any path that is not flat at --barrier 0.02: that takes at least 189"
        in few
    )
    _, _, enough = shell("check", *pair, *COMMON, "--examples", "189")
    assert "too few" not in enough


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--floor", "high"), "floor must be an accuracy"),
        (("--floor", "eleven=0.5"), "floors must name a capability"),
        (("--barrier", "20"), "barrier must lie between 0 and 1"),
        (("--points", "4"), "points must be odd"),
        (("--capability", "x"), "capability must be NAME=DATA"),
        (("--lang", "xx"), "must be one of en, ja"),
        (("--train", "epochs=1"), "leave the checkpoints out"),
    ],
)
def test_what_cannot_be_is_one_line(shell, trained, arguments, said):
    pair = (trained / "replica-0.safetensors", trained / "copy.safetensors")
    code, _, err = shell("check", *pair, *COMMON, *arguments)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_junit_says_what_failed(shell, trained, tmp_path):
    pair = (trained / "replica-0.safetensors", trained / "copy.safetensors")
    files = {floor: tmp_path / f"{floor}.xml" for floor in ("0.1", "0.999")}
    for floor, file in files.items():
        shell("check", *pair, *COMMON, "--floor", floor, "--junit", file)
    good, bad = (ElementTree.parse(file).getroot()[0] for file in files.values())
    assert (good.get("failures"), bad.get("failures")) == ("0", "1")
    assert int(good.get("tests")) == len(good) == 1 + 9
    assert len(bad.findall(".//failure")) == 1
    # The copy was saved without its recipe: nothing the verdict hangs on, so not a failure.
    assert good.findall(".//skipped")


def test_the_page_is_whole_in_both_languages(shell, trained, tmp_path):
    pair = (trained / "replica-0.safetensors", trained / "replica-1.safetensors")
    for language, said in (("en", "How to reproduce this"), ("ja", "チェックリスト")):
        page = tmp_path / f"{language}.html"
        shell("check", *pair, *COMMON, "--report", page, "--lang", language)
        text = page.read_text(encoding="utf-8")
        assert said in text
        assert f'<html lang="{language}">' in text
        assert len(text) < 3_000_000
        assert text.count("data:text/csv") == text.count("<figure>") == 3


def test_recipes_beside_checkpoints_reach_the_checklist(shell, trained):
    pair = (trained / "replica-0.safetensors", trained / "replica-1.safetensors")
    _, out, _ = shell("check", *pair, *COMMON, "--examples", "100", "--json")
    passed = {item["point"]: item["passed"] for item in json.loads(out)["items"]}
    assert all(passed[point] for point in ("seeds", "order", "augmentation", "recipe", "versions", "data"))
    assert not passed["floors"]


def test_replicas_are_made_for_the_check(shell):
    recipe = "network=mlp-64x2,data=digits,epochs=3,batch_size=64,rate=0.02"
    code, out, err = shell("check", "--train", recipe, "--solutions", "3", "--quick", "--json")
    found = json.loads(out)
    assert code in (0, 1), err
    assert len(found["pairs"]) == 3
    seeds = {model["origin"]["recipe"]["order_seed"] for model in found["models"]}
    starts = {model["origin"]["recipe"]["initialisation_seed"] for model in found["models"]}
    assert (seeds, starts) == ({0, 1, 2}, {0})
    # One initialisation and other data orders of a small steady training: one basin (Frankle et al.).
    assert found["verdict"] == "as_they_are"


def test_the_runs_of_a_store_are_checked_without_being_told_model_or_data(shell, tmp_path):
    from isthmus.studies import Store, Trained
    from isthmus.train import Recipe, train
    from isthmus.train.recipe import SCHEMA
    from isthmus.zoo.data import load as load_data
    from isthmus.zoo.models import build

    data = load_data("digits")
    recipe = Recipe(network=MODEL, settings={"inputs": [1, 8, 8], "classes": 10}, epochs=2)
    store = Store.open(tmp_path / "store", create=True)
    for replica in train(recipe.replicates(2), data=data, module=build):
        made = {"status": "converged", "versions": {"torch": "9"}, "data": data.fingerprint}
        key, fields = replica.recipe.key(), {"schema": SCHEMA, **replica.recipe.to_dict()}
        store.add([Trained(key, fields, {"final": replica.weights}, provenance=made)])
    code, out, err = shell("check", store.path, "--quick", "--examples", "100", "--json")
    assert code in (0, 1), err
    found = json.loads(out)
    assert sorted(model["name"] for model in found["models"]) == [key[:12] for key in store.keys]
    passed = {item["point"]: item["passed"] for item in found["items"]}
    assert passed["data"]
    assert passed["versions"]
    first, second = store.keys
    store.remember_study("pair", {"keys": store.keys})
    code, _, err = shell("check", store.path, "--run", first[:9], "--examples", "100")
    assert (code, "at least 2 runs" in err) == (2, True)
    code, _, err = shell("check", "a.pt", "b.pt", "--run", first)
    assert (code, "choose from a store" in err) == (2, True)
    code, out, err = shell("check", store.path, "--study", "pair", "--quick", "--examples", "100", "--json")
    assert {model["name"] for model in json.loads(out)["models"]} == {first[:12], second[:12]}, err
    code, _, err = shell("check", Store.open(tmp_path / "empty", create=True).path)
    assert code == 2
    assert "must hold at least 2 runs" in err
