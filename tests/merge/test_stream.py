"""Streaming against the mergers in memory, which share no arithmetic with it, and against what can go wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.merge.saved import SHAPES, folder_of, recipe, saved, weights

from isthmus.core.checkpoint import load, metadata_of, save
from isthmus.core.errors import CheckpointError
from isthmus.merge import (
    DARE,
    SLERP,
    TIES,
    Configuration,
    Mean,
    ModelBreadcrumbs,
    TaskArithmetic,
    Weighted,
    merge_files,
)
from isthmus.merge.shards import Shards


def equal(ours, theirs):
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")


METHODS = [
    ("linear", {"weight": 1.0}, False, {}, lambda s, _: Mean()(s)),
    ("task_arithmetic", {"weight": 0.5}, True, {}, lambda s, b: TaskArithmetic(0.5)(s, base=b)),
    ("ties", {"weight": 1.0, "density": 0.3}, True, {"parameters": {"lambda": 1.5}},
     lambda s, b: TIES(0.3, scale=1.5)(s, base=b)),
    ("dare_linear", {"weight": 0.5, "density": 0.4}, True, {}, lambda s, b: DARE(0.4, scale=0.5)(s, base=b)),
    ("dare_ties", {"weight": 1.0, "density": 0.4}, True, {"parameters": {"normalize": True}},
     lambda s, b: DARE(0.4, then="ties")(s, base=b)),
    ("breadcrumbs", {"weight": 0.5, "density": 0.5, "gamma": 0.1}, True, {},
     lambda s, b: ModelBreadcrumbs(0.5, 0.1, scale=0.5)(s, base=b)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("method", "each", "base", "more", "merger"), METHODS, ids=[row[0] for row in METHODS])
def test_methods_agree_with_those_in_memory(tmp_path, dtype, method, each, base, more, merger):
    solutions, origin = saved(tmp_path, dtype)
    merge_files(recipe(tmp_path, method, each=each, base=base, **more), tmp_path / "out.safetensors")
    ours, theirs = load(tmp_path / "out.safetensors"), merger(solutions, origin)
    assert set(ours) == set(theirs)
    # In memory float32 is summed in float64: there the two may differ by the roundings of float32 sums.
    exact = dtype in (torch.bfloat16, torch.float16)
    for name, tensor in theirs.items():
        unit = torch.finfo(dtype).eps if tensor.is_floating_point() else 0
        if exact and tensor.is_floating_point():
            assert float((ours[name] != tensor).float().mean()) < 2e-3  # float32 and float64 sums part at a tie
        torch.testing.assert_close(ours[name], tensor, rtol=unit, atol=4 * unit if exact else 8 * unit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_slerp_agrees_with_the_one_in_memory_and_meets_both_ends(tmp_path, dtype):
    save(weights(1, dtype), tmp_path / "b.safetensors")
    save(weights(2, dtype), tmp_path / "x.safetensors")
    start, end = load(tmp_path / "b.safetensors"), load(tmp_path / "x.safetensors")
    for t in (0.0, 0.3, 1.0):
        content = {"merge_method": "slerp", "base_model": str(tmp_path / "b.safetensors"), "parameters": {"t": t},
                   "models": [{"model": str(tmp_path / "x.safetensors")}]}  # fmt: skip
        merge_files(Configuration.of(content), tmp_path / f"{t}.safetensors")
        ours = load(tmp_path / f"{t}.safetensors")
        for name, tensor in SLERP(t)([start, end]).items():
            if tensor.is_floating_point():
                torch.testing.assert_close(ours[name], tensor, rtol=torch.finfo(dtype).eps, atol=1e-6)
        for name in SHAPES:
            if t in (0.0, 1.0):
                torch.testing.assert_close(ours[name], (start if t == 0 else end)[name], rtol=0, atol=0)


def test_gradients_filters_and_slices_reach_their_layers(tmp_path):
    solutions, _ = saved(tmp_path, torch.float32)
    part = [{"filter": "norm", "value": 0.0}, {"value": [0.25, 0.75]}]
    models = [{"model": str(tmp_path / "x.safetensors"), "parameters": {"weight": part}},
              {"model": str(tmp_path / "y.safetensors"), "parameters": {"weight": 1.0}}]  # fmt: skip
    content = {"merge_method": "linear", "models": models, "parameters": {"normalize": False}}
    merge_files(Configuration.of(content), tmp_path / "out.safetensors")
    merged = load(tmp_path / "out.safetensors")
    shares = {"model.embed_tokens.weight": 0.25, "model.layers.0.a.weight": 0.25, "model.layers.1.a.weight": 0.75,
              "model.norm.weight": 0.0}  # fmt: skip
    for name, share in shares.items():
        torch.testing.assert_close(merged[name], share * solutions[0][name] + solutions[1][name], rtol=1e-6, atol=1e-6)
    sources = [{"model": m["model"], "layer_range": [0, 1], "parameters": {"weight": w}}
               for m, w in zip(models, (1, 3), strict=True)]  # fmt: skip
    later = [{**source, "layer_range": [1, 2], "parameters": {"weight": 1}} for source in sources]
    content = {"merge_method": "linear", "slices": [{"sources": sources}, {"sources": later}]}
    merge_files(Configuration.of(content), tmp_path / "sliced.safetensors")
    merged = load(tmp_path / "sliced.safetensors")
    expected = Weighted((1.0, 3.0))(solutions)
    for name in ("model.embed_tokens.weight", "model.layers.0.a.weight"):
        torch.testing.assert_close(merged[name], expected[name], rtol=1e-6, atol=1e-6)
    expected = Mean()(solutions)["model.layers.1.a.weight"]
    torch.testing.assert_close(merged["model.layers.1.a.weight"], expected, rtol=1e-6, atol=1e-6)


def test_sharded_folders_keep_what_belongs_to_the_model(tmp_path):
    x, y = weights(1, torch.bfloat16), weights(2, torch.bfloat16)
    folder_of(tmp_path / "x", x, shards=3)
    folder_of(tmp_path / "y", y)
    models = [{"model": name, "parameters": {"weight": 1}} for name in ("x", "y")]
    (tmp_path / "merge.yml").write_text(
        json.dumps({"merge_method": "linear", "models": models, "out_dtype": "float32", "tokenizer_source": "base"})
    )
    found = merge_files(Configuration.read(tmp_path / "merge.yml"), tmp_path / "out", shard_size=300_000, threads=2)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("config.json", "generation_config.json", "tokenizer.json", "merge.json", "model.safetensors.index.json"),
        *(f"model-0000{place}-of-00002.safetensors" for place in (1, 2)),
    }
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"torch_dtype": "float32", "vocab_size": 530}
    assert found.carried == ("config.json", "generation_config.json", "tokenizer.json")
    merged = load(tmp_path / "out")
    for name, shape in SHAPES.items():
        assert merged[name].dtype == torch.float32
        assert merged[name].shape == shape
        torch.testing.assert_close(merged[name], (x[name].float() + y[name].float()) / 2, rtol=0, atol=0)
    assert int(merged["steps"]) == 2
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["configuration"]["merge_method"] == "linear"


def test_a_single_file_says_how_it_was_made(tmp_path):
    saved(tmp_path, torch.bfloat16)
    merge_files(recipe(tmp_path, "ties", each={"weight": 1, "density": 0.5}), tmp_path / "out.safetensors", seed=5)
    told = json.loads(metadata_of(tmp_path / "out.safetensors")["configuration"])
    assert told["merge_method"] == "ties"
    assert told["seed"] == 5
    assert [file.name for file in tmp_path.iterdir() if "part" in file.name] == []


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_bit(tmp_path, threads):
    saved(tmp_path, torch.bfloat16)
    one = recipe(tmp_path, "dare_ties", each={"weight": 1, "density": 0.3})
    merge_files(one, tmp_path / "a.safetensors", threads=2)
    merge_files(one, tmp_path / "b2.safetensors", threads=threads)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b2.safetensors").read_bytes()


PROGRAM = """
import sys, os, signal
from isthmus.merge import Configuration, merge_files, sink, stream
sink._SYNC_EVERY = 1
made = [0]
def told(done, total, label):
    made[0] += 1
    if made[0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
merge_files(Configuration.read(sys.argv[1]), sys.argv[2], threads=1, progress=told)
"""


def killed(tmp_path: Path) -> Configuration:
    """A merge that was killed with two tensors done."""
    saved(tmp_path, torch.bfloat16)
    made = recipe(tmp_path, "dare_linear", each={"weight": 1, "density": 0.3})
    (tmp_path / "merge.yml").write_text(json.dumps(made.model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "merge.yml"), str(tmp_path / "out.safetensors")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out.safetensors").exists()
    return made


def test_a_killed_merge_goes_on_where_it_was(tmp_path):
    made = killed(tmp_path)
    part = tmp_path / ".out.safetensors.part" / "model.safetensors"
    before = part.stat().st_ino
    found = merge_files(made, tmp_path / "out.safetensors")
    assert found.resumed == 2
    assert (tmp_path / "out.safetensors").stat().st_ino == before
    merge_files(made, tmp_path / "again.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert not (tmp_path / ".out.safetensors.part").exists()


@pytest.mark.parametrize("change", ["recipe", "input", "torn journal"])
def test_unfinished_work_of_another_merge_is_not_used(tmp_path, change):
    made = killed(tmp_path)
    seed = 0
    if change == "recipe":
        seed = 1
    elif change == "input":
        before = (tmp_path / "x.safetensors").stat().st_mtime_ns
        save(weights(9, torch.bfloat16), tmp_path / "x.safetensors")
        os.utime(tmp_path / "x.safetensors", ns=(before, before + 1_000_000_000))
    else:
        journal = tmp_path / ".out.safetensors.part" / "journal.jsonl"
        journal.write_text(journal.read_text().splitlines()[0] + '\n["model.emb')
    assert merge_files(made, tmp_path / "out.safetensors", seed=seed).resumed == 0
    merge_files(made, tmp_path / "again.safetensors", seed=seed)
    equal(load(tmp_path / "out.safetensors"), load(tmp_path / "again.safetensors"))


def test_two_processes_do_not_write_one_output(tmp_path):
    import fcntl

    saved(tmp_path, torch.bfloat16)
    (tmp_path / ".out.part").mkdir()
    with (tmp_path / ".out.part" / "journal.jsonl").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another is at work on it"):
            merge_files(recipe(tmp_path, "linear", each={"weight": 1}, base=False), tmp_path / "out")


def test_running_statistics_are_averaged_not_extrapolated(tmp_path):
    for name, value in zip("bxy", (5.0, 1.0, 2.0), strict=True):
        save(
            {"bn.running_var": torch.full((4,), value), "w": torch.full((4,), value)}, tmp_path / f"{name}.safetensors"
        )
    merge_files(recipe(tmp_path, "task_arithmetic", each={"weight": 2}), tmp_path / "out.safetensors")
    merged = load(tmp_path / "out.safetensors")
    assert merged["bn.running_var"].tolist() == [1.5] * 4
    assert merged["w"].tolist() == [5 + 2 * (1 - 5) + 2 * (2 - 5)] * 4


def test_merging_files_does_not_load_torch(tmp_path):
    saved(tmp_path, torch.bfloat16)
    made = recipe(tmp_path, "ties", each={"weight": 1, "density": 0.5})
    (tmp_path / "m.yml").write_text(json.dumps(made.model_dump(mode="json", exclude_defaults=True)))
    code = (
        "import sys; from isthmus.cli.main import invoke; "
        f"code = invoke(['merge', '--config', {str(tmp_path / 'm.yml')!r}, '-o', {str(tmp_path / 'out')!r}]); "
        "sys.exit(code or ('torch' in sys.modules) * 9)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_files_larger_than_the_addresses_that_a_shell_allows(tmp_path):
    """``ulimit -v``, as batch systems set it: the files, sparse and all zeros, could not be mapped whole."""
    name, rows, tensors = "w{}", 8192, 24
    header = {name.format(i): {"dtype": "BF16", "shape": [rows, 4096], "data_offsets": [i << 26, (i + 1) << 26]}
              for i in range(tensors)}  # fmt: skip
    text = json.dumps(header).encode()
    for file in "ab":
        with (tmp_path / f"{file}.safetensors").open("wb") as opened:
            opened.write(len(text).to_bytes(8, "little") + text)
            opened.truncate(8 + len(text) + (tensors << 26))
    shards = Shards.open(tmp_path / "a.safetensors")
    program = (
        "import resource, sys; from isthmus.merge.shards import Shards; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        f"shards = Shards.open({str(tmp_path / 'a.safetensors')!r}); "
        "raw = shards.raw('w23'); shards.forget('w23'); print(len(raw), sum(raw[:100]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.split() == [str(1 << 26), "0"], found.stderr
    assert bytes(shards.raw("w3")[:4]) == b"\0" * 4
