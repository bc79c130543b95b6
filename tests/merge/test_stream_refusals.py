"""What a merge from disk to disk refuses, in one line each, before it has written anything."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from tests.merge.saved import folder_of, recipe, saved, weights

from isthmus.core.checkpoint import load, save
from isthmus.core.errors import CheckpointError, IsthmusError, SettingError
from isthmus.merge import Configuration, merge_files, shards
from isthmus.merge.shards import Shards


def refused(tmp_path: Path, message: str, *, method: str = "linear", output: str = "out", **more) -> None:
    each = {"weight": 1} if method == "linear" else {"weight": 1, "density": 0.5}
    with pytest.raises(IsthmusError, match=message) as caught:
        merge_files(recipe(tmp_path, method, each=each, base=method != "linear", **more), tmp_path / output)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / output).exists() or output != "out"


def test_a_full_disk_is_one_line_before_the_work(tmp_path):
    saved(tmp_path, torch.bfloat16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:  # a limit on the size of files stands in for a disk that is too small
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(IsthmusError, match=r"must be writable|disk is full"):
            merge_files(recipe(tmp_path, "linear", each={"weight": 1}, base=False), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_disk_that_fills_up_is_one_line(tmp_path, monkeypatch):
    saved(tmp_path, torch.bfloat16)

    def full(descriptor: int, *_: object) -> int:
        return os.write(os.open("/dev/full", os.O_WRONLY), b"x")

    monkeypatch.setattr(os, "posix_fallocate", full)
    refused(tmp_path, r"needs 0\.00 GB, but its disk is full .* free some space")
    assert not (tmp_path / ".out.part").exists()


def test_without_reservation_the_free_space_is_asked_for(tmp_path, monkeypatch):
    saved(tmp_path, torch.bfloat16)
    monkeypatch.delattr(os, "posix_fallocate")
    real = os.fstatvfs

    def small(descriptor: int) -> os.statvfs_result:
        stats = list(real(descriptor))
        stats[4] = 1  # one block is available
        return os.statvfs_result(stats)

    monkeypatch.setattr(os, "fstatvfs", small)
    refused(tmp_path, "its disk is full")
    monkeypatch.setattr(os, "fstatvfs", real)
    merge_files(recipe(tmp_path, "linear", each={"weight": 1}, base=False), tmp_path / "out")


def test_an_output_that_is_an_input_or_exists_is_refused(tmp_path):
    saved(tmp_path, torch.bfloat16)
    before = (tmp_path / "x.safetensors").read_bytes()
    refused(tmp_path, "the output must not be an input", output="x.safetensors")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "x.safetensors")
    refused(tmp_path, "the output must not be an input", output="link.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == before
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    refused(tmp_path, "the output must not exist yet", output="there")


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_nan_is_traced_to_its_model_and_tensor(tmp_path, method):
    solutions, _ = saved(tmp_path, torch.bfloat16)
    solutions[1]["model.norm.weight"][100] = torch.nan
    save(solutions[1], tmp_path / "y.safetensors")
    refused(tmp_path, r"y\.safetensors must be finite to be merged; NaN or Inf in model\.norm\.weight", method=method)


def test_leaving_the_range_is_refused_with_what_to_do(tmp_path):
    for name in "xy":
        save({"w": torch.full((10,), 6e4, dtype=torch.float16)}, tmp_path / f"{name}.safetensors")
    refused(tmp_path, "leaves the range of float16; use smaller weights", parameters={"normalize": False})


def test_inputs_that_do_not_fit_are_refused(tmp_path):
    x, y = weights(1, torch.bfloat16), weights(2, torch.bfloat16)
    save(x, tmp_path / "x.safetensors")

    def second(changed: dict, message: str) -> None:
        save(changed, tmp_path / "y.safetensors")
        refused(tmp_path, message)

    second({**y, "model.norm.weight": y["model.norm.weight"].float()}, r"model\.norm\.weight is BF16 .* F32 .*dtype")
    second({**y, "model.norm.weight": torch.ones(3, dtype=torch.bfloat16)}, "only networks of one architecture")
    second(
        {**y, "model.embed_tokens.weight": torch.ones(532, 257, dtype=torch.bfloat16)}, "one vocabulary.*532 of them"
    )
    second({name: t for name, t in y.items() if name != "steps"}, "must have the same tensors.*lacks steps")
    second({**y, "lm_head.weight": torch.ones(3)}, "tie their output layer alike")
    compiled = r"y\.safetensors carry a wrapper's part \(_orig_mod\.\S+ and 4 more\); save it without"
    second({f"_orig_mod.{name}": tensor for name, tensor in y.items()}, compiled)
    save({**x, "table": torch.arange(3)}, tmp_path / "x.safetensors")
    second({**y, "table": torch.arange(3) + 1}, r"table \(I64\) differs")


def test_files_that_hold_no_whole_model_are_refused(tmp_path):
    """Their factors, or nothing at all, would have been averaged."""
    matrix = torch.ones(2, 2)
    for content, message in (
        (
            {f"base_model.model.a.lora_{side}.weight": matrix for side in "AB"},
            "is an adapter to one .*merge_and_unload",
        ),
        ({"a.weight": torch.empty(0), "a.bias": torch.ones(2)}, r"a\.weight is empty; DeepSpeed .*zero_to_fp32\.py"),
        ({"a.weight": matrix.to(torch.complex64)}, r"complex numbers are not merged from disk to disk.*\.pt"),
        ({"a.weight": matrix.to(torch.float8_e8m0fnu)}, "8-bit floats cannot be merged"),
    ):
        for name in "xy":
            save(content, tmp_path / f"{name}.safetensors")
        refused(tmp_path, message)


def test_tensors_without_entries_are_merged_like_others(tmp_path):
    for place, name in enumerate("xy"):
        save({"a.weight": torch.full((2,), float(place)), "none": torch.empty(0, 3)}, tmp_path / f"{name}.safetensors")
    merge_files(recipe(tmp_path, "linear", each={"weight": 1}, base=False), tmp_path / "out.safetensors")
    merged = load(tmp_path / "out.safetensors")
    assert torch.equal(merged["a.weight"], torch.full((2,), 0.5))
    assert merged["none"].shape == (0, 3)


def test_damaged_and_missing_files_are_refused(tmp_path):
    saved(tmp_path, torch.bfloat16)
    whole = (tmp_path / "y.safetensors").read_bytes()
    for damage, message in (
        (whole[:-10], "must be whole: its header needs"),
        (whole[:4], "header does not fit"),
        (b"\xff" * 100, "header does not fit"),
        (whole[:8] + b"x" * (len(whole) - 8), "must be a whole safetensors file"),
    ):
        (tmp_path / "y.safetensors").write_bytes(damage)
        refused(tmp_path, message)
    (tmp_path / "y.safetensors").unlink()
    refused(tmp_path, "there is nothing at")
    folder = folder_of(tmp_path / "f", weights(1, torch.bfloat16), shards=3)
    content = {"merge_method": "linear", "parameters": {"weight": 1},
               "models": [{"model": str(tmp_path / "x.safetensors")}, {"model": str(folder)}]}  # fmt: skip
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="needs 3 shards; missing: model-00002-of-00003"):
        merge_files(Configuration.of(content), tmp_path / "out")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match="all 3 shards and their index, but has only model-00001"):
        merge_files(Configuration.of(content), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"merge_metod": "linear"}, "merge_metod is not a known key; did you mean merge_method"),
        ({"merge_method": "linar"}, "merge_method must be one of linear"),
        ({"merge_method": "linear", "modules": {}}, "modules is not supported"),
        ({"merge_method": "linear"}, "exactly one of models and slices"),
        ({"merge_method": "linear", "models": [{"model": "a", "paramters": {}}]}, "did you mean parameters"),
        ({"merge_method": "linear", "models": [{"model": "a"}]}, "needs at least 2 models, got a"),
        ({"merge_method": "ties", "models": [{"model": "a"}]}, "ties needs base_model"),
        (
            {"merge_method": "ties", "models": [{"model": "a"}], "base_model": "b", "parameters": {"densty": 1}},
            "densty is not a known key; did you mean density",
        ),
        (
            {"merge_method": "ties", "models": [{"model": "a"}], "base_model": "b", "parameters": {"density": 1.5}},
            "density must lie between 0 and 1, got 1.5",
        ),
        ({"merge_method": "slerp", "models": [{"model": "a"}, {"model": "c"}], "base_model": "b"}, "needs one model"),
        (
            {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}], "dtype": "int4"},
            "a precision must be one of",
        ),
        ({"merge_method": "linear", "models": 3}, "models must fit"),
        (
            {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}], "tokenizer_source": "union"},
            "tokenizer_source union is not supported",
        ),
    ],
)
def test_configurations_that_say_nonsense_are_refused(content, message):
    with pytest.raises(IsthmusError, match=message) as caught:
        Configuration.of(content)
    assert "\n" not in str(caught.value)


def test_a_missing_parameter_is_named_before_anything_is_written(tmp_path):
    saved(tmp_path, torch.bfloat16)
    with pytest.raises(SettingError, match=r"linear needs the parameter weight for model"):
        merge_files(recipe(tmp_path, "linear", base=False), tmp_path / "out")
    assert not (tmp_path / ".out.part").exists()


def headed(file: Path, header: bytes, *, claimed: int | None = None) -> Path:
    file.write_bytes((len(header) if claimed is None else claimed).to_bytes(8, "little") + header)
    return file


def test_a_header_ends_with_its_file_at_the_latest(tmp_path):
    header = b'{"__metadata__":{"format":"pt"}}'
    assert Shards.open(headed(tmp_path / "none.safetensors", header)).entries == {}  # nothing behind it
    for more in (1, 8, 2**62):  # eight: as far as if its own length were not counted
        with pytest.raises(CheckpointError, match="header does not fit"):
            Shards.open(headed(tmp_path / "long.safetensors", header, claimed=len(header) + more))


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path, monkeypatch):
    """100 MB by the format's definition; a file without content stands in for one of that length."""
    file = headed(tmp_path / "huge.safetensors", b"", claimed=100_000_001)
    with file.open("r+b") as opened:
        opened.truncate(100_000_100)
    with pytest.raises(CheckpointError, match="header does not fit"):
        Shards.open(file)
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    whole = headed(tmp_path / "whole.safetensors", header)
    whole.write_bytes(whole.read_bytes() + b"\0\0\0\0")
    monkeypatch.setattr(shards, "_LONGEST_HEADER", len(header))
    assert list(Shards.open(whole).entries) == ["a"]
    monkeypatch.setattr(shards, "_LONGEST_HEADER", len(header) - 1)
    with pytest.raises(CheckpointError, match="header does not fit"):
        Shards.open(whole)
