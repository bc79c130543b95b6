"""What somebody meets who tries every command with whatever lies about."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from tests.cli.conftest import MODEL
from tests.cli.test_hard_inputs import refused

from isthmus.cli.inputs import brief
from isthmus.core.checkpoint import load, save

PAIR = ("a.safetensors", "b.safetensors")
MEASURED = ("--model", MODEL, "--data", "digits", "--examples", 50, "--points", 3)


@pytest.fixture(autouse=True)
def here(checkpoints, monkeypatch):
    monkeypatch.chdir(checkpoints)
    return checkpoints


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("--report", "page.pdf", "a page must end in .html, got 'page.pdf'"),
        ("--report", "page", "a page must end in .html"),
        ("--report", "folder.html", "folder.html must be writable, but: is a directory"),
        ("--report", "a.safetensors/page.html", "must be writable"),
        ("--output", "folder.html", "folder.html must be writable, but: is a directory"),
        ("--output", "/proc/isthmus/x.json", "must be writable"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(shell, here, option, path, message):
    """Before: the second checkpoint is broken, and nobody has looked at it yet."""
    (here / "folder.html").mkdir()
    (here / "b.safetensors").write_bytes(b"")
    refused(shell, message, "barrier", *PAIR, *MEASURED, option, path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", *PAIR, "--junit", "folder"),
        ("symmetry", MODEL, "--save", "folder"),
        ("report", "x.json", "-o", "y.pdf"),
        ("merge", *PAIR, "--evaluate", "--report", "y.pdf", "-o", "out.safetensors"),
    ],
)
def test_so_are_the_places_of_all_other_files(shell, here, arguments):
    (here / "folder").mkdir()
    message = "folder must be writable" if "folder" in arguments else "a page must end in .html"
    refused(shell, message, *arguments)


def test_trying_a_place_leaves_nothing(shell, here):
    before = sorted(here.iterdir())
    (here / "b.safetensors").write_bytes(b"")
    refused(shell, "must be a whole", "barrier", *PAIR, *MEASURED, "--report", "new/page.html", "-o", "other/r.json")
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("path", *PAIR, "--align", "x"), "No such option: --align; isthmus path --help says what it takes"),
        (("path", *PAIR, "--pionts", 3), "No such option: --pionts; did you mean --points? isthmus path --help"),
        (("barrier", *PAIR, "--points", "many"), "got 'many'; isthmus barrier --help"),
        (("barrier", *PAIR, "--points", 3, "--points", "few"), "got 'few'"),
        (("nonsense",), "No such command 'nonsense'; isthmus --help"),
        (("runs", "lists"), "isthmus runs --help"),
    ],
)
def test_a_mistyped_line_says_what_was_given_and_where_to_look(shell, arguments, said):
    refused(shell, said, *arguments)


@pytest.fixture
def odd(here):
    """A checkpoint whose name holds bytes that are no UTF-8."""
    name = os.fsdecode(b"caf\xe9.pt")
    try:
        torch.save(load("b.safetensors"), name)
    except OSError:
        pytest.skip("this file system has no such names")
    return name


def test_names_that_are_no_text_are_told_escaped(here, odd):
    """In a process of its own: the output stream of a shell is strict."""
    command = ("barrier", "a.safetensors", odd, *MEASURED)
    run = [sys.executable, "-c", "from isthmus.cli.main import run; run()", *map(str, command)]
    told = subprocess.run([*run, "--report", "p.html", "-o", "r.json", "--json"], capture_output=True, check=False)
    assert told.returncode == 0, told.stderr
    assert (
        json.loads(told.stdout)["names"][1] == "caf\udce9.pt" == json.loads((here / "r.json").read_text())["names"][1]
    )
    assert "caf\\udce9.pt" in (here / "p.html").read_text(encoding="utf-8")
    shown = subprocess.run(run, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert shown.returncode == 0, shown.stderr


def test_safetensors_cannot_have_such_a_name(shell, here, odd):
    shutil.copy("b.safetensors", odd.replace(".pt", ".safetensors"))
    refused(
        shell, "must have a name in UTF-8", "barrier", "a.safetensors", odd.replace(".pt", ".safetensors"), *MEASURED
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("1.bias"), "must have the same tensors"),
        (lambda weights: weights.update({"1.bias": torch.zeros(7)}), "must have the same shapes"),
    ],
)
def test_a_refused_merge_says_one_line(shell, change, message):
    weights = load("b.safetensors")
    change(weights)
    save(weights, "c.safetensors")
    refused(shell, message, "merge", "a.safetensors", "c.safetensors", "-o", "out.safetensors")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.safetensors", "must not be an input"),
        ("folder", "must not exist yet"),
        ("x.pt", "must be a folder or end in .safetensors"),
        ("/proc/isthmus/x.safetensors", "must be writable"),
    ],
)
def test_the_place_of_a_merge_is_looked_at_before_the_models(shell, here, output, message):
    (here / "folder").mkdir()
    (here / "folder" / "something").touch()
    refused(shell, message, "merge", *PAIR, "-o", output)


def test_the_file_with_nan_is_named_when_it_is_aligned(shell):
    weights = load("b.safetensors")
    weights["1.bias"][0] = float("nan")
    save(weights, "c.safetensors")
    assert shell("symmetry", MODEL, "--input", "1x1x8x8", "--save", "s.json")[0] == 0
    refused(shell, "c.safetensors must be finite; NaN or Inf in 1.bias",
            "align", "a.safetensors", "c.safetensors", "--symmetry", "s.json", "-o", "aligned")  # fmt: skip


def test_a_network_of_the_zoo_takes_its_own_shape_where_none_is_given(shell):
    code, said, _ = shell("symmetry", MODEL, "--json")
    assert code == 0
    assert [group["units"] for group in json.loads(said)["groups"]] == [8]
    refused(shell, "--input or --data says what mlp-8x1 takes", "align", *PAIR, "--model", MODEL, "-o", "aligned")


def test_titles_of_tables_stand_on_one_line(shell):
    code, said, _ = shell("barrier", *PAIR, *MEASURED)
    assert code == 0
    assert said.splitlines()[0] == "2 solutions, 1 pair, statistics between the ends: reestimate"


def test_nothing_asked_of_the_demo_is_taken_for_silence(shell):
    refused(shell, "got 0", "demo", "--quick", "--solutions", 0)
    refused(shell, "got 0", "demo", "--quick", "--points", 0)
    refused(shell, "got 0", "demo", "--quick", "--examples", 0)


def test_a_short_form_is_trained_on_the_data_s_own_shape(shell):
    code, said, warned = shell("claims", "--model", "mlp-8x1", "--widths", 8, "--solutions", 3, "--align", "weights",
                               "--train", "epochs=1", "--points", 3, "--examples", 50, "--json")  # fmt: skip
    assert code == 0, warned
    assert json.loads(said)["kind"]


@pytest.mark.parametrize(
    "arguments",
    [("train", "--solutions", 0), ("train", "--data", "mnist", "--data-dir", "nowhere"), ("demo", "--model", "nope"),
     ("demo", "--lang", "xx"), ("demo", "--widths", "a"), ("demo", "--solutions", 0), ("demo", "--device", "nope"),
     ("align", *PAIR, "--model", MODEL)],
)  # fmt: skip
def test_what_is_refused_leaves_no_folder(shell, here, arguments):
    before = sorted(here.iterdir())
    refused(shell, "", *arguments, "-o", "new/folder")
    assert sorted(here.iterdir()) == before


def test_a_file_in_the_place_of_a_folder_is_refused(shell):
    refused(shell, "a.safetensors must be writable as a folder, but it is a file", "train", "-o", "a.safetensors")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["a.pt", "b.pt"], ["a.pt", "b.pt"]),
        (["alone-with-a-name-that-is-longer-than-any.pt"], ["alone-with-a-name-that-is-longer-than-any.pt"]),
        (["resnet-for-production-run-10.pt", "resnet-for-production-run-11.pt"], ["…10", "…11"]),
        (["model-of-the-whole-company-1.5", "other-of-the-whole-company-2.5"], None),
        (["resnet-for-production-run.pt", "resnet-for-production-run-2.pth"], ["…run.pt", "…run-2.pth"]),
        (["/runs/one/checkpoint-500/model.bin", "/runs/two/checkpoint-500/model.bin"],
         ["…one/checkpoint-500/model", "…two/checkpoint-500/model"]),
        (["resnet-for-production-final-run-.pt", "resnet-for-production-final-run-a.pt"], None),
    ],
)  # fmt: skip
def test_long_names_are_told_without_what_they_share(given, shown):
    assert list(brief(given)) == (shown or given)


@pytest.mark.parametrize("wanted", [("--times", 2), ("--pruning-levels", 2), ("--times", 2, "--pruning-levels", 2)])
def test_claims_about_trainings_are_not_made_of_checkpoints(shell, wanted):
    """Either alone is refused: left out without a word, it would look like a claim that was tested."""
    message = "--times and --pruning-levels need networks that are trained here; leave the checkpoints out"
    refused(shell, message, "claims", *PAIR, *MEASURED, "--align", "weights", *wanted)


def test_the_demo_looks_at_its_settings_then_at_its_place_then_at_data(shell, here):
    before = sorted(here.iterdir())
    nowhere = ("--quick", "-o", "a.safetensors", "--data", "mnist", "--data-dir", "nowhere")
    refused(shell, "the language must be one of en, ja, got xx", "demo", "--lang", "xx", *nowhere)
    refused(shell, "widths must be above 0", "demo", "--widths", 0, *nowhere)
    refused(shell, "solutions must be at least 2", "demo", "--solutions", 0, *nowhere)
    refused(shell, "a.safetensors must be writable as a folder", "demo", *nowhere)
    assert sorted(here.iterdir()) == before
