"""The loss on a simplex, where calculus knows it."""

import pytest
import torch
from torch import nn

from isthmus.connect import Simplex, simplex_barrier
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


class Hill(nn.Module):
    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, inputs):
        return -self.point.square().sum().expand(len(inputs))


def hill():
    inputs = torch.zeros(2, 1, dtype=torch.float64)
    return Objective(
        Network.of(Hill()), inputs, torch.zeros(2), loss=lambda o, t: o, metrics={"twice": lambda o, t: 2 * o}
    )


def corners():
    return [{"point": row} for row in torch.eye(3, dtype=torch.float64)]


def test_a_concave_bowl_on_unit_vectors():
    # At shares s the loss is −Σs², at the corners −1: above = 1 − Σs², largest at the centre, 2/3.
    result = simplex_barrier(Simplex(corners()), hill(), points=50, generator=child(0, "simplex"))
    assert torch.allclose(result.above, 1 - result.coordinates.square().sum(1), atol=1e-12)
    assert result.centre == pytest.approx(2 / 3)
    assert result.height == pytest.approx(2 / 3)
    assert torch.allclose(result.metrics["twice"], 2 * result.loss)
    assert [corner.loss for corner in result.corners] == [-1, -1, -1]
    # Flat Dirichlet: E Σs² = 3 · (1/18 + 1/9) = 1/2; one draw deviates by about .13, so .1 is five errors of 50.
    assert result.mean_above == pytest.approx(0.5, abs=0.1)
    assert result.to_dict()["kind"] == "SimplexBarrier"


def test_wrong_settings_are_refused():
    simplex = Simplex(corners())
    with pytest.raises(SettingError, match="points must be at least 3"):
        simplex_barrier(simplex, hill(), points=2, generator=child(0, "simplex"))
    with pytest.raises(SettingError, match="must be reestimate or interpolate"):
        simplex_barrier(simplex, hill(), normalisation="repair", generator=child(0, "simplex"))
    broken = [*corners()[:2], {"point": torch.full((3,), float("nan"), dtype=torch.float64)}]
    with pytest.raises(WeightsError, match="solution 2 must be finite"):
        simplex_barrier(Simplex(broken), hill(), generator=child(0, "simplex"))


def test_statistics_are_estimated_at_every_point():
    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double() for _ in range(3)]
    solutions = [Network.of(module).weights for module in modules]
    inputs = torch.randn(9, 3, dtype=torch.float64) * 4
    objective = Objective(Network.of(modules[0]), inputs, torch.arange(9) % 2)
    with pytest.raises(SettingError, match="must have inputs"):
        simplex_barrier(Simplex(solutions), objective, generator=child(0, "simplex"))
    fresh = simplex_barrier(Simplex(solutions), objective, points=3, inputs=inputs, generator=child(0, "simplex"))
    stale = simplex_barrier(
        Simplex(solutions), objective, points=3, normalisation="interpolate", generator=child(0, "simplex")
    )
    assert torch.equal(fresh.coordinates, stale.coordinates)
    assert not torch.allclose(fresh.loss, stale.loss)
    assert fresh.corners == stale.corners
