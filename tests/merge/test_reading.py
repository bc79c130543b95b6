"""How files are read on the way: parts without what lies around them, whole tensors in the order in which they lie."""

from __future__ import annotations

import mmap

import pytest
import torch
from tests.merge.saved import folder_of, saved, weights

from isthmus.core import history
from isthmus.core.checkpoint import load
from isthmus.core.history import content_of
from isthmus.merge import examine, shards, stream
from isthmus.merge.repeated import repeated
from isthmus.merge.shards import Shards

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_RANDOM"), reason="needs a system that takes advice on reading")


@pytest.fixture
def advice(monkeypatch):
    """What the system is told of every file that is mapped."""
    told = []

    class Told(mmap.mmap):
        def madvise(self, option, *where):
            told.append(option)
            return super().madvise(option, *where)

    monkeypatch.setattr(shards.mmap, "mmap", Told)
    return told


def test_identities_of_large_checkpoints_do_not_read_ahead(tmp_path, monkeypatch, advice):
    saved(tmp_path, torch.bfloat16)
    file = tmp_path / "x.safetensors"
    whole = Shards.open(file).content()
    assert advice == [mmap.MADV_SEQUENTIAL]  # small enough to be read from end to end
    monkeypatch.setattr(history, "_WHOLE", 1000)
    advice.clear()
    sampled = Shards.open(file).content()
    assert advice == [mmap.MADV_RANDOM]
    assert whole.startswith("sha256:")
    assert sampled == content_of(load(file))


def test_glances_at_tensors_do_not_read_ahead(tmp_path, advice):
    saved(tmp_path, torch.bfloat16)
    examine([tmp_path / "x.safetensors", tmp_path / "y.safetensors"])
    repeated([Shards.open(tmp_path / "x.safetensors")], {"BF16"})
    assert set(advice) == {mmap.MADV_RANDOM}


def test_tensors_are_merged_as_they_lie_but_the_largest_first(tmp_path):
    folder = folder_of(tmp_path / "f", weights(1, torch.float32), shards=3)
    entries = Shards.open(folder).entries
    order = stream._in_order(entries, large=100_000)
    assert order[0] == "model.embed_tokens.weight"
    rest = [(entries[name].file, entries[name].start) for name in order[1:]]
    assert rest == sorted(rest)
    assert sorted(order) == sorted(entries)
