"""What users bring that is not as it should be: one line, exit code 2, nothing on the output stream."""

import json

import pytest
import torch

from isthmus.core.checkpoint import save

MODELS = """
from torch import nn

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(10))
"""


@pytest.fixture(autouse=True)
def here(checkpoints, monkeypatch):
    monkeypatch.chdir(checkpoints)


def refused(shell, message, *arguments):
    code, said, warned = shell(*arguments)
    assert (code, said) == (2, "")
    assert message in warned
    assert len(warned.strip().splitlines()) == 1


def test_lazy_layers_must_be_made(shell, checkpoints):
    (checkpoints / "own.py").write_text(MODELS)
    refused(shell, "call the module on an example once",
            "barrier", "a.safetensors", "b.safetensors", "--model", "own.py:lazy", "--data", "digits")  # fmt: skip


def test_a_folder_of_checkpoints_is_merged_as_elsewhere(shell, checkpoints):
    several = checkpoints / "several"
    several.mkdir()
    for place, value in enumerate((1.0, 2.0, 6.0)):
        save({"w": torch.full((4,), value)}, several / f"{place}.safetensors")
    code, said, _ = shell("merge", several, "-o", "out.safetensors", "--json")
    assert code == 0
    assert json.loads(said)["merge"]["tensors"] == 1
    from isthmus.core.checkpoint import load

    assert load("out.safetensors")["w"].tolist() == [3.0] * 4
