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


@pytest.mark.parametrize(
    ("weights", "message"),
    [((0, 0), "must not sum to zero"), ((1, -1), "must not sum to zero"), (("nan", 1), "must be finite")],
)
@pytest.mark.parametrize("method", ["linear", "magnitude"])
def test_weights_that_cannot_be_divided_by_are_refused_before_the_work(shell, checkpoints, weights, message, method):
    """In streaming and in memory (a torch file has no other way)."""
    save({"w": torch.zeros(2)}, "c.pt")
    save({"w": torch.ones(2)}, "d.pt")
    ends = ("a.safetensors", "b.safetensors") if method == "linear" else ("c.pt", "d.pt")
    options = [part for weight in weights for part in ("--weight", weight)]
    code, said, warned = shell("merge", *ends, *options, "-o", "out.safetensors")
    assert (code, said) == (2, "")
    assert message in warned.splitlines()[-1]
    assert not list(checkpoints.glob("*out*")), "a refused merge leaves nothing"


def test_a_merge_that_its_inputs_made_impossible_leaves_nothing(shell, checkpoints):
    save({**torch_of("b.safetensors"), "1.bias": torch.full((8,), float("nan"))}, "nan.safetensors")
    code, _, warned = shell("merge", "a.safetensors", "nan.safetensors", "-o", "out.safetensors")
    assert code == 2
    assert "nan.safetensors must be finite" in warned
    assert not list(checkpoints.glob("*out*"))
    assert not list(checkpoints.glob(".*out*"))


def torch_of(name):
    from isthmus.core.checkpoint import load

    return load(name)


@pytest.mark.parametrize("command", ["barrier", "flatness", "check"])
def test_no_examples_are_not_all_examples(shell, command):
    refused(shell, "at least 1 example, got 0", command, "a.safetensors", "b.safetensors", "--model", "mlp-8x1",
            "--data", "digits", "--examples", "0")  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_quantised_tensors_are_refused_when_they_are_read(shell):
    tensor = torch.quantize_per_tensor(torch.ones(8), 0.1, 0, torch.qint8)
    torch.save({**torch_of("b.safetensors"), "1.bias": tensor}, "q.pt")
    for command in (("merge", "a.safetensors", "q.pt", "-o", "out.safetensors"),
                    ("barrier", "a.safetensors", "q.pt", "--model", "mlp-8x1", "--data", "digits")):  # fmt: skip
        refused(shell, "1.bias is quantised", *command)


TOKENS = """
import torch
from torch import nn

class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 6), nn.Linear(6, 3)
    def forward(self, tokens):
        return self.out(torch.relu(self.embed(tokens)).mean(1))

class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 60
    def __getitem__(self, place):
        return torch.tensor([place % 9, place % 7, place % 3]), place % 3

def data():
    return Texts()
"""


def test_a_network_of_tokens_is_judged_before_training(shell, checkpoints):
    (checkpoints / "tokens.py").write_text(TOKENS)
    code, said, warned = shell("uncertainty", "--before", "--model", "tokens.py:Bag", "--data", "tokens.py:data",
                               "--folds", "2", "--train", "epochs=1", "--json")  # fmt: skip
    assert (code, warned) == (0, "")
    assert json.loads(said)["kind"] == "Uncertainty"


def test_token_numbers_stay_below_the_own_model_s_table(shell, checkpoints):
    (checkpoints / "tokens.py").write_text(TOKENS)
    code, said, warned = shell("symmetry", "tokens.py:Bag", "--input", "2x12", "--tokens", "--json")
    assert (code, warned) == (0, "")
    assert [group["units"] for group in json.loads(said)["groups"]] == [6]
