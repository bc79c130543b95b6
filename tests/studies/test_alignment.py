"""Aligning checkpoints on disk: what a network holds under two names counts once."""

import dataclasses

import pytest
import torch
from torch import nn

from isthmus.core.checkpoint import save
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.symmetry import UnitGroup
from isthmus.discover import discover
from isthmus.studies.alignment import Manner, align_checkpoints


class Tied(nn.Module):
    """Reads and writes tokens by one table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.hidden(self.table(tokens))))


def all_counting(group: UnitGroup) -> UnitGroup:
    return dataclasses.replace(group, sites=tuple(dataclasses.replace(site, role="match") for site in group.sites))


def test_a_tensor_with_two_names_counts_once(tmp_path):
    network = Network.of(Tied())
    symmetry = discover(Tied(), torch.arange(8)[None])
    solutions = []
    for seed, name in enumerate("ab"):
        generator = child(seed, "solution")
        weights = {n: torch.randn(t.shape, generator=generator) for n, t in network.weights.items()}
        weights["head.weight"] = weights["table.weight"]
        solutions.append(weights)
        save(weights, tmp_path / f"{name}.safetensors")
    paths = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    similar = {name: float((solutions[0][name] * solutions[1][name]).sum()) for name in solutions[0]}
    assert set(network.tied) == {"head.weight"}

    once = sum(similar.values()) - similar["head.weight"]
    both = dataclasses.replace(symmetry, groups=tuple(all_counting(group) for group in symmetry.groups))
    for known, tied, expected in (
        (symmetry, None, once),  # discovery lets one of the names count
        (symmetry, network.tied, once),
        (both, None, sum(similar.values())),  # a symmetry written by hand need not
        (both, network.tied, once),
    ):
        found = align_checkpoints(paths, known, Manner(), tmp_path / "out", tied=tied)
        assert found.identity_objective == pytest.approx(expected, abs=1e-4)
