"""Barriers among many solutions: every pair, each solution looked at once, many points at a time."""

import pytest
import torch
from tests.connect.landscapes import norm_net, norm_objective, point, valley

from isthmus.connect import Line, barrier, barriers
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


def test_pairs_hold_every_convention_and_intervals_over_networks():
    objective = valley(torch.zeros(1, 2, dtype=torch.float64), lambda o, t: torch.sin(3 * o))
    generator = child(3, "points")
    solutions = [{"point": torch.randn(2, generator=generator, dtype=torch.float64)} for _ in range(5)]
    calls = []
    result = barriers(
        solutions, objective, points=9, progress=lambda done, total, label="": calls.append((done, total))
    )
    assert torch.equal(result.loss_barrier, result.loss_barrier.T)
    assert torch.equal(result.loss_barrier.diagonal(), torch.zeros(5, dtype=torch.float64))
    alone = barrier(Line(solutions[1], solutions[3]), objective, points=9)
    assert float(result.loss_barrier[1, 3]) == alone.loss_barrier
    interval = result.intervals["loss_barrier"]
    assert interval.networks == 5
    assert interval.low < interval.estimate < interval.high
    assert calls[-1][0] == calls[-1][1] == 10
    assert result.to_dict()["curves"]


def counting(monkeypatch):
    calls, one = [], Objective.__call__

    def counted(self, weights):
        calls.append(weights)
        return one(self, weights)

    monkeypatch.setattr(Objective, "__call__", counted)
    return calls


@pytest.mark.parametrize("policy", ["reestimate", "repair", "rescale"])
def test_each_solution_is_scored_once_for_all_its_pairs_and_nothing_else_changes(policy, monkeypatch):
    objective, inputs = norm_objective()
    solutions = [Network.of(norm_net(seed)).weights for seed in range(4)]
    settings = {"points": 3, "inputs": inputs, "normalisation": policy}
    alone = {(i, j): barrier(Line(solutions[i], solutions[j]), objective, **settings) for i, j in PAIRS}
    calls = counting(monkeypatch)
    found = barriers(solutions, objective, **settings)
    assert len(calls) == 4 + 4 + 6  # as they are, treated, and the six points between
    for pair, curve in alone.items():
        assert torch.equal(curve.loss, found.curves[pair].loss)
        assert curve.treated_ends == found.curves[pair].treated_ends
        assert curve.middle == found.curves[pair].middle
    calls.clear()
    moved = barriers(solutions, objective, moving=lambda i, j: {**solutions[j]}, **settings)
    assert len(calls) == 4 + 4 + 6  # the very same tensors in another mapping
    assert torch.equal(moved.loss_barrier, found.loss_barrier)
    calls.clear()
    doubled = barriers(solutions, objective, moving=lambda i, j: scaled(solutions[j]), **settings)
    assert len(calls) == 3 + 3 + 6 + 6 + 6  # solutions that begin a pair, and every end of its own
    for pair, curve in doubled.curves.items():
        end = scaled(solutions[pair[1]])
        assert torch.equal(curve.loss, barrier(Line(solutions[pair[0]], end), objective, **settings).loss)


PAIRS = [(i, j) for i in range(4) for j in range(i + 1, 4)]


def scaled(weights):
    return {name: tensor * 2 if name == "4.weight" else tensor for name, tensor in weights.items()}


def test_what_is_said_of_both_ends_is_said_of_each_pair_anew():
    objective, inputs = norm_objective()
    solutions = [Network.of(norm_net(seed)).weights for seed in range(3)]
    settings = {"points": 3, "inputs": inputs, "further": ("distance",)}
    found = barriers(solutions, objective, **settings)
    for (i, j), curve in found.curves.items():
        alone = barrier(Line(solutions[i], solutions[j]), objective, **settings)
        for name, values in alone.metrics.items():
            assert torch.equal(values, curve.metrics[name]), name
    assert float(found.curves[0, 1].metrics["distance_to_end"][0]) > 0


def test_moving_solutions_are_the_ones_compared():
    objective = valley(torch.zeros(1, 1, dtype=torch.float64), lambda outputs, targets: -outputs)
    solutions = [point(-1.0), point(1.0), point(2.0)]
    result = barriers(solutions, objective, points=5, moving=lambda first, second: solutions[first])
    assert float(result.loss_barrier.max()) == 0.0
    with pytest.raises(SettingError, match="at least 2 solutions"):
        barriers(solutions[:1], objective)


@pytest.mark.parametrize("together", [2, 3, 100])
def test_many_points_at_once_give_the_same_and_the_ends_are_alone(together, monkeypatch):
    objective, inputs = norm_objective()
    start, end = (Network.of(norm_net(seed)).weights for seed in (0, 1))
    sizes, many = [], Objective.many

    def watched(self, stacked, *, together=None):
        sizes.append(len(stacked["0.bias"]))
        return many(self, stacked, together=together)

    monkeypatch.setattr(Objective, "many", watched)
    one = barrier(Line(start, end), objective, points=9, inputs=inputs)
    assert sizes == []
    several = barrier(Line(start, end), objective, points=9, inputs=inputs, together=together)
    assert torch.allclose(one.loss, several.loss, rtol=1e-12)
    assert float(several.loss[0]) == objective(start).loss
    assert sum(sizes) in (6, 7)
    assert max(sizes) == min(together, 7)


def test_points_share_memory_only_as_far_as_there_is_some(monkeypatch):
    objective, inputs = norm_objective()
    start, end = (Network.of(norm_net(seed)).weights for seed in (0, 1))
    many = Objective.many

    def cramped(self, stacked, *, together=None):
        if len(stacked["0.bias"]) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return many(self, stacked, together=together)

    one = barrier(Line(start, end), objective, points=9, inputs=inputs)
    monkeypatch.setattr(Objective, "many", cramped)
    several = barrier(Line(start, end), objective, points=9, inputs=inputs, together=100)
    assert torch.allclose(one.loss, several.loss, rtol=1e-12)
