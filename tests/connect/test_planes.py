"""Planes and the loss on them, against closed forms."""

import pytest
import torch
from torch import nn

from isthmus.connect import plane_through, principal_plane, random_plane, surface
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(5, dtype=torch.float64))

    def forward(self, centres):
        return (self.point - centres).square().sum(1)


def bowl(centre):
    return Objective(
        Network.of(Bowl()), centre.unsqueeze(0), torch.zeros(1), loss=lambda outputs, targets: outputs, metrics={}
    )


def vector(*entries):
    return {"point": torch.tensor(entries, dtype=torch.float64)}


def drawn(count, seed=0):
    generator = child(seed, "plane")
    return [{"point": torch.randn(5, generator=generator, dtype=torch.float64)} for _ in range(count)]


def test_a_plane_through_three_has_a_right_angled_frame_of_unit_length():
    three = drawn(3)
    marked = plane_through(*three)
    first, second = marked.plane.first, marked.plane.second
    assert algebra.norm(first) == pytest.approx(1)
    assert algebra.norm(second) == pytest.approx(1)
    assert algebra.dot(first, second) == pytest.approx(0, abs=1e-12)
    for place, solution in zip(marked.points.tolist(), three, strict=True):
        assert algebra.distance(marked.plane(*place), solution) < 1e-12
    assert torch.cdist(marked.points, marked.points)[1, 2] == pytest.approx(algebra.distance(three[1], three[2]))


def test_three_on_a_line_are_refused():
    a, b = drawn(2)
    with pytest.raises(WeightsError, match="do not lie on one line"):
        plane_through(a, b, algebra.lerp(a, b, 0.3))
    with pytest.raises(WeightsError, match="first two are equal"):
        plane_through(a, a, b)


def test_the_surface_of_a_bowl_is_its_closed_form_on_the_very_grid():
    three, centre = drawn(3), drawn(1, seed=1)[0]
    marked = plane_through(*three)
    result = surface(marked, bowl(centre["point"]), points=5, x_range=(-1.0, 2.0), y_range=(0.0, 4.0))
    assert result.x.tolist() == pytest.approx([-1, -0.25, 0.5, 1.25, 2])
    assert result.y.tolist() == pytest.approx([0, 1, 2, 3, 4])
    for i, x in enumerate(result.x.tolist()):
        for j, y in enumerate(result.y.tolist()):
            expected = algebra.distance(marked.plane(x, y), centre) ** 2
            assert float(result.loss[i, j]) == pytest.approx(expected)
    for score, solution in zip(result.scores, three, strict=True):
        assert score.loss == pytest.approx(algebra.distance(solution, centre) ** 2, rel=1e-14)
    by_default = surface(marked, bowl(centre["point"]), points=3)
    assert float(by_default.x[0]) < float(marked.points[:, 0].min())
    assert float(by_default.x[-1]) > float(marked.points[:, 0].max())


def test_principal_directions_are_those_of_the_singular_value_decomposition():
    generator = child(2, "trajectory")
    spread = torch.tensor([5.0, 2.0, 0.3, 0.1, 0.05], dtype=torch.float64)
    trajectory = [{"point": spread * torch.randn(5, generator=generator, dtype=torch.float64)} for _ in range(12)]
    for origin in (None, trajectory[3]):
        marked = principal_plane(trajectory, origin=origin)
        centre = (origin or trajectory[-1])["point"]
        steps = torch.stack([point["point"] - centre for point in trajectory])
        _, values, right = torch.linalg.svd(steps, full_matrices=False)
        for axis, direction in enumerate((marked.plane.first, marked.plane.second)):
            assert abs(float(direction["point"] @ right[axis])) == pytest.approx(1)
            assert torch.allclose(marked.points[:, axis], steps @ direction["point"], atol=1e-10)
        share = values.square() / values.square().sum()
        assert marked.explained == pytest.approx((float(share[0]), float(share[1])))
    with pytest.raises(SettingError, match="at least 3 points"):
        principal_plane(trajectory[:2])
    with pytest.raises(WeightsError, match="one line"):
        principal_plane([algebra.lerp(trajectory[0], trajectory[1], t) for t in (0.0, 0.5, 1.0)])


def test_random_directions_have_their_filters_lengths():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)))
    weights = {name: tensor * 3 for name, tensor in network.weights.items()}
    marked = random_plane(weights, generator=child(0, "plane"), tensors=network.parameter_names)
    assert set(marked.plane.first) == set(network.parameter_names)
    for direction in (marked.plane.first, marked.plane.second):
        for name in ("0.weight", "3.weight"):
            lengths = direction[name].flatten(1).norm(dim=1)
            assert torch.allclose(lengths, weights[name].flatten(1).norm(dim=1))
        assert not direction["0.bias"].any()
        assert not direction["1.weight"].any()
    assert not torch.equal(marked.plane.first["0.weight"], marked.plane.second["0.weight"])
    layer = random_plane(weights, generator=child(0, "plane"), scale="layer", tensors=network.parameter_names)
    assert float(layer.plane.first["1.weight"].norm()) == pytest.approx(float(weights["1.weight"].norm()))
    unit = random_plane(weights, generator=child(0, "plane"), scale="unit", tensors=network.parameter_names)
    assert algebra.norm(unit.plane.first) == pytest.approx(1)


def test_statistics_are_estimated_on_the_plane_or_data_are_asked_for():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double())
    inputs = torch.randn(12, 3, generator=child(0, "x"), dtype=torch.float64) + 5
    objective = Objective(network, inputs, torch.arange(12) % 2)
    marked = random_plane(network.weights, generator=child(0, "plane"), tensors=network.parameter_names)
    with pytest.raises(SettingError, match="must have inputs"):
        surface(marked, objective, points=3)
    fresh = surface(marked, objective, points=3, inputs=inputs)
    stale = surface(marked, objective, points=3, normalisation="interpolate")
    assert fresh.scores[0].loss == stale.scores[0].loss == objective(network.weights).loss
    assert float(stale.loss[1, 1]) == objective(network.weights).loss
    assert float(fresh.loss[1, 1]) != float(stale.loss[1, 1])
    with pytest.raises(SettingError, match="at least 3"):
        surface(marked, objective, points=2, inputs=inputs)
