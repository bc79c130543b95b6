"""Checkpoints that a user might have, good and bad."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from isthmus.cli.main import invoke
from isthmus.core.checkpoint import save
from isthmus.zoo.networks import network

MODEL = "mlp-8x1"
STUDY = """
name = "tiny"
[recipe]
network = "mlp-4x1"
steps = 4
subset = 100
[factors]
rate = [0.05, 0.5]
[replicates]
count = 2
differ = ["order"]
[measures]
columns = ["error_barrier", "overlap"]
points = 3
examples = 40
[[claims]]
words = "the overlap falls with the rate"
measure = "overlap"
factor = "rate"
direction = "falls"
"""


@pytest.fixture
def shell(capsys):
    """Run a command line in this process: exit code, output, error stream."""

    def run(*arguments):
        code = invoke([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def checkpoints(tmp_path) -> Path:
    """Two good checkpoints ``a`` and ``b`` of an 8-unit network on digits."""
    for seed, name in enumerate("ab"):
        save(network(MODEL, inputs=(1, 8, 8), seed=seed).state_dict(), tmp_path / f"{name}.safetensors")
    return tmp_path


class Trap:
    """A pickle that would leave a file behind if it were run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def trap(tmp_path):
    """A checkpoint whose pickle runs code, and the mark that it would leave."""
    mark = tmp_path / "code-was-run"
    with (tmp_path / "trap.pt").open("wb") as file:
        pickle.dump({"state_dict": Trap(mark)}, file)
    torch.save({"state_dict": Trap(mark)}, tmp_path / "trap2.pt")
    return tmp_path, mark


@pytest.fixture(scope="session")
def studied(tmp_path_factory):
    """The folder of a study that was run through the shell, in one worker process; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.toml").write_text(STUDY)
    results = folder / "results.json"
    arguments = [folder / "tiny.toml", "--store", folder / "store", "--workers", 1, "--device", "cpu", "-o", results]
    assert invoke(["study", *map(str, arguments)]) == 0
    return folder


@pytest.fixture
def runs(shell, studied):
    """``isthmus runs`` on that study's store."""

    def run(command, *arguments):
        return shell("runs", command, *arguments, "--store", studied / "store")

    return run
