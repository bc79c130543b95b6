"""``isthmus merge`` as a user runs it."""

import json
import re
import subprocess
import sys

import pytest
import torch

from isthmus.core.checkpoint import load, save
from isthmus.core.history import beside, content_of
from isthmus.merge import (
    DARE,
    TIES,
    KnOTS,
    MagnitudeMax,
    Mean,
    ModelBreadcrumbs,
    OrthogonalProjection,
    ProtectSpecific,
)
from isthmus.zoo.networks import network

MODEL = "mlp-8x1"


def ends(folder):
    return [load(folder / f"{name}.safetensors") for name in "ab"]


def with_base(folder):
    base = network(MODEL, inputs=(1, 8, 8), seed=9).state_dict()
    save(base, folder / "base.safetensors")
    return base


def close(file, expected):
    merged = load(file)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=1e-7)


def test_paths_are_averaged_and_strangers_warned_of(shell, checkpoints):
    out = checkpoints / "out.safetensors"
    code, said, warned = shell("merge", checkpoints / "a.safetensors", checkpoints / "b.safetensors", "-o", out)
    assert code == 0
    assert f"wrote {out}" in said
    assert "unrelated" in warned
    assert "align them first" in warned
    close(out, Mean()(ends(checkpoints)))


def test_options_say_what_a_configuration_says(shell, checkpoints):
    base = with_base(checkpoints)
    a, b, origin = (checkpoints / f"{name}.safetensors" for name in ("a", "b", "base"))
    options = ("--method", "ties", "--base", origin, "--density", 0.5, "--json")
    code, said, _ = shell("merge", a, b, *options, "-o", checkpoints / "one.safetensors")
    assert code == 0
    told = json.loads(said)
    assert told["merge"]["kind"] == "Streamed"
    assert told["findings"]["kind"] == "Findings"
    content = {"merge_method": "ties", "base_model": "base.safetensors", "parameters": {"density": 0.5, "weight": 1},
               "models": [{"model": "a.safetensors"}, {"model": "b.safetensors"}]}  # fmt: skip
    (checkpoints / "m.yml").write_text(json.dumps(content))
    assert shell("merge", "--config", checkpoints / "m.yml", "-o", checkpoints / "two.safetensors")[0] == 0
    close(checkpoints / "one.safetensors", TIES(0.5)(ends(checkpoints), base=base))
    close(checkpoints / "two.safetensors", load(checkpoints / "one.safetensors"))


@pytest.mark.parametrize(
    ("method", "merger"),
    [("ties", TIES()), ("dare_linear", DARE()), ("dare_ties", DARE(then="ties")), ("breadcrumbs", ModelBreadcrumbs())],
)
def test_a_method_without_settings_is_the_same_from_disk_in_memory_and_in_python(shell, checkpoints, method, merger):
    """From disk to disk nothing was trimmed unless a density was given."""
    base = with_base(checkpoints)
    for name, weights in zip("ab", ends(checkpoints), strict=True):
        torch.save(weights, checkpoints / f"{name}.pt")
    expected = merger(ends(checkpoints), base=base)
    for suffix in ("safetensors", "pt"):
        paths = [checkpoints / f"{name}.{suffix}" for name in "ab"]
        out = checkpoints / f"from-{suffix}.safetensors"
        assert shell("merge", *paths, "-m", method, "--base", checkpoints / "base.safetensors", "-o", out)[0] == 0
        close(out, expected)


@pytest.mark.parametrize("method", ["magnitude_max", "knots", "uniform_soup", "orthogonal_projection", "protect"])
def test_methods_in_memory_need_no_model(shell, checkpoints, method):
    base = with_base(checkpoints)
    a, b, origin = (checkpoints / f"{name}.safetensors" for name in ("a", "b", "base"))
    out = checkpoints / "out" / "m.safetensors"
    more = () if method == "uniform_soup" else ("--base", origin)
    assert shell("merge", a, b, "-m", method, *more, "-o", out)[0] == 0
    by_name = {
        "magnitude_max": MagnitudeMax(), "orthogonal_projection": OrthogonalProjection(), "protect": ProtectSpecific()
    }  # fmt: skip
    if method in by_name:
        close(out, by_name[method](ends(checkpoints), base=base))


def test_a_merge_in_memory_is_written_in_the_precision_that_was_asked_for(shell, checkpoints):
    a, b, out = (checkpoints / f"{name}.safetensors" for name in ("a", "b", "out"))
    assert shell("merge", a, b, "-m", "uniform_soup", "--dtype", "bfloat16", "-o", out)[0] == 0
    merged, expected = load(out), Mean()(ends(checkpoints))
    for name, tensor in expected.items():
        assert torch.equal(merged[name], tensor.bfloat16())
    assert shell("merge", a, b, "-m", "uniform_soup", "--dtype", "int3", "-o", checkpoints / "x.safetensors")[0] == 2


def test_what_a_merge_was_measured_to_do_stands_in_its_record(shell, checkpoints):
    a, b = checkpoints / "a.safetensors", checkpoints / "b.safetensors"
    common = ("--model", MODEL, "--data", "digits", "--examples", 60, "--evaluate", "--json")
    for method in ("linear", "uniform_soup"):
        out = checkpoints / f"{method}.safetensors"
        code, said, err = shell("merge", a, b, "-m", method, *common, "-o", out)
        assert code == 0, err
        verdict = json.loads(said)["verdict"]
        record = json.loads(beside(out).read_text())
        assert record["capabilities"] == {"digits": pytest.approx(1 - verdict["merged"]["metrics"]["error"])}
        assert record["measures"]["loss"] == pytest.approx(verdict["merged"]["loss"])
        assert record["content"] == content_of(load(out))
        assert [parent["content"] for parent in record["parents"]] == [content_of(load(path)) for path in (a, b)]


@pytest.mark.parametrize("method", ["greedy_soup", "fisher", "regmean"])
def test_methods_with_data_and_what_they_gained(shell, checkpoints, method):
    a, b, out = checkpoints / "a.safetensors", checkpoints / "b.safetensors", checkpoints / "out"
    options = ("--model", MODEL, "--data", "digits", "--examples", 60, "--evaluate", "--json")
    code, said, _ = shell("merge", a, b, "-m", method, *options, "-o", out)
    assert code == 0
    told = json.loads(said)
    assert told["verdict"]["kind"] == "Appraisal"
    assert set(told["verdict"]["ends"]) == {"a.safetensors", "b.safetensors"}
    assert told["verdict"]["merged"]["examples"] == (30 if method == "greedy_soup" else 60)
    assert json.loads((out / "verdict.json").read_text()) == told["verdict"]
    assert (out / "verdict.md").read_text().startswith("# What the merge gained or lost")


def test_aligning_first_brings_a_permuted_copy_back(shell, checkpoints):
    a = load(checkpoints / "a.safetensors")
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    moved = {name: t[order] if len(t) == 8 else t[:, order] if t.dim() == 2 else t for name, t in a.items()}
    save(moved, checkpoints / "moved.safetensors")
    out = checkpoints / "out.safetensors"
    options = ("--align", "weights", "--model", MODEL, "--data", "digits", "-o", out)
    assert shell("merge", checkpoints / "a.safetensors", checkpoints / "moved.safetensors", *options)[0] == 0
    close(out, a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "b"), "give --output"),
        (("-o", "out"), "either paths or --config"),
        (("a", "b", "-o", "out", "-m", "linaer"), "method must be one of linear"),
        (("a", "b", "-o", "out", "--evaluate"), "give --model and --data"),
        (("a", "b", "-o", "out", "-m", "fisher"), "give --model and --data"),
        (("a", "b", "-o", "out", "-m", "magnitude_max"), "give --base"),
        (("a", "b", "-o", "out", "-m", "ties"), "ties needs base_model (--base)"),
        (("a", "b", "-o", "out", "--density", "0.5"), "linear takes no --density"),
        (("a", "b", "-o", "out", "--scale", "0.5"), "linear takes no --scale"),
        (("a", "b", "-o", "out", "-m", "slerp", "--weight", "1", "--weight", "2"), "slerp takes no --weight"),
        (("a", "b", "-o", "a"), "the output must not be an input"),
        (("a", "nowhere", "-o", "out"), "there is nothing at"),
        (("a", "b", "-o", "out", "--weight", "1"), "--weight must be given once for each of 2"),
        (("-c", "nowhere.yml", "-o", "out"), "needs a readable configuration"),
        (("-c", "m.yml", "-o", "out", "--align", "weights"), "says how to merge, so --align must be left out"),
        (("-c", "m.yml", "-o", "out", "--density", "0.5"), "says how to merge, so --density must be left out"),
        (("a", "b", "-o", "out", "--base", "a", "--align", "weights"), "give --model and --data"),
    ],
)
def test_wrong_input_is_one_line_and_code_two(shell, checkpoints, arguments, message, monkeypatch):
    monkeypatch.chdir(checkpoints)
    files = {"a": "a.safetensors", "b": "b.safetensors"}
    code, _, warned = shell("merge", *(files.get(word, word) for word in arguments))
    assert code == 2
    last = warned.strip().splitlines()[-1]
    assert last.startswith("isthmus: ")
    assert message in last
    assert "Traceback" not in warned


def test_help_needs_no_torch():
    code = (
        "import sys; from isthmus.cli.main import invoke; invoke(['merge', '--help']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_merge_from_disk_to_disk_needs_no_torch(checkpoints):
    """Loading it takes five times the memory of the merge."""
    a, b, out = (str(checkpoints / f"{name}.safetensors") for name in ("a", "b", "out"))
    code = (
        "import sys; from isthmus.cli.main import invoke; "
        f"invoke(['merge', {a!r}, {b!r}, '-o', {out!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_files_with_and_without_a_wrapper_s_prefix_are_merged(shell, checkpoints):
    """What a training with DataParallel wrote, and what ``isthmus align`` made of another."""
    one, two = ends(checkpoints)
    wrapped, bare = checkpoints / "wrapped.pt", checkpoints / "bare.pt"
    save({f"module.{name}": tensor for name, tensor in one.items()}, wrapped)
    save(two, bare)
    for place, pair in enumerate(((wrapped, bare), (bare, wrapped))):
        out = checkpoints / f"out-{place}.safetensors"
        assert shell("merge", *pair, "-o", out)[0] == 0
        close(out, Mean()([one, two]))


def test_torch_files_of_other_networks_are_named(shell, checkpoints):
    save({"a": torch.zeros(2), "b": torch.zeros(2)}, checkpoints / "one.pt")
    save({"a": torch.zeros(2), "c": torch.zeros(2)}, checkpoints / "two.pt")
    code, _, problem = shell("merge", checkpoints / "one.pt", checkpoints / "two.pt", "-o", checkpoints / "m.pt")
    assert code == 2
    assert problem.count("\n") == 1
    assert "two.pt differ in b, c" in problem


def test_models_that_are_aligned_are_not_told_to_align(shell, checkpoints):
    a = load(checkpoints / "a.safetensors")
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    moved = {name: t[order] if len(t) == 8 else t[:, order] if t.dim() == 2 else t for name, t in a.items()}
    save(moved, checkpoints / "moved.safetensors")
    options = ("--align", "weights", "--model", MODEL, "--data", "digits", "-o", checkpoints / "out.safetensors")
    _, _, told = shell("merge", checkpoints / "a.safetensors", checkpoints / "moved.safetensors", *options)
    assert "they are aligned first" in told
    assert "align them first" not in told


def test_models_larger_than_the_memory_are_refused_where_they_are_held_at_once(shell, checkpoints, monkeypatch):
    a, b, out = (checkpoints / f"{name}.safetensors" for name in ("a", "b", "out"))
    monkeypatch.setattr("isthmus.core.machine.memory", lambda: a.stat().st_size + b.stat().st_size - 1)
    code, _, err = shell("merge", a, b, "-m", "uniform_soup", "-o", out)
    assert code == 2
    assert re.search(r"must fit into memory, but have 0\.0 GB, .* from disk to disk, .* merged by linear, slerp", err)
    assert len(err.strip().splitlines()) == 1
    assert shell("merge", a, b, "-o", out)[0] == 0  # tensor by tensor
    monkeypatch.setattr("isthmus.core.machine.memory", lambda: a.stat().st_size + b.stat().st_size)
    assert shell("merge", a, b, "-m", "uniform_soup", "-o", checkpoints / "two.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("method", "merger", "default"),
    [
        ("ties", TIES(0.3), TIES()),
        ("dare_linear", DARE(0.3, seed=5), DARE(seed=5)),
        ("dare_ties", DARE(0.3, then="ties", seed=5), DARE(then="ties", seed=5)),
        ("breadcrumbs", ModelBreadcrumbs(0.3), ModelBreadcrumbs()),
        ("knots", KnOTS(0.3), KnOTS()),
        ("protect", ProtectSpecific(0.3), ProtectSpecific()),
    ],
)
def test_a_density_reaches_the_merge_in_memory(shell, checkpoints, method, merger, default):
    base = with_base(checkpoints)
    for name, weights in zip("ab", ends(checkpoints), strict=True):
        torch.save(weights, checkpoints / f"{name}.pt")  # not merged from disk to disk
    paths, out = [checkpoints / f"{name}.pt" for name in "ab"], checkpoints / "out.safetensors"
    options = ("--base", checkpoints / "base.safetensors", "--density", 0.3, "--seed", 5)
    code, _, warned = shell("merge", *paths, "-m", method, *options, "-o", out)
    assert code == 0, warned
    expected, other = merger(ends(checkpoints), base=base), default(ends(checkpoints), base=base)
    close(out, expected)
    assert any(float((expected[name] - other[name]).abs().max()) > 1e-3 for name in expected)


def test_trimming_in_memory_keeps_the_share_that_was_asked_for(shell, checkpoints):
    """One solution, of which TIES keeps the largest tenth of each tensor's changes: counted, not merged again."""
    base, (solution, _) = with_base(checkpoints), ends(checkpoints)
    torch.save(solution, checkpoints / "a.pt")
    out = checkpoints / "out.safetensors"
    options = ("--base", checkpoints / "base.safetensors", "--density", 0.1)
    assert shell("merge", checkpoints / "a.pt", checkpoints / "a.pt", "-m", "ties", *options, "-o", out)[0] == 0
    for name, merged in load(out).items():
        if merged.numel() >= 50:
            change = (merged - base[name]).abs()
            kept, all_changes = int((change > 1e-6).sum()), (solution[name] - base[name]).abs().flatten()
            assert kept == pytest.approx(merged.numel() / 10, abs=1)
            assert float(change.max()) == pytest.approx(float(all_changes.max()), rel=1e-5)
