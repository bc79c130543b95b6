"""What a user asks for reaches the work: every option of a command has another value than its default here."""

import pytest
from tests.cli.conftest import MODEL

import isthmus.cli.inputs as inputs_module
import isthmus.studies.between
import isthmus.studies.comparison
import isthmus.studies.continual.stream

CASE = {"examples": 13, "device": "cpu", "unsafe_pickle": True, "model": MODEL, "data": "digits"}
SPLIT = {"flatness": "test", "spectrum": "test"}  # the other one is the default


class Heard(Exception):
    """Stops the command where its options have arrived."""


def listener(told):
    def heard(*arguments, **keywords):
        told.update(keywords)
        raise Heard

    return heard


def words(options):
    for name, value in options.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield value


@pytest.mark.parametrize("command", ["barrier", "flatness", "path", "plane", "repair", "spectrum"])
def test_what_is_measured_on_is_what_was_asked_for(shell, checkpoints, monkeypatch, tmp_path, command):
    told, asked = {}, {**CASE, "split": SPLIT.get(command, "train")}
    monkeypatch.setattr(inputs_module, "case", listener(told))
    names = [checkpoints / f"{name}.safetensors" for name in "ab"]
    with pytest.raises(Heard):
        shell(command, *(names[:1] if command == "spectrum" else names), *words({**asked, "data_dir": tmp_path}))
    assert {name: told[name] for name in asked} == asked
    assert told["data_dir"] == str(tmp_path)


ASKED = {
    "path": (
        isthmus.studies.between, "paths_between",
        {"bends": 2, "kind": "polygon", "steps": 17, "layers": "only", "curvature": 4, "adaptive": 0.5, "points": 7,
         "normalisation": "interpolate", "seed": 9},
    ),
    "barrier": (isthmus.studies.comparison, "compare", {"points": 7, "normalisation": "interpolate", "seed": 9}),
}  # fmt: skip


@pytest.mark.parametrize("command", ASKED)
def test_how_it_is_measured_is_what_was_asked_for(shell, checkpoints, monkeypatch, command):
    place, function, asked = ASKED[command]
    told = {}
    monkeypatch.setattr(place, function, listener(told))
    names = [checkpoints / f"{name}.safetensors" for name in "ab"]
    with pytest.raises(Heard):
        shell(command, *names, "--model", MODEL, "--data", "digits", "--device", "cpu", *words(asked))
    assert {name: told[name] for name in asked} == asked


def test_a_stream_is_trained_as_often_and_looked_at_as_closely_as_asked(shell, monkeypatch):
    told = {}
    monkeypatch.setattr(isthmus.studies.continual.stream, "merges", listener(told))
    asked = {"replicas": 3, "points": 5, "heads": "separate", "start": "last"}
    with pytest.raises(Heard):
        shell("continual", "--model", MODEL, "--stream", "split", "--tasks", 2, "--device", "cpu", *words(asked))
    assert {name: told[name] for name in asked} == asked
