"""The command that finds symmetries: its page, its file, and language models without their caches."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import MODEL
from tests.discover.architectures import define_missing_operators

NETWORK = """
import torch

class Config:
    vocab_size = 9

class Reader(torch.nn.Module):
    config = Config()

    def __init__(self):
        super().__init__()
        self.table, self.inner, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 6), torch.nn.Linear(6, 9)

    def forward(self, tokens, use_cache=True):
        hidden = self.inner(self.table(tokens)).relu()
        return (self.head(hidden), hidden) if use_cache else self.head(hidden)
"""


def answer(shell, *arguments):
    code, out, err = shell("symmetry", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_page_and_file_hold_the_picture(shell, tmp_path):
    page, file = tmp_path / "s.html", tmp_path / "s.json"
    found = answer(shell, MODEL, "--input", "2x1x8x8", "--report", page, "--output", file)
    assert json.loads(file.read_text()) == found
    assert {cell["group"] for cell in found["map"]["cells"]} == {group["name"] for group in found["groups"]}
    assert "Which layers share which group" in page.read_text()


def test_a_language_model_is_called_without_its_cache(shell, tmp_path):
    (tmp_path / "reader.py").write_text(NETWORK)
    found = answer(shell, f"{tmp_path / 'reader.py'}:Reader")
    assert sorted(group["units"] for group in found["groups"]) == [4, 6]  # handed out, the 6 would be pinned


def test_a_large_configuration_is_read_without_its_numbers(shell, tmp_path, monkeypatch):
    define_missing_operators()
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    transformers.LlamaConfig(**sizes, vocab_size=50, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    whole = answer(shell, tmp_path)
    monkeypatch.setattr("isthmus.cli.symmetry._LARGE", 1000)
    empty = answer(shell, tmp_path)
    assert empty["groups"] == whole["groups"]
    assert "narrow copy" in empty["proof"]["note"]
    assert "narrow copy" not in whole["proof"]["note"]


def test_a_language_model_of_the_zoo_is_asked_with_tokens(shell):
    assert answer(shell, "gpt-16x1")["groups"]


def test_scales_and_flips_come_on_request(shell, tmp_path):
    (tmp_path / "small.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
    )
    model = (f"{tmp_path / 'small.py'}:make", "--input", "2x4")
    assert [group["name"] for group in answer(shell, *model)["groups"]] == ["0"]
    assert [group["name"] for group in answer(shell, *model, "--scales")["groups"]] == ["0", "0 scale"]


def test_groups_that_repeat_in_each_head_share_a_row_of_the_table():
    from isthmus.cli.symmetry import folded

    outer = {"name": "heads", "units": 2, "inside": None, "tensors": ["q"]}
    inner = [
        {"name": f"heads[{head}] {part}", "units": 4, "inside": f"heads, unit {head}", "tensors": [part]}
        for head in (0, 1)
        for part in ("query", "value")
    ]
    assert folded([outer, *inner]) == [
        ["heads", 2, None, ["q"]],
        ["heads[*] query", 4, "each unit", ["query"]],
        ["heads[*] value", 4, "each unit", ["value"]],
    ]


def test_modules_that_are_units_share_a_row_with_what_is_inside_each():
    from isthmus.cli.symmetry import folded

    groups = [
        {"name": "e.*", "units": 2, "inside": None, "tensors": ["router.weight"]},
        *({"name": f"e.{n}.l.*", "units": 3, "inside": f"e.*, unit {n}", "tensors": [f"e.{n}.l.0"]} for n in (0, 1)),
        *(
            {"name": f"e.{n}.l.{k}.up", "units": 5, "inside": f"e.{n}.l.*, unit {k}", "tensors": [f"e.{n}.l.{k}.up"]}
            for n in (0, 1)
            for k in range(3)
        ),
    ]
    assert folded(groups) == [
        ["e.*", 2, None, ["router.weight"]],
        ["e.*.l.*", 3, "each unit", ["e.0.l.0"]],
        ["e.*.l.*.up", 5, "each unit", ["e.0.l.0.up"]],
    ]


def test_the_page_says_how_it_was_made(shell, tmp_path):
    page = tmp_path / "page.html"
    code, said, _ = shell("symmetry", "mlp-8x1", "--input", "1x1x8x8", "--json", "--report", page)
    assert code == 0
    assert json.loads(said)["provenance"]["versions"]["isthmus"]
    assert "How to reproduce this" in page.read_text(encoding="utf-8")
