"""Descent after a walk: back into the same basin from near, elsewhere from far."""

from __future__ import annotations

import pytest
import torch
from tests.walk.quadratic import bowl
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.walk import Descent, RandomWalk, Returns, returns


class _TwoWells(nn.Module):
    """loss = (θ² − 1)²: minima at ±1, a barrier of 1 between them."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, 0.01], dtype=torch.float64))

    def forward(self, inputs):
        return inputs * self.theta


def _wells(outputs, targets):
    return (outputs[:, 0].square() - 1).square() + outputs[:, 1].square()


@pytest.fixture(scope="module")
def wells() -> Objective:
    module = _TwoWells()
    return Objective(Network.of(module), torch.ones(1, 1, dtype=torch.float64), torch.zeros(1), _wells, {})


def _descend(objective):
    def descend(weights):
        for _ in range(150):
            _, gradient = objective.gradient(weights)
            weights = {name: tensor - 0.02 * gradient[name] for name, tensor in weights.items()}
        return weights

    return descend


def _height(objective):
    def height(start, end):
        points = torch.linspace(0, 1, 21).tolist()
        return max(objective({n: (1 - t) * start[n] + t * end[n] for n in start}).loss for t in points)

    return height


def test_near_walkers_return_and_far_ones_do_so_by_the_sign_of_the_well(wells):
    walker = RandomWalk(step=0.3, sphere=False)
    found = returns(
        walker, wells, wells.network.weights, times=(1, 30), descend=_descend(wells), barrier=_height(wells),
        generator=child(0), walkers=16, tolerance=0.1,
    )  # fmt: skip
    assert isinstance(found, Returns)
    # A vector is one filter: one step is a third of the start's length, never as far as the ridge at 0.
    assert bool(found.returned[0].all())
    # The well is told by the sign before the descent: a second, independent way to the same verdict.
    signs = found.walk.kept[30]["theta"][:, 0] > 0
    assert torch.equal(found.returned[1], signs)
    assert 0 < float(found.rate[1]) < 1
    assert float(found.low[1]) < float(found.rate[1]) < float(found.high[1])
    assert float(found.low[0]) < 1.0 == float(found.high[0])
    assert float(found.loss.max()) < 1e-3
    assert found.overlap[1][~signs].max() < -0.99


def test_a_walk_may_go_on_after_the_last_descent(wells):
    found = returns(
        RandomWalk(step=0.01), wells, wells.network.weights, times=(2,), steps=6, every=3, walkers=2,
        generator=child(0), descend=lambda weights: weights, barrier=lambda home, below: 0.0,
    )  # fmt: skip
    assert found.steps == (2,)
    assert found.walk.steps.tolist() == [0, 3, 6]


def test_a_descent_that_was_cut_off_outside_is_no_verdict(wells):
    asked = {"times": (1, 30), "barrier": _height(wells), "walkers": 16, "tolerance": 0.1}
    walker, start = RandomWalk(step=0.3, sphere=False), wells.network.weights
    cut = returns(walker, wells, start, descend=Descent(wells, steps=1), generator=child(0), **asked)
    whole = returns(walker, wells, start, descend=Descent(wells, steps=500), generator=child(0), **asked)
    away = whole.walk.kept[30]["theta"][:, 0] < 0
    assert torch.equal(whole.returned[1], ~away)
    assert not whole.undecided.any()
    assert whole.notes == ()
    assert cut.undecided[1, away].all()
    assert not (cut.undecided & cut.returned).any()
    assert f"{int(cut.undecided.sum())} of 32 descents" in cut.notes[0]
    assert "after 1 gradients" in cut.notes[0]


def test_wilsons_interval_has_its_textbook_value(wells):
    found = returns(
        RandomWalk(step=0.01), wells, wells.network.weights, times=(1,), descend=lambda x: x,
        barrier=lambda a, b: 0.0, generator=child(0), walkers=10,
    )  # fmt: skip
    # 10 of 10: low = 1/(1 + z²/10) with z = 1.959964.
    assert float(found.low[0]) == pytest.approx(1 / (1 + 1.959964**2 / 10), abs=1e-6)


def test_questions_without_an_answer_are_refused(wells):
    with pytest.raises(SettingError, match="times must name"):
        returns(RandomWalk(), wells, wells.network.weights, times=(), descend=lambda x: x, generator=child(0))
    objective, start = bowl([1.0])
    with pytest.raises(SettingError, match="barrier must be given"):
        returns(RandomWalk(), objective, start, times=(1,), descend=lambda x: x, generator=child(0))
