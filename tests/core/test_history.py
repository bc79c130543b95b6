"""Where checkpoints come from: identities by content, records that travel, and records that nobody should trust."""

import json

import pytest
import torch

from isthmus.core import history
from isthmus.core.checkpoint import load, metadata_of, save
from isthmus.core.history import KEY, Lineage, Parent, beside, content_of, read_lineage, save_with_lineage
from isthmus.merge.shards import Shards

WEIGHTS = {
    "b": torch.arange(12.0).view(3, 4),
    "a": torch.tensor(3),
    "half": torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "none": torch.empty(0, 3),
    "flags": torch.tensor([True, False]),
}


def test_identity_is_that_of_the_content(tmp_path):
    own = content_of(WEIGHTS)
    save(WEIGHTS, tmp_path / "a.safetensors", metadata={"some": "text"})
    save(WEIGHTS, tmp_path / "a.pt")
    assert Shards.open(tmp_path / "a.safetensors").content() == own
    assert content_of(load(tmp_path / "a.pt")) == own
    assert content_of({name: WEIGHTS[name].clone() for name in reversed(WEIGHTS)}) == own
    assert content_of({**WEIGHTS, "b": WEIGHTS["b"].t().contiguous().t()}) == own


@pytest.mark.parametrize(
    "changed",
    [
        {"b": WEIGHTS["b"] + 1e-6},
        {"b": WEIGHTS["b"].view(4, 3)},
        {"b": WEIGHTS["b"].double()},
        {"a": torch.tensor(3, dtype=torch.int32)},
        {"none": torch.empty(3, 0)},
        {"more": torch.zeros(1)},
    ],
    ids=["value", "shape", "type", "width", "empty", "name"],
)
def test_anything_else_has_another_identity(changed):
    assert content_of({**WEIGHTS, **changed}) != content_of(WEIGHTS)


def test_large_checkpoints_are_sampled_in_every_tensor(monkeypatch, tmp_path):
    monkeypatch.setattr(history, "_WHOLE", 1000)
    large = {"w": torch.zeros(100_000), "v": torch.zeros(3)}
    own = content_of(large)
    assert own.startswith("sampled:")
    save(large, tmp_path / "a.safetensors")
    assert Shards.open(tmp_path / "a.safetensors").content() == own
    for place in (0, 99_999):
        moved = large["w"].clone()
        moved[place] = 1
        assert content_of({**large, "w": moved}) != own
    assert content_of({**large, "w": large["w"] + 1e-3}) != own
    assert content_of({**large, "v": torch.tensor([0, 0, 1.0])}) != own


def test_a_record_travels_in_the_header_and_beside(tmp_path):
    parent = Parent("sha256:" + "0" * 64, "base.safetensors", "base")
    made = Lineage(
        "isthmus merge", (parent,), {"method": "ties", "settings": {"density": 0.2}}, "f" * 64,
        capabilities={"digits": 0.9}, measures={"loss": 0.1},
    )  # fmt: skip
    file = save_with_lineage(WEIGHTS, tmp_path / "m.safetensors", made, metadata={"method": "ties"})
    assert metadata_of(file)["method"] == "ties"
    for text in (metadata_of(file)[KEY], beside(file).read_text()):
        read = read_lineage(text)
        assert read is not None
        assert read.content == content_of(WEIGHTS)
        assert read.parents == (parent,)
        assert read.recipe == {"method": "ties", "settings.density": 0.2}
        assert (read.capabilities, read.measures, read.data) == ({"digits": 0.9}, {"loss": 0.1}, "f" * 64)
        assert read.created
        assert "torch" in read.versions
    plain = save_with_lineage(WEIGHTS, tmp_path / "m.pt", made)
    assert beside(plain).name == "m.pt.history.json"
    assert content_of(load(plain)) == content_of(WEIGHTS)


DEEP = '{"made_by": "x", "recipe": ' + '{"a":' * 3000 + "1" + "}" * 3000 + "}"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "nonsense", '{"made_by": 3}', "[" * 100_000, "x" * (1 << 21), '{"made_by": ' + "9" * 5000 + "}"],
)
def test_what_is_no_record_is_none(text):
    assert read_lineage(text) is None


def test_hostile_records_are_made_harmless():
    hostile = {
        "made_by": "\x1b[2Jisthmus\nmerge" + "x" * 5000,
        "parents": [{"content": "../../etc", "name": "a"}, 7, {"content": "sha256:" + "1" * 64, "name": "\x07b"}] * 50,
        "recipe": {f"k{i}": {"deep": [1] * 300} for i in range(500)} | {"nan": float("nan")},
        "capabilities": {"a": "0.9", "b": True, "c": float("inf"), "d": 0.5},
        "measures": [1, 2],
        "data": {"x": 1},
        "created": ["now"],
        "content": "sha256:short",
    }
    read = read_lineage(json.dumps(hostile))
    assert read is not None
    assert read.made_by.isprintable()
    assert len(read.made_by) <= 200
    assert {parent.content for parent in read.parents} == {"sha256:" + "1" * 64}
    assert len(read.parents) <= 64
    assert all(parent.name.isprintable() for parent in read.parents)
    assert len(read.recipe) <= 60
    assert all(len(str(value)) <= 200 for value in read.recipe.values())
    assert read.capabilities == {"d": 0.5}
    assert (read.measures, read.data, read.content) == ({}, None, "")
    deep = read_lineage(DEEP)
    assert deep is None or len(str(deep.recipe)) < 1000


def test_a_record_longer_than_any_honest_one_is_not_read():
    text = json.dumps(Lineage("training").to_dict())
    assert read_lineage(text) is not None
    assert read_lineage(text + " " * (1 << 20)) is None
