"""Whatever is wrong with the input is one line on the error stream and exit code 2."""

import os
import textwrap

import numpy as np
import pytest
import torch
from tests.cli.conftest import MODEL

from isthmus.cli.console import settings
from isthmus.core.checkpoint import load, save
from isthmus.core.errors import SettingError


def fails(shell, *arguments, says):
    code, out, err = shell(*arguments)
    assert code == 2, (code, out, err)
    assert out == ""
    assert err.startswith("isthmus: "), err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert says in err, err


def barrier(shell, folder, first, second="b.safetensors", *more, says):
    paths = (folder / first, folder / second)
    fails(shell, "barrier", *paths, "--model", MODEL, "--data", "digits", "--points", 3, *more, says=says)


def test_the_good_pair_works(shell, checkpoints):
    a, b = checkpoints / "a.safetensors", checkpoints / "b.safetensors"
    code, out, err = shell("barrier", a, b, "--model", MODEL, "--data", "digits", "--points", 3, "--examples", 50)
    assert code == 0, err
    assert "Loss barrier" in out


def test_missing_file(shell, checkpoints):
    barrier(shell, checkpoints, "absent.safetensors", says="there is nothing at")


def test_truncated_safetensors(shell, checkpoints):
    whole = (checkpoints / "a.safetensors").read_bytes()
    for size in (0, 5, 40, len(whole) - 7):
        (checkpoints / "cut.safetensors").write_bytes(whole[:size])
        barrier(shell, checkpoints, "cut.safetensors", says="must be a whole safetensors file")


@pytest.mark.parametrize("name", ["trap.pt", "trap2.pt"])
def test_a_pickle_that_would_run_code(shell, checkpoints, trap, name):
    _, mark = trap
    barrier(shell, checkpoints, name, says="nothing of it was run")
    assert not mark.exists()


def test_the_trap_is_real(trap):
    folder, mark = trap
    torch.load(folder / "trap2.pt", weights_only=False)
    assert mark.exists()


def test_other_shapes(shell, checkpoints):
    weights = load(checkpoints / "a.safetensors")
    save({n: t[..., :-1].clone() if n == "1.weight" else t for n, t in weights.items()}, checkpoints / "c.safetensors")
    barrier(shell, checkpoints, "c.safetensors", says="1.weight is (8, 64) in the model, (8, 63) in the file")


def test_missing_and_extra_tensors(shell, checkpoints):
    weights = load(checkpoints / "a.safetensors")
    save({n: t for n, t in weights.items() if n != "3.bias"}, checkpoints / "c.safetensors")
    barrier(shell, checkpoints, "c.safetensors", says="missing: 3.bias")
    save({**weights, "head.bias": torch.ones(2)}, checkpoints / "d.safetensors")
    barrier(shell, checkpoints, "d.safetensors", says="extra: head.bias")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(shell, checkpoints, value):
    weights = load(checkpoints / "a.safetensors")
    weights["1.bias"][3] = value
    save(weights, checkpoints / "c.safetensors")
    barrier(shell, checkpoints, "c.safetensors", says="must be finite; NaN or Inf in 1.bias")


def test_wrappers_and_nesting_are_understood(shell, checkpoints):
    weights = load(checkpoints / "a.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in weights.items()}}, checkpoints / "ddp.pt")
    torch.save({"params": {f"model.{n}": t for n, t in weights.items()}}, checkpoints / "nested.pth")
    for name in ("ddp.pt", "nested.pth"):
        arguments = (checkpoints / "a.safetensors", checkpoints / name, "--model", MODEL, "--data", "digits")
        code, out, err = shell("barrier", *arguments, "--points", 3, "--examples", 50, "--json")
        assert code == 0, err
        assert '"estimate": 0.0' in out  # the same network: no barrier


def test_models_that_fail(shell, checkpoints, tmp_path):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            import torch
            def broken(): raise RuntimeError("no licence for this layer")
            def number(): return 3
            def other(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 10))
            """
        )
    )
    arguments = ("barrier", checkpoints / "a.safetensors", checkpoints / "b.safetensors", "--data", "digits", "--model")
    fails(shell, *arguments, f"{tmp_path}/mine.py:broken", says="no licence for this layer")
    fails(shell, *arguments, f"{tmp_path}/mine.py:number", says="must return a torch.nn.Module, got int")
    fails(shell, *arguments, f"{tmp_path}/mine.py:absent", says="has no function absent")
    fails(shell, *arguments, f"{tmp_path}/nowhere.py:f", says="there is no file")
    fails(shell, *arguments, "no.such.package:f", says="no module named")
    fails(shell, *arguments, "resnet2O", says="model must be")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    fails(shell, *arguments, f"{tmp_path}/wrong.py:f", says="SyntaxError")


def test_data_that_do_not_fit(shell, checkpoints, tmp_path):
    a, b = checkpoints / "a.safetensors", checkpoints / "b.safetensors"
    x, y = np.zeros((20, 1, 8, 8), dtype=np.float32), np.arange(20) % 10

    def with_data(says, **arrays):
        np.savez(tmp_path / "d.npz", **arrays)
        fails(shell, "barrier", a, b, "--model", MODEL, "--data", tmp_path / "d.npz", says=says)

    with_data("x and y", x=x)
    with_data("equally many", x=x, y=y[:-1])
    with_data("whole class numbers", x=x, y=y + 0.5)
    with_data("labels must be", x=x, y=y - 3)
    with_data("NaN or Inf", x=np.full_like(x, np.nan), y=y)
    fails(shell, "barrier", a, b, "--model", MODEL, "--data", tmp_path / "e.npz", says="there is none")
    fails(shell, "barrier", a, b, "--model", MODEL, "--data", "digitz", says="data must be one of")
    fails(shell, "barrier", a, b, "--model", MODEL, "--data", "mnist", "--data-dir", tmp_path, says="")


def test_a_model_for_other_inputs_or_classes(shell, checkpoints, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def narrow(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 10))\n"
        "def three(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
    )
    for function, says in (("narrow", "must take inputs of shape (1, 8, 8)"), ("three", "labels must lie in 0 … 2")):
        spec = f"{tmp_path}/mine.py:{function}"
        import importlib.util

        found = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        save(getattr(module, function)().state_dict(), tmp_path / "m.safetensors")
        file = tmp_path / "m.safetensors"
        fails(shell, "barrier", file, file, "--model", spec, "--data", "digits", says=says)


def test_settings_out_of_range(shell, checkpoints, monkeypatch):
    monkeypatch.chdir(checkpoints)  # the demo makes its folder where it stands
    barrier(shell, checkpoints, "a.safetensors", "b.safetensors", "--points", 2, says="points must be at least 3")
    barrier(shell, checkpoints, "a.safetensors", "b.safetensors", "--align", "magic", says="align must be one of")
    barrier(shell, checkpoints, "a.safetensors", "b.safetensors", "--normalisation", "none", says="normalisation must")
    barrier(shell, checkpoints, "a.safetensors", "b.safetensors", "--device", "cuda:77", says="device must be")
    fails(shell, "demo", "--points", 2, says="points must be at least 3")
    fails(shell, "demo", "--widths", "8,x", says="widths must be numbers")
    fails(shell, "demo", "--solutions", 1, says="solutions must be at least 2")
    fails(shell, "train", "--recipe", "rat=1", says="did you mean rate?")
    fails(shell, "symmetry", MODEL, "--input", "1xax3", says="input must be a shape")
    fails(shell, "barrier", says="Missing argument")
    fails(shell, "nonsense", says="No such command")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("given", ["rate", "=3", "rate=1,,width=2"])
def test_settings_are_names_and_values(given):
    with pytest.raises(SettingError, match="recipe must be name=value pairs"):
        settings(given, what="recipe")


def test_an_output_that_cannot_be_written(shell, tmp_path):
    (tmp_path / "file").write_text("in the way")
    fails(shell, "demo", "--output", tmp_path / "file" / "demo", says="must be writable")
    fails(shell, "train", "--output", "/proc/isthmus", says="must be writable")
