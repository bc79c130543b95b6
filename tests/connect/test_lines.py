"""Many lines at once: the same barriers as one by one, with few calls, within the memory there is."""

import pytest
import torch
from torch import nn

from isthmus.connect import barrier, barriers
from isthmus.connect.lines import takes_together
from isthmus.connect.pairs import beside
from isthmus.connect.paths import Line
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


def case(dtype=torch.float64, count=5, layers=()):
    module = nn.Sequential(nn.Linear(3, 8), *layers, nn.ReLU(), nn.Linear(8, 4)).to(dtype)
    network = Network.of(module)
    generator = child(0, "lines")
    solutions = [
        {
            name: torch.randn(tensor.shape, generator=generator).to(tensor)
            if tensor.is_floating_point()
            else tensor + index
            for name, tensor in network.weights.items()
        }
        for index in range(count)
    ]
    inputs = torch.randn(50, 3, generator=generator).to(dtype)
    return solutions, Objective(network, inputs, torch.randint(4, (50,), generator=generator), batch_size=16)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("together", [2, 7, 1000])
def test_all_at_once_and_one_by_one_agree_and_ends_are_the_very_same(dtype, near, together):
    solutions, objective = case(dtype)
    alone = barriers(solutions, objective, points=6, together=1)
    many = barriers(solutions, objective, points=6, together=together)
    for pair, curve in alone.curves.items():
        other = many.curves[pair]
        assert torch.allclose(curve.loss, other.loss, rtol=near)
        assert curve.middle.loss == pytest.approx(other.middle.loss, rel=near)  # a grid of six has no middle
        assert [float(curve.loss[place]) for place in (0, -1)] == [float(other.loss[place]) for place in (0, -1)]
        for name in ("normalisation", "path", "dtype", "examples"):
            assert getattr(curve, name) == getattr(other, name)
    assert float(many.heights["midpoint"].abs().max()) > 0.01


def test_points_of_many_pairs_share_a_call_and_each_end_is_scored_once(monkeypatch):
    solutions, objective = case()
    calls = {"many": [], "one": 0}
    many, one = Objective.many, Objective.__call__

    def counted_many(self, stacked, **keywords):
        calls["many"].append(len(stacked["0.weight"]))
        return many(self, stacked, **keywords)

    def counted_one(self, weights):
        calls["one"] += 1
        return one(self, weights)

    monkeypatch.setattr(Objective, "many", counted_many)
    monkeypatch.setattr(Objective, "__call__", counted_one)
    told = []
    barriers(solutions, objective, points=5, together=12, progress=lambda done, total, _="": told.append((done, total)))
    assert calls == {"many": [12, 12, 6], "one": 5}  # ten pairs of three inner points
    assert told[-1] == (10, 10)


def test_where_memory_runs_out_fewer_are_taken(monkeypatch):
    solutions, objective = case(count=3)
    many, sizes = Objective.many, []

    def scarce(self, stacked, **keywords):
        sizes.append(len(stacked["0.weight"]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return many(self, stacked, **keywords)

    expected = barriers(solutions, objective, points=5, together=1)
    monkeypatch.setattr(Objective, "many", scarce)
    found = barriers(solutions, objective, points=5, together=9)
    assert torch.allclose(found.loss_barrier, expected.loss_barrier, rtol=1e-12)
    assert sizes == [9, 4, 2, 2, 2, 2, 1]


def test_moved_solutions_are_the_ones_compared():
    solutions, objective = case()

    def moving(first, second):
        return {name: tensor.flip(0) for name, tensor in solutions[second].items()}

    alone = barriers(solutions, objective, points=5, moving=moving, together=1)
    many = barriers(solutions, objective, points=5, moving=moving, together=6)
    assert torch.allclose(alone.loss_barrier, many.loss_barrier, rtol=1e-12)


def test_only_plain_points_are_taken_together():
    solutions, objective = case()
    batch_norm = case(layers=(nn.BatchNorm1d(8),))[1]
    assert takes_together(objective, solutions, together=4)
    assert takes_together(objective, solutions, together=4, adaptive=None, further=(), points=9)
    assert takes_together(batch_norm, solutions, together=4, normalisation="interpolate")
    assert not takes_together(objective, solutions)  # on a CPU one by one is faster
    assert not takes_together(objective, solutions, together=4, adaptive=0.1)
    assert not takes_together(objective, solutions, together=4, further=("distance",))
    assert not takes_together(objective, solutions, together=4, normalisation="repair")
    assert not takes_together(batch_norm, solutions, together=4)


def test_counters_are_taken_from_the_nearer_end():
    solutions, objective = case(layers=(nn.BatchNorm1d(8),), count=2)
    for weights in solutions:
        weights["1.running_var"] = weights["1.running_var"].abs() + 0.5
    settings = {"normalisation": "interpolate", "points": 4}
    alone = barrier(Line(*solutions), objective, **settings)
    many = barriers(solutions, objective, together=3, **settings).curves[0, 1]
    assert torch.allclose(alone.loss, many.loss, rtol=1e-12)


def test_what_one_by_one_refuses_is_refused_here_too():
    solutions, objective = case()
    with pytest.raises(SettingError, match="points must be at least 3"):
        barriers(solutions, objective, points=2, together=4)
    with pytest.raises(TypeError, match="pionts"):
        barriers(solutions, objective, pionts=5, together=4)
    solutions[1]["0.bias"][0] = torch.nan
    with pytest.raises(WeightsError, match="the end of the path must be finite"):
        barriers(solutions, objective, points=5, together=4)


def test_weights_go_to_where_the_data_are_unless_that_is_the_processor():
    solutions, objective = case()
    there = objective.to("meta")
    assert {tensor.device.type for tensor in beside(solutions[0], there).values()} == {"meta"}
    assert beside(solutions[0], objective) is solutions[0]
