"""How tensors are dealt out to files: as many as fit, in order."""

import json

import pytest
import torch

from isthmus.core.checkpoint import load, save
from isthmus.merge import Configuration, merge_files

LENGTHS = {"a": 10, "b": 15, "c": 5, "d": 40, "e": 1, "f": 24, "g": 24}  # 4 bytes for each entry


@pytest.fixture
def both(tmp_path):
    """A merge of two models of seven tensors."""
    for value, name in ((1.0, "x"), (3.0, "y")):
        save({key: torch.full((length,), value) for key, length in LENGTHS.items()}, tmp_path / f"{name}.safetensors")
    models = [{"model": str(tmp_path / f"{name}.safetensors"), "parameters": {"weight": 1}} for name in "xy"]
    return Configuration.of({"merge_method": "linear", "models": models})


@pytest.mark.parametrize(
    ("size", "files"),
    [
        (100, ["ab", "c", "d", "ef", "g"]),  # a and b fill a file to the last byte; d is larger than any
        (99, ["a", "bc", "d", "e", "f", "g"]),
        (1, list("abcdefg")),
        (120, ["abc", "d", "ef", "g"]),
        (119, ["ab", "c", "d", "ef", "g"]),
        (4 * sum(LENGTHS.values()) - 1, ["abcdef", "g"]),
    ],
)
def test_a_file_is_filled_up_to_the_size_and_no_further(tmp_path, both, size, files):
    merge_files(both, tmp_path / "out", shard_size=size)
    names = [f"model-{place:05}-of-{len(files):05}.safetensors" for place in range(1, len(files) + 1)]
    assert sorted(file.name for file in (tmp_path / "out").glob("*.safetensors")) == names
    assert ["".join(load(tmp_path / "out" / name)) for name in names] == files
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {key: name for keys, name in zip(files, names, strict=True) for key in keys}
    assert index["metadata"]["total_size"] == 4 * sum(LENGTHS.values())
    for key, tensor in load(tmp_path / "out").items():
        assert torch.equal(tensor, torch.full((LENGTHS[key],), 2.0))


def test_what_fits_into_one_file_has_no_index(tmp_path, both):
    merge_files(both, tmp_path / "out", shard_size=4 * sum(LENGTHS.values()))
    assert [file.name for file in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    assert set(load(tmp_path / "out")) == set(LENGTHS)


def test_a_file_that_was_named_is_one_file_whatever_the_size(tmp_path, both):
    merge_files(both, tmp_path / "out.safetensors", shard_size=1)
    merged = load(tmp_path / "out.safetensors")
    assert {key: len(tensor) for key, tensor in merged.items()} == LENGTHS
