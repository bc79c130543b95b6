"""``isthmus continual``: results, figures, and one line for what is wrong."""

import json

import pytest
import torch

from isthmus.core.checkpoint import load, save
from isthmus.core.randomness import child
from isthmus.zoo.networks import network

QUICK = ("continual", "--model", "mlp-16x1", "--train", "epochs=3", "--task", "epochs=12,rate=0.02")


def test_the_study_and_its_page(shell, tmp_path):
    page, file = tmp_path / "page.html", tmp_path / "found.json"
    code, out, err = shell(
        *QUICK, "--replicas", 2, "--points", 3, "--no-controls", "--report", page, "-o", file, "--margin", 0.05
    )
    assert code == 0, err
    assert "Half-way between the ends" in out
    assert "three channels" in err
    values = json.loads(file.read_text())
    assert values["kind"] == "Continual"
    assert {found["arm"] for found in values["curves"]} == {"shared", "parallel", "incremental", "doubled"}
    assert "colour cue" in page.read_text()
    code, _, err = shell("report", file, "-o", tmp_path / "again.html")
    assert code == 0, err


def test_a_stream(shell):
    code, out, err = shell(
        *QUICK[:3], "--stream", "split", "--tasks", 2, "--heads", "separate", "--mergers", "mean,ties", "--replicas", 2,
        "--points", 3, "--no-controls", "--examples", 200, "--task", "epochs=1", "--json",
    )  # fmt: skip
    assert code == 0, err
    values = json.loads(out)
    assert values["kind"] == "Merges"
    assert [found["merger"] for found in values["outcomes"]] == ["mean", "ties"]
    assert values["outcomes"][0]["barriers"].keys() == {"previous", "merged"}


def test_a_stream_of_cues_for_people(shell):
    code, out, err = shell(
        *QUICK[:3], "--stream", "cues", "--tasks", 3, "--cues", "position,noise", "--mergers", "mean", "--replicas", 2,
        "--points", 3, "--no-controls", "--examples", 100, "--task", "epochs=1", "--train", "epochs=1",
    )  # fmt: skip
    assert code == 0, err
    assert "noise cue" in out
    assert "Best in the end" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cues", "colour"), "two kinds"),
        (("--cues", "colour,nois"), "did you mean noise"),
        (("--cue", "strenght=3"), "a cue has no setting strenght"),
        (("--cue", "strength=big"), "must be a number"),
        (("--replicas", "1"), "replicas must be at least 2"),
        (("--points", "4"), "points must be odd"),
        (("--train", "rat=1"), "did you mean rate"),
        (("--task", "network=mlp-8x1"), "must not set network"),
        (("--task", "epochs=0", "--train", "epochs=0", "--replicas", "2"), "must be learned"),
        (("--stream", "split"), "choose separate heads"),
        (("--stream", "splot"), "did you mean split"),
        (("--stream", "rotated", "--mergers", "tie"), "mergers must be some of"),
    ],
)
def test_bad_input_is_one_line(shell, arguments, says):
    code, out, err = shell("continual", "--model", "mlp-8x1", *arguments)
    assert code == 2, (out, err)
    assert says in err
    assert err.splitlines()[-1].startswith("isthmus: ")


@pytest.fixture
def family(tmp_path):
    """A base and two children of an 8-unit network on digits."""
    base = network("mlp-8x1", inputs=(1, 8, 8), seed=0).state_dict()
    save(base, tmp_path / "base.safetensors")
    for place, name in enumerate("ab"):
        generator = child(place, "family")
        moved = {n: t + 0.1 * (place + 1) * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        save(moved, tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.mark.parametrize("suffix", ["merged", "merged.safetensors"])
def test_merges_say_what_they_expect_to_lose(shell, family, suffix):
    paths = (family / "a.safetensors", family / "b.safetensors")
    code, out, err = shell(
        "merge", *paths, "--base", family / "base.safetensors", "-m", "task_arithmetic", "--scale", 0.5, "--predict",
        "-o", family / suffix, "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)["prediction"]
    assert found["by"] == "dilution"
    assert sorted(found["names"]) == ["a.safetensors", "b.safetensors"]
    scores = dict(zip(found["names"], found["scores"], strict=True))
    base, a, b = (load(family / f"{name}.safetensors") for name in ("base", "a", "b"))
    tau, other = (torch.cat([(w[n] - base[n]).flatten() for n in base]).double() for w in (a, b))
    kept = float((0.5 * (tau + other) * tau).sum() / tau.square().sum())
    assert scores["a.safetensors"]["dilution"] == pytest.approx(1 - kept, abs=1e-4)


def test_predictions_with_a_network_use_unlabelled_inputs(shell, family):
    paths = (family / "a.safetensors", family / "b.safetensors")
    common = ("--predict", "-m", "ties", "--model", "mlp-8x1", "--data", "digits", "--examples", 60)
    code, out, err = shell("merge", *paths, "--base", family / "base.safetensors", *common, "-o", family / "merged")
    assert code == 0, err
    assert "by disagreement" in out
    page = family / "page.html"
    base = ("--base", family / "base.safetensors", "-o", family / "again", "--report", page)
    code, _, err = shell("merge", *paths, *common, *base)
    assert code == 0, err
    assert "What each model is expected to lose" in page.read_text()
    code, _, err = shell("merge", *paths, "--predict", "-o", family / "other")
    assert code == 2
    assert "give the --base" in err


def test_networks_are_saved_with_their_histories(shell, tmp_path):
    common = ("--replicas", 2, "--points", 3, "--no-controls", "--no-predict", "--margin", 0.05)
    code, _, err = shell(*QUICK, *common, "--save", tmp_path / "all", "--json")
    assert code == 0, err
    code, out, err = shell("history", tmp_path / "all", "--json")
    assert code == 0, err
    found = json.loads(out)
    name = {node["content"]: node["name"] for node in found["nodes"]}
    steps = {(name[edge["parent"]], name[edge["child"]], edge["role"]) for edge in found["edges"]}
    assert ("base-0.safetensors", "first-0.safetensors", "model") in steps
    assert ("first-1.safetensors", "after-1.safetensors", "model") in steps
    assert ("after-1.safetensors", "merged-incremental-1.safetensors", "model") in steps
    assert ("base-1.safetensors", "merged-incremental-1.safetensors", "base") in steps
    assert len(found["nodes"]) == 2 * (6 + 4)
    merged = next(node["lineage"] for node in found["nodes"] if node["name"] == "merged-shared-0.safetensors")
    assert merged["capabilities"]["colour, cue_only"] > 0.2
    first = next(node["lineage"] for node in found["nodes"] if node["name"] == "first-0.safetensors")
    assert first["data"]
    assert first["recipe"]["epochs"] == 12
    code, _, err = shell(*QUICK, *common, "--save", tmp_path / "all")
    assert code == 2
    assert "without checkpoints" in err


@pytest.mark.parametrize("start", ["previous", "merged"])
def test_a_stream_is_saved_with_its_history(shell, tmp_path, start):
    code, out, err = shell(
        *QUICK[:3], "--stream", "permuted", "--tasks", 3, "--mergers", "orthogonal_projection", "--start", start,
        "--replicas", 1, "--points", 3, "--no-controls", "--examples", 100, "--task", "epochs=1", "--train", "epochs=1",
        "--save", tmp_path / "all",
    )  # fmt: skip
    assert code == 0, err
    assert "orthogonal projection" in out
    code, out, _ = shell("history", tmp_path / "all", "--json")
    found = json.loads(out)
    name = {node["content"]: node["name"] for node in found["nodes"]}
    steps = {(name[edge["parent"]], name[edge["child"]]) for edge in found["edges"]}
    merge = "orthogonal_projection-after-task-3-0.safetensors"
    own = "orthogonal_projection-" if start == "merged" else ""
    assert {parent for parent, made in steps if made == merge} >= {"task-1-0.safetensors", f"{own}task-3-0.safetensors"}
    if start == "merged":
        assert (
            "orthogonal_projection-after-task-2-0.safetensors",
            "orthogonal_projection-task-3-0.safetensors",
        ) in steps


def test_a_cue_that_is_not_learned_stops_before_the_other_arms(shell):
    code, _, err = shell(*QUICK, "--cue", "strength=.001", "--replicas", 2)
    assert code == 2
    assert "after the first task, replica" in err
