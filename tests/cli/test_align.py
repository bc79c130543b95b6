"""``isthmus align``: files come out as they went in, by every method, and what is wrong is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.cli.conftest import MODEL

from isthmus.core.checkpoint import load, metadata_of, save
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.symmetry_file import load_permutation, save_symmetry
from isthmus.discover import discover
from isthmus.zoo.networks import network

EXAMPLE = ("--model", MODEL, "--input", "2x1x8x8")


@pytest.fixture
def symmetry() -> Symmetry:
    return discover(network(MODEL, inputs=(1, 8, 8)), torch.zeros(2, 1, 8, 8))


def _shards(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """A folder as Hugging Face's libraries write them: two shards, an index, a configuration, a tokenizer."""
    folder.mkdir()
    names = list(weights)
    table = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name].contiguous() for name in part}, folder / file, metadata={"format": "pt"})
        table |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "training.log").write_text("private")
    return folder


@pytest.fixture
def sharded(tmp_path: Path, symmetry: Symmetry) -> tuple[Path, Path]:
    """A network in bfloat16 under a wrapper's prefix, and a permuted copy of it, both in shards."""
    weights = {n: t.to(torch.bfloat16) for n, t in network(MODEL, inputs=(1, 8, 8)).state_dict().items()}
    moved = symmetry.random(child(0, "planted")).apply(weights)
    return tuple(
        _shards(tmp_path / name, {f"module.{n}": t for n, t in tensors.items()})
        for name, tensors in (("first", weights), ("second", moved))
    )  # type: ignore[return-value]


def _answer(shell, *arguments):
    code, out, err = shell("align", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_shards_come_out_as_shards_in_their_own_names_and_precision(shell, sharded, tmp_path, symmetry):
    first, second = sharded
    found = _answer(shell, first, second, *EXAMPLE, "--check", "-o", tmp_path / "out")
    target = tmp_path / "out" / "second"
    assert found["aligned"][0]["file"] == str(target)
    assert found["aligned"][0]["largest_change"] < 1e-5
    written = sorted(file.name for file in target.iterdir())
    kept = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert written == ["history.json", *kept, "tokenizer.json"]
    before, after = load(first), load(target)
    assert list(before) == list(after)
    assert all(after[name].dtype == torch.bfloat16 and torch.equal(after[name], before[name]) for name in before)
    assert metadata_of(target / kept[0])["format"] == "pt"
    permutation = load_permutation(found["aligned"][0]["permutation"], symmetry)
    plain = {name.removeprefix("module."): tensor for name, tensor in load(second).items()}
    assert torch.equal(permutation.apply(plain)["1.weight"], before["module.1.weight"])
    parents = json.loads((target / "history.json").read_text())["parents"]
    assert [(parent["name"], parent["role"]) for parent in parents] == [("first", "fixed"), ("second", "model")]
    assert json.loads((tmp_path / "out" / "alignment.json").read_text())["aligned"][0]["match"]["seconds"]


def test_a_saved_symmetry_serves_instead_of_a_model(shell, sharded, tmp_path, symmetry):
    save_symmetry(symmetry, tmp_path / "symmetry.json")
    first, second = sharded
    arguments = (first, second, "--symmetry", tmp_path / "symmetry.json", "-o", tmp_path / "out")
    _answer(shell, *arguments)
    assert torch.equal(load(tmp_path / "out" / "second")["module.1.weight"], load(first)["module.1.weight"])
    code, _, err = shell("align", *arguments, "--check")
    assert (code, err.strip()) == (2, "isthmus: --check runs the network: give --model")


METHODS = [
    *(("--method", name) for name in ("weights", "cosine", "frank_wolfe", "sinkhorn")),
    *(
        ("--method", name, "--data", "digits", "--examples", "60")
        for name in ("activations", "straight_through", "swaps")
    ),
    *(("--together", name) for name in ("mean", "universe")),
    ("--together", "simplex", "--data", "digits", "--examples", "60"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[1])
def test_every_method_writes_networks_of_the_same_function(shell, tmp_path, symmetry, method):
    fixed = network(MODEL, inputs=(1, 8, 8), seed=0).state_dict()
    save(fixed, tmp_path / "a.safetensors")
    for seed, suffix in ((1, "safetensors"), (2, "pt")):
        save(symmetry.random(child(seed, "planted")).apply(fixed), tmp_path / f"copy{seed}.{suffix}")
    files = [tmp_path / name for name in ("a.safetensors", "copy1.safetensors", "copy2.pt")]
    found = _answer(shell, *files, "--model", MODEL, "--input", "2x1x8x8", *method, "--check", "-o", tmp_path / "out")
    assert [Path(one["file"]).name for one in found["aligned"]] == ["copy1.safetensors", "copy2.pt"]
    assert all(one["largest_change"] < 1e-5 for one in found["aligned"])
    assert found["objective"] >= found["identity_objective"]
    if method[1] not in ("straight_through", "swaps", "simplex"):  # these descend a loss, not a distance
        for one in found["aligned"]:
            assert torch.equal(load(one["file"])["1.weight"], fixed["1.weight"])


def test_a_scale_that_the_function_does_not_see_is_taken_off(shell, tmp_path, symmetry):
    """ReLU units scaled up by up to a hundred: inner products go astray, unit scale does not."""
    fixed = network(MODEL, inputs=(1, 8, 8), seed=0).state_dict()
    factors = torch.logspace(-2, 2, 8)
    scaled = {**fixed, "1.weight": fixed["1.weight"] * factors[:, None], "1.bias": fixed["1.bias"] * factors}
    scaled["3.weight"] = fixed["3.weight"] / factors
    planted = symmetry.random(child(1, "planted"))
    save(fixed, tmp_path / "a.safetensors")
    save(planted.apply(scaled), tmp_path / "b.safetensors")
    files = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    _answer(shell, *files, *EXAMPLE, "--unit-scale", "--check", "-o", tmp_path / "out")
    assert torch.equal(load(tmp_path / "out" / "b.safetensors")["1.weight"], scaled["1.weight"])
    refused = _refusal(shell, *files, *EXAMPLE, "--unit-scale", "--method", "sinkhorn", "-o", tmp_path / "out")
    assert "option of the methods weights and cosine" in refused


def test_the_table_for_people_names_files_and_changes(shell, sharded, tmp_path):
    code, out, err = shell("align", *sharded, *EXAMPLE, "--check", "-o", tmp_path / "out")
    assert code == 0, err
    assert "change of output" in out
    assert "stayed" in out


def _refusal(shell, *arguments) -> str:
    code, out, err = shell("align", *arguments)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("isthmus:")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_what_is_wrong_is_said_before_the_work(shell, sharded, tmp_path):
    first, second = sharded
    out = ("-o", tmp_path / "out")
    assert "at least one to permute" in _refusal(shell, first, *EXAMPLE, *out)
    assert "give --model or --symmetry" in _refusal(shell, first, second, *out)
    assert "method must be one of" in _refusal(shell, first, second, *EXAMPLE, "--method", "magic", *out)
    assert "together must be one of" in _refusal(shell, first, second, *EXAMPLE, "--together", "apart", *out)
    assert "give --model and --data" in _refusal(shell, first, second, *EXAMPLE, "--method", "swaps", *out)
    assert "nothing at" in _refusal(shell, first, tmp_path / "nowhere", *EXAMPLE, *out)
    assert "another place" in _refusal(shell, first, second, *EXAMPLE, "-o", tmp_path)
    wider = ("--model", "mlp-9x1", "--input", "2x1x8x8")
    assert "1.weight is (9, 64) in the model, (8, 64) in the file" in _refusal(shell, first, second, *wider, *out)
    deeper = ("--model", "mlp-8x2", "--input", "2x1x8x8")
    assert "missing: 5.weight, 5.bias" in _refusal(shell, first, second, *deeper, *out)


def test_damaged_shards_are_refused(shell, sharded, tmp_path):
    first, second = sharded
    shard = second / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert "whole safetensors file" in _refusal(shell, first, second, *EXAMPLE, "-o", tmp_path / "out")
    shard.unlink()
    assert "model-00002-of-00002.safetensors" in _refusal(shell, first, second, *EXAMPLE, "-o", tmp_path / "out")


@pytest.mark.parametrize("where", ["module.1.weight", "module.3.bias"])  # one that counts, one that nothing moves
def test_numbers_that_are_none_are_refused(shell, sharded, tmp_path, where):
    first, second = sharded
    weights = load(second)
    weights[where] = torch.full_like(weights[where], float("nan"))
    shutil.rmtree(second)
    _shards(second, weights)
    assert "finite" in _refusal(shell, first, second, *EXAMPLE, "-o", tmp_path / "out")
