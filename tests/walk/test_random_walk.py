"""The random walk: its steps, its sphere, its filters, and what it reports."""

from __future__ import annotations

import pytest
import torch
from tests.walk.small import classifier
from torch import nn

from isthmus.core import weights as w
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.status import Status
from isthmus.walk import RandomWalk


def _norm(stacked, index):
    return w.norm(w.pick(stacked, index))


def test_a_step_is_filter_normalised():
    objective = classifier()
    start = objective.network.weights
    walk = RandomWalk(step=0.1, sphere=False)(objective, start, steps=1, generator=child(0), walkers=2, keep=[1])
    for index in range(2):
        there = w.pick(walk.kept[1], index)
        for name in ("0.weight", "2.weight"):
            move, filters = there[name] - start[name], start[name].norm(dim=1)
            torch.testing.assert_close(move.norm(dim=1), 0.1 * filters, rtol=1e-4, atol=1e-6)
        for name in ("0.bias", "2.bias"):
            torch.testing.assert_close(
                (there[name] - start[name]).norm(), 0.1 * start[name].norm(), rtol=1e-4, atol=1e-6
            )
    assert float(walk.distance[0, 1]) == pytest.approx(0.1 * w.norm(start), rel=1e-5)


def test_the_walk_stays_on_the_sphere_and_without_it_grows():
    objective = classifier()
    start = objective.network.weights
    on = RandomWalk(step=0.2)(objective, start, steps=30, generator=child(0), walkers=3, keep=[30])
    off = RandomWalk(step=0.2, sphere=False)(objective, start, steps=30, generator=child(0), walkers=3, keep=[30])
    for index in range(3):
        assert _norm(on.kept[30], index) == pytest.approx(w.norm(start), rel=1e-5)
        # Random steps add in squares: √(1 + 30·.2²) times the start.
        assert _norm(off.kept[30], index) == pytest.approx(w.norm(start) * (1 + 30 * 0.04) ** 0.5, rel=0.25)


def test_overlap_decays_as_on_a_sphere_of_many_dimensions():
    """One step of length s and the pull back multiply the overlap by 1/√(1+s²), but for chance of 1/√entries."""
    objective = classifier(hidden=200)
    walk = RandomWalk(step=0.3)(objective, objective.network.weights, steps=20, generator=child(1), walkers=8)
    expected = (1 + 0.09) ** (-walk.steps.double() / 2)
    torch.testing.assert_close(walk.overlap.mean(0), expected, rtol=0, atol=0.04)
    # On the sphere distance and overlap are one: d² = 2R²(1 − q).
    radius = w.norm(objective.network.weights)
    torch.testing.assert_close(walk.distance.square(), 2 * radius**2 * (1 - walk.overlap), rtol=1e-4, atol=1e-6)


def test_looks_agree_with_the_objective_at_the_kept_weights():
    objective = classifier(dtype=torch.float64)
    walk = RandomWalk(step=0.2)(
        objective, objective.network.weights, steps=6, generator=child(0), walkers=20, every=3, keep=[0, 6]
    )
    assert walk.steps.tolist() == [0, 3, 6]
    for index in range(20):
        score = objective(w.pick(walk.kept[6], index))
        assert float(walk.loss[index, 2]) == pytest.approx(score.loss, abs=1e-12)
        assert float(walk.error[index, 2]) == pytest.approx(score.error, abs=1e-12)
        assert w.pick(walk.kept[0], index)["0.weight"].equal(objective.network.weights["0.weight"])


def test_a_walkers_way_does_not_depend_on_how_many_walk():
    objective = classifier(dtype=torch.float64)
    few = RandomWalk()(objective, objective.network.weights, steps=5, generator=child(0), walkers=2)
    many = RandomWalk()(objective, objective.network.weights, steps=5, generator=child(0), walkers=40)
    torch.testing.assert_close(few.loss, many.loss[:2], rtol=1e-12, atol=0)
    assert not torch.equal(many.loss[0], many.loss[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_walk_in_single_precision(dtype):
    objective = classifier(dtype=dtype)
    walk = RandomWalk(step=0.001)(
        objective, objective.network.weights, steps=40, generator=child(0), walkers=2, keep=[40]
    )
    assert walk.kept[40]["0.weight"].dtype == dtype
    # In bfloat16 itself steps this small would be rounded away and the walker would stand still.
    assert float(walk.distance[0, -1]) > 0.5 * 0.001 * 40**0.5 * w.norm(objective.network.weights)


def test_batch_statistics_are_refreshed_when_asked_and_noted_when_not():
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    objective = Objective(Network.of(module), torch.randn(20, 5, generator=child(0)), torch.arange(20) % 3)
    start = objective.network.weights
    stale = RandomWalk()(objective, start, steps=2, generator=child(0))
    assert any("BatchNorm" in note for note in stale.notes)

    def refresh(weights):
        return {**weights, "1.running_mean": weights["1.running_mean"] + 5}

    fresh = RandomWalk()(objective, start, steps=2, generator=child(0), refresh=refresh)
    assert not fresh.notes
    assert not torch.allclose(stale.loss, fresh.loss)
    assert start["1.num_batches_tracked"] == 0


def test_tied_tensors_stay_tied():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, inputs):
            return self.second(self.first(inputs))

    module = Tied()
    objective = Objective(Network.of(module), torch.randn(6, 3), torch.arange(6) % 3)
    walk = RandomWalk(step=0.5)(objective, objective.network.weights, steps=2, generator=child(0), walkers=2, keep=[2])
    assert torch.equal(walk.kept[2]["first.weight"], walk.kept[2]["second.weight"])


def test_a_walker_that_leaves_the_finite_range_is_counted():
    objective = classifier()
    walk = RandomWalk(step=1e30, sphere=False)(
        objective, objective.network.weights, steps=3, generator=child(0), walkers=2
    )
    assert walk.status is Status.DIVERGED
    assert walk.diverged == (0, 1)
    assert walk.notes == ("2 of 2 walkers left the finite range",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 3, "walkers": 0}, "walkers must be at least 1"),
        ({"steps": 3, "every": 4}, "every must lie in 1 … 3"),
        ({"steps": 3, "keep": [4]}, "kept steps must lie in 0 … 3"),
    ],
)
def test_impossible_walks_are_refused(settings, words):
    objective = classifier()
    with pytest.raises(SettingError, match=words):
        RandomWalk()(objective, objective.network.weights, generator=child(0), **settings)


def test_bad_starts_are_refused():
    objective = classifier()
    start = dict(objective.network.weights)
    with pytest.raises(WeightsError, match=r"must be finite; NaN or Inf in 0\.weight"):
        RandomWalk()(objective, {**start, "0.weight": start["0.weight"] / 0}, steps=1, generator=child(0))
    with pytest.raises(SettingError, match="not all zero"):
        RandomWalk()(objective, {n: t * 0 for n, t in start.items()}, steps=1, generator=child(0))
    start.pop("2.bias")
    with pytest.raises(WeightsError, match=r"missing: 2\.bias"):
        RandomWalk()(objective, start, steps=1, generator=child(0))
    with pytest.raises(SettingError, match="step must be positive"):
        RandomWalk(step=-1)
