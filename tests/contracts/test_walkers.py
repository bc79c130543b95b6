"""Every walker passes the same table: a new walker is one row."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from isthmus.core import weights as w
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.record import to_json
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.walk import Langevin, LevelSet, Metropolis, PermutationWalk, RandomWalk

_UNITS = torch.arange(6)[:, None]
_SYMMETRY = Symmetry(
    (UnitGroup("0.weight", 6, (Site("0.weight", 0, _UNITS), Site("0.bias", 0, _UNITS), Site("2.weight", 1, _UNITS))),),
    {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (3, 6), "2.bias": (3,)},
)

WALKERS = {
    "random": RandomWalk(step=0.1),
    "random, free": RandomWalk(step=0.1, sphere=False),
    "metropolis": Metropolis(temperature=0.1, step=0.1),
    "metropolis, sphere": Metropolis(temperature=0.1, step=0.05, scale="even", sphere=True),
    "metropolis, tuned": Metropolis(temperature=0.1, step=0.1, tune=4),
    "level set": LevelSet(level=5.0, step=0.1),
    "langevin": Langevin(temperature=0.01, rate=0.05),
    "langevin, unadjusted": Langevin(temperature=0.01, rate=0.05, adjusted=False),
    "permutation": PermutationWalk(_SYMMETRY),
}


@pytest.fixture(scope="module")
def objective() -> Objective:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    inputs = torch.randn(30, 4, generator=child(0))
    return Objective(Network.of(module), inputs, torch.arange(30) % 3, batch_size=16)


@pytest.fixture(params=WALKERS, ids=str)
def walker(request):
    return WALKERS[request.param]


def test_the_start_is_never_written_to(walker, objective):
    start = {name: tensor.clone() for name, tensor in objective.network.weights.items()}
    before = copy.deepcopy(start)
    walker(objective, start, steps=6, generator=child(0), walkers=3, keep=[6])
    assert all(torch.equal(start[name], before[name]) for name in before)


def test_step_zero_is_the_start(walker, objective):
    walk = walker(objective, objective.network.weights, steps=6, generator=child(0), walkers=3, every=2, keep=[0])
    score = objective(objective.network.weights)
    assert walk.steps.tolist() == [0, 2, 4, 6]
    assert walk.loss.shape == walk.error.shape == walk.overlap.shape == walk.distance.shape == (3, 4)
    torch.testing.assert_close(walk.loss[:, 0], torch.full((3,), score.loss, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(walk.overlap[:, 0], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(walk.distance[:, 0].abs().max()) == 0.0
    assert bool(((walk.acceptance >= 0) & (walk.acceptance <= 1)).all())
    assert set(walk.kept[0]) == set(objective.network.names)


def test_the_same_generator_gives_the_same_walk_and_another_one_another(walker, objective):
    def go(seed):
        return walker(objective, objective.network.weights, steps=8, generator=child(seed), walkers=4)

    torch.testing.assert_close(go(0).distance, go(0).distance, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(go(0).distance, go(1).distance)


def test_walking_in_company_changes_nothing(walker, objective):
    alone = walker(objective, objective.network.weights, steps=6, generator=child(3), walkers=1)
    crowd = walker(objective, objective.network.weights, steps=6, generator=child(3), walkers=20)
    torch.testing.assert_close(alone.loss[0], crowd.loss[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(alone.distance[0], crowd.distance[0], rtol=1e-9, atol=1e-12)


def test_looks_are_what_the_objective_says_of_the_kept_weights(walker, objective):
    walk = walker(objective, objective.network.weights, steps=6, generator=child(1), walkers=3, every=3, keep=[3, 6])
    for column, step in ((1, 3), (2, 6)):
        for index in range(3):
            there = w.pick(walk.kept[step], index)
            assert float(walk.loss[index, column]) == pytest.approx(objective(there).loss, rel=1e-9)
            distance = w.distance(there, objective.network.weights)
            assert float(walk.distance[index, column]) == pytest.approx(distance, abs=1e-9)


def test_progress_is_told_to_the_end(walker, objective):
    heard = []
    walker(
        objective, objective.network.weights, steps=5, generator=child(0), walkers=3,
        progress=lambda done, total, label="": heard.append((done, total)),
    )  # fmt: skip
    assert heard
    assert heard[-1][0] == heard[-1][1]
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_the_record_is_json_without_weights(walker, objective):
    walk = walker(objective, objective.network.weights, steps=4, generator=child(0), walkers=2, keep=[4])
    record = json.loads(to_json(walk))
    assert record["kind"] == "Walk"
    assert "kept" not in record
    assert record["method"] == type(walker).__name__
    assert len(record["loss"]) == 2
