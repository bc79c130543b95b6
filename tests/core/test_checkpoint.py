"""Checkpoints that a user might have: shards, folders, pickles that run code, files that are none."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from isthmus.core.checkpoint import load, metadata_of, save
from isthmus.core.errors import CheckpointError, IsthmusError
from isthmus.core.fitting import fit

WEIGHTS = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "a.bias": torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
    "half": torch.tensor([0.1], dtype=torch.float16),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_what_is_saved_is_loaded_in_its_own_precision(tmp_path, suffix):
    file = save(WEIGHTS, tmp_path / f"deep/er/w{suffix}", metadata={"made_by": "test"})
    assert same(load(file), WEIGHTS)
    assert metadata_of(file) == ({"format": "pt", "made_by": "test"} if suffix == ".safetensors" else {})
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_views_are_saved_as_what_they_show(tmp_path, suffix):
    stack = torch.randn(64, 1000)
    views = {"row": stack[3], "turned": stack.T[:5], "tied": stack[3]}
    file = save(views, tmp_path / f"w{suffix}")
    assert file.stat().st_size < 70_000
    assert same(load(file), views)


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model", "params", "module", "net"])
def test_nested_state_dicts_are_found(tmp_path, nest):
    torch.save({nest: WEIGHTS, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), WEIGHTS)
    torch.save({"state_dict": {"model": WEIGHTS, "note": "x"}}, tmp_path / "twice.pt")
    assert same(load(tmp_path / "twice.pt"), WEIGHTS)


def shards(folder, table, missing=()):
    for name in set(table.values()) - set(missing):
        save_file({key: WEIGHTS[key] for key, file in table.items() if file == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


def test_shards_are_joined_in_the_order_of_the_index(tmp_path):
    table = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(WEIGHTS)}
    shards(tmp_path, table)
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        found = load(path)
        assert same(found, WEIGHTS)
        assert list(found) == list(WEIGHTS)


def test_broken_shards_are_named(tmp_path):
    table = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(WEIGHTS)}
    shards(tmp_path, table, missing=["part-1.safetensors"])
    with pytest.raises(CheckpointError, match=r"needs 2 shards; missing: part-1\.safetensors; fetch"):
        load(tmp_path)
    shards(tmp_path, {**table, "a.bias": "../elsewhere.safetensors"}, missing=["../elsewhere.safetensors"])
    with pytest.raises(CheckpointError, match="in its own folder"):
        load(tmp_path)
    shards(tmp_path, table)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {**table, "ghost": "part-0.safetensors"}}))
    with pytest.raises(CheckpointError, match="missing: ghost"):
        load(tmp_path)
    for text in ("{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(text)
        with pytest.raises(IsthmusError, match=r"must be JSON with a weight_map|must map tensor names"):
            load(tmp_path)


def test_a_folder_must_hold_one_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        load(tmp_path)
    save(WEIGHTS, tmp_path / "a.pt")
    assert same(load(tmp_path), WEIGHTS)
    save(WEIGHTS, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"found a\.pt, b\.pt; name the file"):
        load(tmp_path)


def test_what_trainers_write_beside_the_weights_is_no_checkpoint(tmp_path):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "optimizer_1.bin"):
        save({"w": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="found none"):
        load(tmp_path)
    save(WEIGHTS, tmp_path / "pytorch_model.bin")
    assert same(load(tmp_path), WEIGHTS)
    changed = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
    save(changed, tmp_path / "model.safetensors")  # the newer format counts where a folder has both
    assert same(load(tmp_path), changed)


class Runs:
    """A pickle that would run code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("new", [True, False])
def test_pickles_that_run_code_are_refused_and_do_not_run(tmp_path, new):
    trap = tmp_path / "trap"
    torch.save({"w": torch.ones(2), "x": Runs(str(trap))}, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=r"--unsafe-pickle") as caught:
        load(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert not trap.exists()
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Runs(str(trap))))
    with pytest.raises(CheckpointError):
        load(tmp_path / "plain.pt")
    assert not trap.exists()


def test_a_whole_module_needs_the_unsafe_way(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="unsafe_pickle"):
        load(tmp_path / "w.pt")
    assert set(load(tmp_path / "w.pt", unsafe_pickle=True)) == {"weight", "bias"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 7, 100, 0.5])
def test_truncated_files_are_one_line(tmp_path, suffix, keep):
    file = save({"w": torch.randn(500)}, tmp_path / f"w{suffix}")
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_unknown_and_empty_files(tmp_path):
    with pytest.raises(CheckpointError, match="nothing at"):
        load(tmp_path / "none.pt")
    (tmp_path / "w.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="must be one of"):
        load(tmp_path / "w.txt")
    with pytest.raises(CheckpointError, match="is written as"):
        save(WEIGHTS, tmp_path / "w.npz")
    for content in ({"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match="must hold a state_dict"):
            load(tmp_path / "other.pt")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    file = save(WEIGHTS, tmp_path / "w.safetensors")
    with pytest.raises(Exception, match=r"metadata|str"):
        save(WEIGHTS, file, metadata={"number": 3})  # type: ignore[dict-item]
    assert same(load(file), WEIGHTS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def plain():
    return {"0.weight": torch.arange(6.0).view(2, 3), "0.bias": torch.ones(2)}


def test_parameters_and_sparse_tensors_are_read_as_plain_ones(tmp_path):
    """``torch.save(dict(module.named_parameters()))`` holds parameters, which would drag a graph behind them."""
    tensors = plain()
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, tmp_path / "a.pt")
    torch.save({name: tensor.to_sparse() for name, tensor in tensors.items()}, tmp_path / "b.pt")
    for name in ("a", "b"):
        found = load(tmp_path / f"{name}.pt")
        assert not any(tensor.requires_grad for tensor in found.values())
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_meta_tensors_are_refused(tmp_path):
    torch.save({"w": torch.empty(3, device="meta")}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="w is a meta tensor: a shape without entries"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize("key", ["ema", "state_dict_ema"])
def test_an_average_alone_in_a_file_is_found(tmp_path, key):
    torch.save({key: plain(), "epoch": 3}, tmp_path / "a.pt")
    assert list(load(tmp_path / "a.pt")) == list(plain())
    torch.save({key: {n: t + 1 for n, t in plain().items()}, "state_dict": plain()}, tmp_path / "b.pt")
    assert torch.equal(load(tmp_path / "b.pt")["0.bias"], torch.ones(2))


@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda t: t.to(torch.float8_e4m3fn), "8-bit float"),
        (lambda t: t.to(torch.int8), "whole"),
        (lambda t: t.to(torch.complex64), "complex"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantised"),
    ],
)
def test_numbers_of_another_kind_are_refused(change, kind):
    like = plain()
    with pytest.raises(CheckpointError, match=f"0.weight is {kind} in the file, real in the model"):
        fit({**like, "0.weight": change(like["0.weight"])}, like)
    assert fit({name: tensor.bfloat16() for name, tensor in like.items()}, like)["0.bias"].dtype == torch.bfloat16


def test_what_is_no_checkpoint_is_said_in_words(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save(plain(), tmp_path / "a.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-300])
    for name in ("text.pt", "half.pt"):
        with pytest.raises(CheckpointError, match="cut short, or none at all"):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match="must be one of"):
        load("/dev/null")
