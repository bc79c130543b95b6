"""Checkpoints read one tensor at a time, under a network's own names."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from isthmus.core.errors import CheckpointError
from isthmus.core.lazy import Fitted, LazyCheckpoint

SHAPES = {"a": (2, 3), "b": (3,)}


@pytest.fixture
def file(tmp_path):
    save_file({f"module.{n}": torch.ones(shape) for n, shape in SHAPES.items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_names_shapes_and_files_are_known_without_reading(file):
    source = LazyCheckpoint(file)
    assert source.shape("module.a") == (2, 3)
    assert source.files == {file: ("module.a", "module.b")}
    assert source.metadata(file) == {}


def test_wrappers_are_dropped_and_tied_names_found(file):
    fitted = Fitted(LazyCheckpoint(file), {**SHAPES, "head": (2, 3)}, tied={"head": "a"})
    assert list(fitted) == ["a", "b", "head"]
    assert fitted["head"].shape == (2, 3)
    assert fitted.names == {"a": "module.a", "b": "module.b", "head": "module.a"}
    counted = Fitted(LazyCheckpoint(file), {**SHAPES, "norm.num_batches_tracked": ()})
    assert counted["norm.num_batches_tracked"] == 0
    assert len(counted) == 3
    assert "norm.num_batches_tracked" in counted


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({**SHAPES, "c": (1,)}, "missing: c"),
        ({"a": (2, 3)}, "extra: b"),
        ({"a": (2, 3), "b": (4,)}, r"b is \(4,\) in the model, \(3,\) in the file"),
    ],
)
def test_what_does_not_fit_is_named(file, shapes, said):
    with pytest.raises(CheckpointError, match=said):
        Fitted(LazyCheckpoint(file), shapes)


def test_a_folder_of_two_checkpoints_is_not_taken_for_one(tmp_path):
    for name in ("a", "b"):
        save_file({"w": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"exactly one checkpoint, found a.safetensors, b.safetensors; name"):
        LazyCheckpoint(tmp_path)
