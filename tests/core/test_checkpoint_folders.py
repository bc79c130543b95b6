"""Folders and files as trainers leave them: what can be read is, everything else is one line that says what to do."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.core.checkpoint_files import NAMES, SHARDS, WEIGHTS, part, readers, refused, same, sharded

from isthmus.core.checkpoint import load
from isthmus.core.fitting import fit
from isthmus.core.folders import checkpoints_in
from isthmus.core.lazy import Fitted, LazyCheckpoint, lazily
from isthmus.merge.shards import Shards


def in_bins(folder: Path) -> Path:
    files = [f"pytorch_model-0000{place}-of-00002.bin" for place in (1, 2)]
    for file, held in zip(files, (part(0, 1), part(2, 3)), strict=True):
        torch.save(held, folder / file)
    table = {name: files[place // 2] for place, name in enumerate(NAMES)}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return index


def test_shards_of_torch_files_are_joined(tmp_path):
    index = in_bins(tmp_path)
    for path in (tmp_path, index):
        assert same(load(path))
        assert list(load(path)) == list(NAMES)
        assert same(dict(lazily(path)))
    assert checkpoints_in(tmp_path) == [index]
    refused(lambda: Shards.open(tmp_path), r"needs \.safetensors, got .*bin; save it in that format: isthmus\.save\(")
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    refused(lambda: load(tmp_path), r"needs 2 shards; missing: pytorch_model-00002-of-00002\.bin; fetch")


def test_a_shard_of_torch_runs_no_code(tmp_path):
    in_bins(tmp_path)
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_bytes(pickle.dumps(pathlib.Path.mkdir))
    refused(lambda: load(tmp_path), "unsafe_pickle")


def test_a_tensor_in_two_shards_must_be_the_same_in_both(tmp_path):
    for read in readers(sharded(tmp_path / "a", part(0, 1, 2), part(2, 3))):
        read()
    assert same(load(tmp_path / "a"))
    for read in readers(sharded(tmp_path / "b", part(0, 1, 2), part(2, 3, add=1.0))):
        refused(read, r"one checkpoint, but 2\.weight differs in model-00001-of-00002.* and in model-00002")


def test_tensors_that_the_index_forgot_are_read_from_its_shards(tmp_path):
    folder = sharded(tmp_path / "a", part(0, 1), part(2, 3), listed=(NAMES[0], *NAMES[2:]))
    assert same(load(folder))
    assert same(dict(LazyCheckpoint(folder)))
    assert Shards.open(folder).entries.keys() == WEIGHTS.keys()


def test_shards_without_their_index_are_no_checkpoints(tmp_path):
    folder = sharded(tmp_path / "a", part(0, 1), part(2, 3))
    (folder / "model.safetensors.index.json").unlink()
    assert checkpoints_in(folder) == []
    for read in readers(folder):
        refused(read, r"the index of its shards, model\.safetensors\.index\.json, which is missing; fetch it too")
    (folder / SHARDS[0]).unlink()
    for read in readers(folder):
        refused(read, "must hold all 2 shards and their index, but has only model-00002-of-00002")


def test_the_same_weights_once_more_do_not_count(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    save_file(part(0), tmp_path / "model.fp16.safetensors")
    save_file(part(0), tmp_path / "consolidated.safetensors")
    in_bins(tmp_path)
    assert checkpoints_in(tmp_path) == [tmp_path / "model.safetensors"]
    assert same(load(tmp_path))


def test_a_snapshot_of_links_that_may_only_be_read(tmp_path):
    blobs = sharded(tmp_path / "blobs", part(0, 1), part(2, 3))
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for place, file in enumerate(sorted(blobs.iterdir())):
        file.rename(blobs / str(place))
        (snapshot / file.name).symlink_to(blobs / str(place))
    snapshot.chmod(0o555)
    try:
        assert same(load(snapshot))
        assert same(dict(LazyCheckpoint(snapshot)))
        assert Shards.open(snapshot).entries.keys() == WEIGHTS.keys()
    finally:
        snapshot.chmod(0o755)


# --- what training scripts put beside the weights


@pytest.mark.parametrize(
    "content",
    [
        {**WEIGHTS, "epoch": 3, "arch": "mlp", "best": None},
        {**WEIGHTS, "0._extra_state": None},
        {"model_state": WEIGHTS, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        {"ema_state": {"decay": 0.99, "shadow": WEIGHTS}},
        {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")), "epoch": 1},
        {"state_dict": WEIGHTS, "best_acc": np.float64(0.5), "hyper_parameters": {"path": pathlib.PurePosixPath("x")}},
    ],
    ids=["plain values", "extra state", "another name", "average", "arguments", "numbers of NumPy"],
)
def test_weights_are_found_among_what_lies_beside_them(tmp_path, content):
    for name in ("last.pt", "model_best.pth.tar"):
        torch.save(content, tmp_path / name)
        assert same(load(tmp_path / name))


def test_which_of_two_is_meant_is_not_guessed(tmp_path):
    torch.save({"generator": WEIGHTS, "critic": WEIGHTS}, tmp_path / "w.pt")
    refused(lambda: load(tmp_path / "w.pt"), "got keys generator, critic; save the one that is meant by itself")


def test_a_refused_pickle_is_told_by_what_it_asks_for(tmp_path):
    torch.save({"model": WEIGHTS, "made": argparse.ArgumentParser}, tmp_path / "w.pt")
    refused(lambda: load(tmp_path / "w.pt"), r"its pickle asks for argparse\.ArgumentParser, and nothing of it was run")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS .* `git lfs pull`"),
        ("a.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS .* `git lfs pull`"),
        ("a.safetensors", b"<!DOCTYPE html><html>", "a page of text, as a failed download leaves it; fetch it again"),
        ("a.pt", b"\n <html>", "a page of text"),
        ("a.pt", b"GGUF" + bytes(90), "a GGUF file; convert it"),
        ("a.pt", b"GGUF", "a GGUF file; convert it"),
        ("a.ckpt", b"\x1f\x8b" + bytes(90), "compressed"),
        ("a.safetensors", b"PK\x03\x04" + bytes(90), "a torch file; name it .pt"),
        ("a.bin", (64).to_bytes(8, "little") + b"{" + b" " * 200, "a safetensors file; give it that suffix"),
        ("a.gguf", b"GGUF", "convert it first"),
    ],
)
def test_files_that_are_not_what_their_names_say(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    refused(lambda: load(tmp_path / name), said)
    if name.endswith(".safetensors"):
        for read in readers(tmp_path):
            refused(read, said)


def test_folders_of_other_things_say_where_to_look(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    refused(lambda: load(tmp_path), r"found only tf_model\.h5; convert it first")
    (tmp_path / "unet").mkdir()
    save_file(WEIGHTS, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    refused(lambda: load(tmp_path), "further down in unet; name that folder")


def test_adapters_and_codes_are_no_models(tmp_path):
    lora = {f"base_model.model.0.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    save_file(lora, tmp_path / "adapter_model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}
    said = "must be a model, but is an adapter to one .*merge_and_unload"
    refused(lambda: fit(load(tmp_path), WEIGHTS), said)
    refused(lambda: Fitted(LazyCheckpoint(tmp_path), shapes), said)
    for kind, code in ((torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")):
        save_file({name: tensor.to(kind) for name, tensor in WEIGHTS.items()}, tmp_path / "codes.safetensors")
        lazy = LazyCheckpoint(tmp_path / "codes.safetensors")
        refused(lambda lazy=lazy: Fitted(lazy, shapes), f"0.weight is {code} in the file; convert it to bfloat16")


def test_names_are_said_on_one_line(tmp_path):
    save_file({f"層\n.{name}": tensor for name, tensor in WEIGHTS.items()}, tmp_path / "w.safetensors")
    refused(lambda: fit(load(tmp_path), WEIGHTS), r"it has 層\\n\.0")
    renamed = {f"層.{name}": tensor for name, tensor in WEIGHTS.items()}
    save_file(renamed, tmp_path / "w.safetensors")
    shutil.copy(tmp_path / "w.safetensors", tmp_path / "重み.safetensors")
    assert load(tmp_path / "重み.safetensors").keys() == renamed.keys()
