"""Symmetry files: what is written is read back, and damaged files give one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Obstacle, Parent, Proof, Site, Symmetry, UnitGroup
from isthmus.core.symmetry_file import load_permutation, load_symmetry, save_permutation, save_symmetry


def symmetry() -> Symmetry:
    heads = torch.arange(8).reshape(2, 4)
    groups = (
        UnitGroup("heads", 2, (Site("q", 0, heads), Site("o", 1, heads))),
        *(
            UnitGroup(
                f"inner {h}",
                3,
                (Site("q", 0, torch.tensor([[4 * h], [4 * h + 2], [4 * h + 1]])),),
                parent=Parent("heads", h, 0),
            )
            for h in range(2)
        ),
        UnitGroup("sliced", 3, (Site("q", 1, torch.tensor([[0], [2], [5]]), "carry", ((0, torch.arange(2, 8, 2)),)),)),
        UnitGroup("signs", 4, (Site("o", 0, torch.arange(4)[:, None], power=-1.0),), kind="sign"),
    )
    return Symmetry(
        groups,
        {"q": (8, 6), "o": (4, 8)},
        (Obstacle("fft", "has no rule", ("q",), "a.py:3"),),
        Proof(1e-16, 1e-9, 3, "float64"),
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    given = symmetry()
    save_symmetry(given, tmp_path / "s.json")
    read = load_symmetry(tmp_path / "s.json")
    assert read.tensors == dict(given.tensors)
    assert read.obstacles == given.obstacles
    assert read.proof == given.proof
    for one, other in zip(given.groups, read.groups, strict=True):
        assert (one.name, one.size, one.kind, one.parent) == (other.name, other.size, other.kind, other.parent)
        for a, b in zip(one.sites, other.sites, strict=True):
            assert (a.tensor, a.dim, a.role, a.power) == (b.tensor, b.dim, b.role, b.power)
            assert torch.equal(a.index, b.index)
            assert [(x, p.tolist()) for x, p in a.within] == [(x, p.tolist()) for x, p in b.within]


def test_long_regular_positions_are_written_short(tmp_path: Path) -> None:
    index = torch.arange(4096 * 49).reshape(4096, 49)
    given = Symmetry((UnitGroup("c", 4096, (Site("w", 1, index),)),), {"w": (2, 4096 * 49)})
    save_symmetry(given, tmp_path / "s.json")
    assert (tmp_path / "s.json").stat().st_size < 1000
    assert torch.equal(load_symmetry(tmp_path / "s.json").groups[0].sites[0].index, index)


def test_permutations_are_saved_without_groups_that_stay(tmp_path: Path) -> None:
    given = symmetry()
    permutation = dataclasses.replace(given.identity(), indices={"inner 1": torch.tensor([2, 0, 1])})
    save_permutation(permutation, tmp_path / "p.json")
    assert list(json.loads((tmp_path / "p.json").read_text())["indices"]) == ["inner 1"]
    assert load_permutation(tmp_path / "p.json", given).same_as(permutation)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "other"}',
        '{"format": "isthmus symmetry", "version": 99}',
        '{"format": "isthmus symmetry", "version": 1}',
        '{"format": "isthmus symmetry", "version": 1, "tensors": {"w": [2]}, "groups": [{"name": "a"}]}',
        '{"format": "isthmus symmetry", "version": 1, "tensors": {"w": 3}, "groups": []}',
        '{"format": "isthmus symmetry", "version": 1, "tensors": {"w": [2]}, "groups": [{"name": "a", "size": 2, '
        '"sites": [{"tensor": "w", "dim": 0, "rows": ["x", 1]}]}]}',
        '{"format": "isthmus symmetry", "version": 1, "tensors": {"w": [2]}, "groups": [{"name": "a", "size": 2, '
        '"sites": [{"tensor": "w", "dim": 0, "units": 2, "first": ["0:99999999999999"], "step": 1}]}]}',
        '{"format": "isthmus symmetry", "version": 1, "tensors": {"w": [2]}, "groups": [{"name": "a", "size": 3, '
        '"sites": [{"tensor": "w", "dim": 0, "units": 3, "first": [0], "step": 1}]}]}',
    ],
)
def test_damaged_files_give_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SymmetryError) as caught:
        load_symmetry(tmp_path / "s.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(SymmetryError, match="must be a readable file"):
        load_symmetry(tmp_path / "none.json")
