"""Streaming against the mergers in memory, which share no arithmetic with it, and against what can go wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from isthmus.core.checkpoint import load, metadata_of, save
from isthmus.core.errors import CheckpointError, IsthmusError, SettingError
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

# Larger than one chunk of the streaming code, and a length that no chunk divides.
SHAPES = {"model.embed_tokens.weight": (530, 257), "model.layers.0.a.weight": (40, 33), "model.norm.weight": (257,),
          "model.layers.1.a.weight": (40, 33)}  # fmt: skip


def weights(seed: int, dtype: torch.dtype, *, around: dict | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in SHAPES.items():
        noise = torch.randn(shape, generator=generator)
        made[name] = (noise if around is None else around[name].float() + 0.1 * noise).to(dtype)
    return made | {"steps": torch.tensor(seed)}


def saved(folder: Path, dtype: torch.dtype) -> tuple[list[dict], dict]:
    base = weights(0, dtype)
    solutions = [weights(seed, dtype, around=base) for seed in (1, 2)]
    for name, content in zip("bxy", [base, *solutions], strict=True):
        save(content, folder / f"{name}.safetensors")
    return solutions, base


def recipe(folder: Path, method: str, *, each: dict | None = None, base: bool = True, **more) -> Configuration:
    models = [{"model": str(folder / f"{name}.safetensors"), "parameters": each or {}} for name in "xy"]
    content = {"merge_method": method, "models": models, **more}
    if base:
        content["base_model"] = str(folder / "b.safetensors")
    return Configuration.of(content)


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


def folder_of(path: Path, content: dict, *, tokens: str = "{}", shards: int = 1) -> Path:
    path.mkdir()
    names = list(content)
    if shards == 1:
        save(content, path / "model.safetensors")
    else:
        table = {}
        for place in range(shards):
            file = f"model-{place + 1:05}-of-{shards:05}.safetensors"
            save({name: content[name] for name in names[place::shards]}, path / file)
            table |= dict.fromkeys(names[place::shards], file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "vocab_size": 530}))
    (path / "generation_config.json").write_text('{"eos_token_id": 2}')
    (path / "tokenizer.json").write_text(tokens)
    (path / "optimizer.log").write_text("stays behind")
    return path


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
        time.sleep(0.01)
        save(weights(9, torch.bfloat16), tmp_path / "x.safetensors")
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
    save({**x, "table": torch.arange(3)}, tmp_path / "x.safetensors")
    second({**y, "table": torch.arange(3) + 1}, r"table \(I64\) differs")


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
    with pytest.raises(CheckpointError, match="index of its shards"):
        merge_files(Configuration.of(content), tmp_path / "out")


def test_running_statistics_are_averaged_not_extrapolated(tmp_path):
    for name, value in zip("bxy", (5.0, 1.0, 2.0), strict=True):
        save(
            {"bn.running_var": torch.full((4,), value), "w": torch.full((4,), value)}, tmp_path / f"{name}.safetensors"
        )
    merge_files(recipe(tmp_path, "task_arithmetic", each={"weight": 2}), tmp_path / "out.safetensors")
    merged = load(tmp_path / "out.safetensors")
    assert merged["bn.running_var"].tolist() == [1.5] * 4
    assert merged["w"].tolist() == [5 + 2 * (1 - 5) + 2 * (2 - 5)] * 4


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
