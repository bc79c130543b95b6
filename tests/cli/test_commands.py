"""Every command does its work on real checkpoints: JSON for machines, a page for people, files that are whole."""

import json

import pytest
import torch
from tests.cli.conftest import MODEL

import isthmus
from isthmus.cli.main import invoke
from isthmus.core.checkpoint import load, save
from isthmus.core.symmetry_file import load_permutation, load_symmetry
from isthmus.core.weights import lerp
from isthmus.zoo.models import resolve

COMMON = ("--data", "digits", "--examples", "60")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three replicas as ``isthmus train`` writes them."""
    folder = tmp_path_factory.mktemp("trained")
    fields = "batch_size=64,rate=0.1"
    assert (
        invoke(["train", "--model", MODEL, "--solutions", "3", "--epochs", "5", "--recipe", fields, "-o", str(folder)])
        == 0
    )
    return sorted(folder.glob("*.safetensors"))


def answer(shell, *arguments):
    code, out, err = shell(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_train_writes_what_it_says(trained):
    told = json.loads((trained[0].parent / "replicas.json").read_text())
    assert [row["file"] for row in told["replicas"]] == [path.name for path in trained]
    assert len({row["recipe"]["initialisation_seed"] for row in told["replicas"]}) == 3
    assert all(row["test"]["metrics"]["error"] < 0.3 for row in told["replicas"])
    assert not torch.equal(load(trained[0])["1.weight"], load(trained[1])["1.weight"])


def test_symmetry_of_a_zoo_network(shell, tmp_path):
    found = answer(shell, "symmetry", MODEL, "--input", "2x1x8x8", "--save", tmp_path / "s.json")
    assert [(group["units"], group["type"]) for group in found["groups"]] == [(8, "permutation")]
    assert found["log10_size"] == pytest.approx(4.6055, abs=1e-3)  # log10(8!)
    assert found["proof"]["error"] < 1e-9
    assert load_symmetry(tmp_path / "s.json").log10_size == pytest.approx(found["log10_size"])


def test_barrier_before_and_after_alignment(shell, trained, tmp_path):
    page, file = tmp_path / "b.html", tmp_path / "b.json"
    arguments = ("barrier", *trained, "--model", MODEL, *COMMON, "--align", "both", "--points", "5")
    found = answer(shell, *arguments, "--report", page, "--output", file)
    assert json.loads(file.read_text()) == found
    assert page.read_text().count("<svg") >= 3
    means = {name: each["intervals"]["loss_barrier"]["estimate"] for name, each in found["barriers"].items()}
    assert means["weights"] < means["naive"]
    assert means["activations"] < means["naive"]


def test_a_permuted_copy_is_found_and_keeps_its_format(shell, trained, tmp_path):
    weights = load(trained[0])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    copy = {**weights, "1.weight": weights["1.weight"][order], "1.bias": weights["1.bias"][order]}
    copy["3.weight"] = weights["3.weight"][:, order]
    save({name: tensor.half() for name, tensor in copy.items()}, tmp_path / "copy.pt")
    arguments = ("align", trained[0], tmp_path / "copy.pt", "--model", MODEL, "--data", "digits", "--check")
    found = answer(shell, *arguments, "-o", tmp_path / "out")
    aligned = load(tmp_path / "out" / "copy.pt")
    assert aligned["1.weight"].dtype == torch.float16
    assert torch.equal(aligned["1.weight"], weights["1.weight"].half())
    assert found["aligned"][0]["largest_change"] < 1e-5
    symmetry = load_symmetry_of(shell, tmp_path)
    permutation = load_permutation(tmp_path / "out" / "copy.permutation.json", symmetry)
    assert torch.equal(permutation.apply(copy)["1.weight"], weights["1.weight"])
    assert not permutation.is_identity


def load_symmetry_of(shell, folder):
    answer(shell, "symmetry", MODEL, "--input", "2x1x8x8", "--save", folder / "s.json")
    return load_symmetry(folder / "s.json")


def test_path_with_a_learned_curve_and_layers(shell, trained, tmp_path):
    arguments = ("path", trained[0], trained[1], "--model", MODEL, *COMMON, "--points", "5", "--bends", "1")
    found = answer(shell, *arguments, "--steps", "60", "--layers", "only", "--report", tmp_path / "p.html")
    assert found["curves"]["curve"]["loss"][0] == found["curves"]["line"]["loss"][0]
    assert found["curves"]["curve"]["loss_barrier"] < found["curves"]["line"]["loss_barrier"]
    assert found["layers"]["layers"] == ["1", "3"]


def test_curvature_along_a_path_is_the_hessian_s_of_the_training_loss(shell, trained, tmp_path):
    from isthmus.curvature import hessian

    page = tmp_path / "p.html"
    arguments = ("path", trained[0], trained[1], "--model", MODEL, *COMMON, "--points", "3", "--curvature", "3")
    found = answer(shell, *arguments, "--report", page)["curvature"]["line"]
    assert found["positions"] == [0.0, 0.5, 1.0]
    data = isthmus.load_data("digits").limited(60)
    network = isthmus.Network.of(resolve(MODEL, inputs=data.shape, classes=data.classes))
    objective = isthmus.Objective(network, data.train_inputs, data.train_targets)
    middle = lerp(load(trained[0]), load(trained[1]), 0.5)
    values = torch.linalg.eigvalsh(hessian(objective, middle) @ torch.eye(network_size(network)))
    assert found["largest"][1] == pytest.approx(float(values[-1]), rel=0.02)
    assert abs(found["trace"][1] - float(values.sum())) < 2 * found["trace_reach"][1] + 1e-6
    assert "Largest Hessian eigenvalue" in page.read_text()
    assert shell(*arguments[:-1], "2")[2].startswith("isthmus: curvature must be at least 3 points")


def network_size(network):
    return sum(network.weights[name].numel() for name in network.parameter_names)


def test_curvature_on_a_plane(shell, trained, tmp_path):
    page = tmp_path / "p.html"
    arguments = ("plane", trained[0], "--model", MODEL, *COMMON, "--points", "3", "--curvature", "3")
    found = answer(shell, *arguments, "--report", page)
    assert [len(row) for row in found["curvature"]["largest"]] == [3, 3, 3]
    assert found["curvature"]["first"] == found["x"]
    assert "Largest Hessian eigenvalue" in page.read_text()


@pytest.mark.parametrize("count", [1, 3])
def test_plane_marks_its_solutions(shell, trained, tmp_path, count):
    arguments = ("plane", *trained[:count], "--model", MODEL, *COMMON, "--points", "5")
    found = answer(shell, *arguments, "--report", tmp_path / "p.html")
    assert len(found["points"]) == count
    assert len(found["loss"]) == 5
    single = answer(shell, "barrier", trained[0], trained[1], "--model", MODEL, *COMMON, "--points", "3")
    assert found["scores"][0]["loss"] == single["barriers"]["naive"]["curves"]["(0, 1)"]["loss"][0]


def test_repair_restores_the_variance(shell, trained, tmp_path):
    arguments = ("repair", trained[0], trained[1], "--model", MODEL, *COMMON, "--save", tmp_path / "r.safetensors")
    found = answer(shell, *arguments, "--report", tmp_path / "r.html")
    before, after = (found["variance"][name]["ratio"][0] for name in ("average", "repaired"))
    assert before < 0.9
    assert after == pytest.approx(1.0, abs=0.1)
    resolve(MODEL, inputs=(1, 8, 8)).load_state_dict(load(tmp_path / "r.safetensors"))


def test_flatness_and_spectrum_agree(shell, trained, tmp_path):
    common = ("--model", MODEL, *COMMON)
    flat = answer(shell, "flatness", trained[0], *common, "--report", tmp_path / "f.html")
    spectrum = answer(shell, "spectrum", trained[0], *common, "--steps", "20", "--report", tmp_path / "s.html")
    trace = flat["trace"][0]["interval"]
    assert trace["low"] <= trace["estimate"] <= trace["high"]
    assert spectrum["largest"]["values"] == sorted(spectrum["largest"]["values"], reverse=True)
    assert spectrum["density"]["cumulative"][-1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", ["random", "metropolis", "langevin", "level"])
def test_walks(shell, trained, tmp_path, method):
    arguments = ("walk", trained[0], "--model", MODEL, *COMMON, "--method", method, "--steps", "12", "--walkers", "2")
    found = answer(shell, *arguments, *(["--permute"] if method == "random" else []), "--report", tmp_path / "w.html")
    assert found["walk"]["steps"] == list(range(13))
    assert found["walk"]["distance"][0][0] == 0.0
    assert found["walk"]["distance"][0][-1] > 0.0 or found["walk"]["acceptance"][0] == 0.0
    if method == "random":
        (permuted,) = found["permutations"].values()
        assert permuted["moved"][-1] == 8


def test_walkers_descend_and_other_widths_are_permuted(shell, tmp_path):
    recipe = ("--train", "network=mlp-8x1,epochs=2,rate=0.1", "--examples", "60")
    arguments = ("walk", *recipe, "--steps", "4", "--walkers", "2", "--descend", "2,4", "--widths", "6")
    found = answer(shell, *arguments, "--report", tmp_path / "w.html")
    assert found["returns"]["steps"] == [2, 4]
    assert found["returns"]["walk"]["steps"][-1] == 4
    assert {name: each["units"] for name, each in found["permutations"].items()} == {"width 8": 8, "width 6": 6}


def test_the_spectrum_layer_by_layer_adds_up(shell, trained, tmp_path):
    arguments = ("spectrum", trained[0], "--model", MODEL, *COMMON, "--steps", "120", "--layers")
    found = answer(shell, *arguments, "--report", tmp_path / "s.html")
    blocks = list(found["layers"].values())
    assert sum(block["size"] for block in blocks) == found["density"]["size"]
    # With so many steps the matrix is decomposed whole, and its trace is exact.
    whole = sum(found["density"]["nodes"][0])
    low, high = (sum(block["trace"]["interval"][end] for block in blocks) for end in ("low", "high"))
    assert low <= whole <= high
    # A block's largest eigenvalue cannot exceed the whole matrix's (Cauchy's interlacing).
    assert max(block["largest"]["values"][0] for block in blocks) <= found["largest"]["values"][0]


def test_glass_without_and_with_a_model(shell, trained, tmp_path):
    bare = answer(shell, "glass", *trained)
    assert [each["label"] for each in bare["arrangements"]] == ["raw", "planted"]
    found = answer(shell, "glass", *trained, "--model", MODEL, *COMMON, "--passes", "--report", tmp_path / "g.html")
    means = {each["label"]: each["distribution"]["mean"]["estimate"] for each in found["arrangements"]}
    assert means["pairwise"] > means["raw"]
    assert [each["label"] for each in found["arrangements"]] == ["raw", "reference", "pairwise", "function", "planted"]
    linear, lowest = found["disconnectivity"], found["minimax"]
    assert (linear["source"], lowest["source"]) == ("linear", "minimax")
    assert lowest["merges"][-1][2] <= linear["merges"][-1][2]
    assert lowest["ultrametric_by_construction"]


def test_a_diverged_solution_is_named_and_left_out(shell, trained, tmp_path):
    broken = dict(load(trained[0]))
    name = next(iter(broken))
    broken[name] = torch.full_like(broken[name], float("nan"))
    save(broken, tmp_path / "broken.safetensors")
    arguments = ("glass", *trained, tmp_path / "broken.safetensors", "--model", MODEL, *COMMON, "--passes")
    found = answer(shell, *arguments, "--alignments", "raw", "--report", tmp_path / "g.html")
    for each in found["arrangements"][:2]:
        (out,) = each["overlaps"]["left_out"]
        assert out["reason"].startswith("diverged")
    assert len(found["disconnectivity"]["names"]) == 3
    assert "broken.safetensors" in (tmp_path / "g.html").read_text()


def test_other_widths_are_the_control_for_finite_size(shell, tmp_path):
    arguments = ("glass", "--train", "network=mlp-8x1,epochs=1", "--solutions", "4", "--widths", "4,16")
    found = answer(shell, *arguments, "--alignments", "raw", "--report", tmp_path / "g.html")
    assert found["sizes"]["entries"] == [64 * h + h + 10 * h + 10 for h in (4, 8, 16)]
    assert found["sizes"]["exponent"]["estimate"] < 0


def test_claims_on_own_checkpoints(shell, trained, tmp_path):
    arguments = ("claims", *trained, "--model", MODEL, *COMMON, "--points", "5", "--align", "weights")
    found = answer(shell, *arguments, "--report", tmp_path / "c.html")
    (tested,) = found["tested"]
    assert tested["weak"]["planted"]["estimate"] == pytest.approx(0.0, abs=1e-6)
    assert tested["weak"]["aligned"]["interval"]["estimate"] < tested["weak"]["random"]["interval"]["estimate"]
    assert tested["times"] is None


def test_a_report_of_several_results(shell, trained, tmp_path):
    for name in ("a", "b"):
        arguments = ("barrier", trained[0], trained[1], "--model", MODEL, *COMMON, "--points", "3")
        answer(shell, *arguments, "--output", tmp_path / f"{name}.json")
    files = (tmp_path / "a.json", tmp_path / "b.json")
    found = answer(shell, "report", *files, "-o", tmp_path / "page.html", "--lang", "ja", "--static")
    html = (tmp_path / "page.html").read_text()
    assert 'lang="ja"' in html
    assert "<script" not in html
    assert found["page"].endswith("page.html")


def test_wrong_numbers_of_checkpoints(shell, trained):
    for arguments, says in (
        (("path", trained[0]), "exactly 2 checkpoints"),
        (("plane", *trained[:2]), "got 2: use path"),
        (("repair", *trained), "exactly 2 checkpoints"),
        (("glass", *trained[:2]), "at least 3"),
        (("align", trained[0]), "at least one to permute"),
    ):
        code, _, err = shell(*arguments, "--model", MODEL, *(() if arguments[0] == "align" else COMMON))
        assert (code, err.count("\n")) == (2, 1), err
        assert says in err


def test_a_folder_of_checkpoints_means_all_of_them(shell, trained):
    arguments = ("--model", MODEL, *COMMON, "--points", "3")
    whole = answer(shell, "barrier", trained[0].parent, *arguments)
    assert whole["names"] == [path.name for path in trained]
    assert len(whole["barriers"]["naive"]["curves"]) == 3


def test_networks_that_look_tokens_up_are_trained_from_a_file(shell, tmp_path):
    """A file's whole numbers were taken for pixels by every command that trains, and only by these."""
    import numpy as np

    (tmp_path / "reader.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 2))\n"
    )
    tokens = np.random.default_rng(0).integers(0, 9, (40, 6))
    np.savez(tmp_path / "tokens.npz", x=tokens, y=tokens[:, 0] % 2)
    model, data = f"{tmp_path / 'reader.py'}:build", tmp_path / "tokens.npz"
    out = tmp_path / "two"
    assert shell("train", "--model", model, "--data", data, "--solutions", 2, "--epochs", 1, "-o", out)[0] == 0
    table = load(out / "replica-0.safetensors")["0.weight"]
    assert table.shape == (9, 4)
    code, _, said = shell("check", "--train", f"network={model},epochs=1", "--data", data, "--solutions", 2, "--quick")
    assert code in (0, 1), said
