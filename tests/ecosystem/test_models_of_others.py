"""A Hugging Face folder or a timm name wherever a command takes a model: with its checkpoint, from the shell."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tests.discover.architectures import define_missing_operators

import isthmus
from isthmus.cli.main import invoke
from isthmus.zoo.models import weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny vision transformer as ``save_pretrained`` leaves it, a second one, and a moved copy of the first."""
    define_missing_operators()
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("models")
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12, num_labels=10,
    )  # fmt: skip
    for name in ("one", "two"):
        torch.manual_seed(len(name) + ord(name[0]))
        transformers.ViTForImageClassification(config).save_pretrained(place / name)
    return place


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def answer(capsys, *words):
    assert invoke([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_symmetry_of_a_folder(capsys):
    found = answer(capsys, "symmetry", "one", "--input", "1x1x8x8")
    assert {group["units"] for group in found["groups"]} >= {2, 12}  # heads and inner units


def test_the_names_in_a_folder_are_not_those_of_the_module_and_yet_it_is_read(folder):
    module = isthmus.resolve("one")
    in_file = isthmus.load("one")
    assert set(in_file) != set(module.state_dict())  # else this test says nothing
    weights = weights_of("one", module.state_dict())
    assert set(weights) == set(module.state_dict())
    assert sorted(float(t.sum()) for t in weights.values()) == pytest.approx(
        sorted(float(t.sum()) for t in in_file.values())
    )


def test_align_takes_folders_as_model_and_as_checkpoints(capsys, folder):
    module = isthmus.resolve("one")
    symmetry = isthmus.discover(module, torch.zeros(2, 1, 8, 8))
    one = weights_of("one", module.state_dict())
    moved = symmetry.random(torch.Generator().manual_seed(1)).apply(one)
    isthmus.save(moved, folder / "moved.safetensors")
    answer(capsys, "align", "one", "moved.safetensors", "--model", "one", "--input", "1x1x8x8", "-o", "aligned")
    there = isthmus.load("aligned/moved.safetensors")
    assert all(torch.equal(tensor, there[name]) for name, tensor in one.items())


def test_an_aligned_folder_is_a_folder_that_its_library_reads(capsys):
    answer(capsys, "align", "one", "two", "--model", "one", "--input", "1x1x8x8", "-o", "both")
    module, images = isthmus.resolve("two"), torch.rand(2, 1, 8, 8)
    outputs = []
    for place in ("two", "both/two"):
        module.load_state_dict(weights_of(place, module.state_dict()))
        outputs.append(module.eval()(images).logits)
    assert torch.allclose(*outputs, atol=1e-6)
    assert not torch.equal(weights_of("two", module.state_dict())["classifier.weight"], module.classifier.weight)


def test_barrier_between_folders(capsys):
    words = ("--model", "one", "--data", "digits", "--examples", "40", "--points", "3")
    found = answer(capsys, "barrier", "one", "two", *words, "--align", "weights")
    assert set(found["barriers"]) == {"naive", "weights"}


def test_merge_of_folders(capsys):
    found = answer(capsys, "merge", "one", "two", "-o", "merged")
    assert found["merge"]["parameters"] == sum(tensor.numel() for tensor in isthmus.load("one").values())
    one, two = isthmus.load("one"), isthmus.load("two")
    there = isthmus.load("merged")
    assert all(torch.allclose(tensor, (one[name] + two[name]) / 2) for name, tensor in there.items())


@pytest.fixture(scope="module")
def readers(folder):
    """Two tiny BERTs and a file of whole numbers, which only they know to be tokens."""
    import numpy as np

    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    for seed in (0, 1):
        torch.manual_seed(seed)
        transformers.BertForSequenceClassification(config).save_pretrained(folder / f"reader-{seed}")
    tokens = np.random.default_rng(0).integers(0, 12, (30, 6))
    np.savez(folder / "tokens.npz", x=tokens, y=tokens[:, 0] % 2)


@pytest.mark.usefixtures("readers")
def test_a_language_model_takes_a_file_of_token_numbers(capsys):
    words = ("--model", "reader-0", "--data", "tokens.npz", "--points", "3")
    assert set(answer(capsys, "barrier", "reader-0", "reader-1", *words, "--align", "both")["barriers"]) == {
        "naive", "weights", "activations"
    }  # fmt: skip
    aligned = answer(capsys, "align", "reader-0", "reader-1", "--data", "tokens.npz", "--check", "-o", "read")
    assert aligned["aligned"][0]["largest_change"] < 1e-5
    answer(capsys, "align", "reader-0", "reader-1", "--data", "tokens.npz", "--method", "activations", "-o", "read-2")
    kept = answer(
        capsys, "merge", "reader-0", "reader-1", "--model", "reader-0", "--keep", "all=tokens.npz:0.1", "--tries", "4",
        "-o", "kept.safetensors",
    )  # fmt: skip
    assert kept["kept"]["met"]


@pytest.mark.usefixtures("readers")
def test_symmetry_of_a_language_model_needs_no_word_about_tokens(capsys):
    found = answer(capsys, "symmetry", "reader-0", "--input", "1x6")
    assert {group["units"] for group in found["groups"]} >= {2, 12}


def test_timm_names(capsys):
    pytest.importorskip("timm")
    assert answer(capsys, "symmetry", "timm:test_vit", "--input", "1x3x160x160")["groups"]


@pytest.fixture
def cached(folder, tmp_path, monkeypatch):
    """A cache of the hub, laid out as its library does, with the two folders as models of one owner."""
    pytest.importorskip("huggingface_hub")
    for name in ("one", "two"):
        place = tmp_path / f"models--owner--{name}"
        (place / "snapshots").mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder / name, place / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("cached")
def test_models_of_the_hub_s_cache_are_models_and_checkpoints(capsys, tmp_path):
    found = answer(capsys, "symmetry", "hf:owner/one", "--input", "1x1x8x8")
    assert found["groups"] == answer(capsys, "symmetry", "one", "--input", "1x1x8x8")["groups"]
    words = ("--model", "hf:owner/one", "--data", "digits", "--examples", "40")
    named = answer(capsys, "barrier", "hf:owner/one", "hf:owner/two", *words)
    there = answer(capsys, "barrier", "one", "two", "--model", "one", *words[2:])
    assert named["barriers"]["naive"]["heights"] == there["barriers"]["naive"]["heights"]
    assert (named["names"], there["names"]) == (["hf:owner/one", "hf:owner/two"], ["one", "two"])
    assert len(answer(capsys, "history", "hf:owner/one", "two")["nodes"]) == 2
    assert invoke(["merge", "hf:owner/one", "two", "--base", "hf:owner/two", "-o", str(tmp_path / "merged")]) == 0


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("spec", ["hf:owner/three", "hf:", "hf:owner/one@other", "hf:a/b/c"])
def test_what_the_cache_lacks_is_one_line_that_says_what_to_do(capsys, spec):
    assert invoke(["symmetry", spec]) == 2
    error = capsys.readouterr().err
    assert "must be in Hugging Face's cache on this machine, since nothing is downloaded, and is not" in error
    assert "hf download" in error
    assert invoke(["barrier", spec, "one", "--model", "one", "--data", "digits"]) == 2
    assert "must be in Hugging Face's cache" in capsys.readouterr().err


@pytest.mark.usefixtures("readers")
def test_an_example_of_tokens_is_as_long_as_a_model_allows(capsys):
    found = answer(capsys, "symmetry", "reader-0")
    assert {group["units"] for group in found["groups"]} >= {2, 12}


def test_a_trainer_s_folder_with_optimiser_and_arguments_is_one_checkpoint(capsys, folder):
    for step in (2, 10):
        place = folder / "out" / f"checkpoint-{step}"
        shutil.copytree(folder / ("one" if step == 2 else "two"), place)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"state": {}}, place / name)
    words = ("--model", "one", "--data", "digits", "--examples", "40")
    whole = answer(capsys, "barrier", "out", *words)
    each = answer(capsys, "barrier", "out/checkpoint-2", "out/checkpoint-10", *words)
    assert whole["barriers"]["naive"]["heights"] == each["barriers"]["naive"]["heights"]
    assert whole["names"] == ["checkpoint-2", "checkpoint-10"]
