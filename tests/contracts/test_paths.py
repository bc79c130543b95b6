"""What every path through weight space must keep: one row for each kind."""

import pytest
import torch
from torch import nn

from isthmus.connect import Bezier, Line, Plane, Polygon, Simplex, barrier
from isthmus.connect.paths import Path
from isthmus.core import weights as algebra
from isthmus.core.errors import IsthmusError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


def solution(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    module[1].running_mean = torch.randn(3)
    module[1].num_batches_tracked = torch.tensor(seed + 5)
    return {name: tensor.detach() for name, tensor in module.to(dtype).state_dict().items()}


def along_simplex(*points):
    """A simplex walked along its edge from the first to the last corner, as a curve."""

    class Edge:
        def __init__(self, simplex):
            self.simplex = simplex

        def __call__(self, t):
            return self.simplex([1 - t, *[0.0] * (len(points) - 2), t])

        def to(self, *, device=None, dtype=None):
            return Edge(self.simplex.to(device=device, dtype=dtype))

    return Edge(Simplex(points))


PATHS = {
    "line": lambda a, b, c: Line(a, b),
    "polygon": lambda a, b, c: Polygon((a, c, b)),
    "long polygon": lambda a, b, c: Polygon((a, c, a, c, b)),
    "bezier": lambda a, b, c: Bezier((a, c, b)),
    "cubic": lambda a, b, c: Bezier((a, c, c, b)),
    "straight bezier": lambda a, b, c: Bezier((a, b)),
    "simplex": lambda a, b, c: along_simplex(a, c, b),
}
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(params=PATHS, ids=lambda name: name.replace(" ", "-"))
def make(request):
    return PATHS[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_are_exact_and_every_point_has_their_form(make, dtype):
    start, end, bend = (solution(seed, dtype) for seed in range(3))
    path = make(start, end, bend)
    assert isinstance(path, Path)
    for t, expected in ((0.0, start), (1.0, end)):
        assert all(torch.equal(path(t)[name], expected[name]) for name in expected)
    for t in (0.0, 0.13, 0.5, 0.77, 1.0):
        point = path(t)
        assert list(point) == list(start)
        for name, tensor in start.items():
            assert point[name].shape == tensor.shape
            assert point[name].dtype == tensor.dtype


def test_points_are_not_written_to(make):
    points = [solution(seed) for seed in range(3)]
    copies = [{name: tensor.clone() for name, tensor in point.items()} for point in points]
    path = make(*points)
    for t in (0.0, 0.3, 0.5, 0.9, 1.0):
        path(t)
    for point, copy in zip(points, copies, strict=True):
        assert all(torch.equal(point[name], copy[name]) for name in point)


def test_affine_maps_commute_with_paths(make):
    # Shifting and stretching all corners shifts and stretches every point: the shares sum to one.
    points = [algebra.to(solution(seed), dtype=torch.float64) for seed in range(3)]
    moved = [{n: 3 * t + 1 if t.is_floating_point() else t for n, t in point.items()} for point in points]
    for t in (0.2, 0.5, 0.8):
        before, after = make(*points)(t), make(*moved)(t)
        for name, tensor in before.items():
            if tensor.is_floating_point():
                assert torch.allclose(after[name], 3 * tensor + 1, rtol=1e-12, atol=1e-12)


def test_half_precision_is_mixed_in_float32_and_rounded_once(make):
    points = [solution(seed, torch.bfloat16) for seed in range(3)]
    wide = [algebra.to(point, dtype=torch.float32) for point in points]
    for t in (0.3, 0.5):
        rounded, exact = make(*points)(t), make(*wide)(t)
        for name, tensor in rounded.items():
            if tensor.is_floating_point():
                assert torch.equal(tensor, exact[name].to(torch.bfloat16)), name


def test_conversion_keeps_the_shape(make):
    points = [solution(seed, torch.bfloat16) for seed in range(3)]
    path = make(*points).to(dtype=torch.float64)
    exact = make(*(algebra.to(point, dtype=torch.float64) for point in points))
    assert all(torch.equal(path(0.3)[name], exact(0.3)[name]) for name in points[0])


def test_corners_must_be_alike(make):
    points = [solution(seed) for seed in range(3)]
    broken = {name: tensor for name, tensor in points[1].items() if name != "3.bias"}
    with pytest.raises(IsthmusError, match=r"3\.bias"):
        make(points[0], broken, points[2])


def test_a_barrier_can_be_measured(make):
    points = [algebra.to(solution(seed), dtype=torch.float64) for seed in range(3)]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2)).double()
    inputs = torch.randn(9, 1, 6, 6, generator=child(0, "x"), dtype=torch.float64)
    objective = Objective(Network.of(module), inputs, torch.arange(9) % 2, batch_size=4)
    path = make(*points)
    result = barrier(path, objective, points=5, normalisation="interpolate")
    assert float(result.loss[0]) == objective(points[0]).loss
    assert float(result.loss[-1]) == objective(points[1]).loss
    for index in (1, 2, 3):
        assert float(result.loss[index]) == pytest.approx(objective(path(index / 4)).loss, rel=1e-12)
    assert result.path == type(path).__name__


def test_a_plane_hits_its_corners():
    points = [algebra.to(solution(seed), dtype=torch.float64) for seed in range(3)]
    origin, first, second = points
    plane = Plane(origin, first, second)
    assert all(torch.equal(plane(0.0, 0.0)[name], origin[name]) for name in origin)
    point = plane(0.5, -2.0)
    for name, tensor in origin.items():
        if tensor.is_floating_point():
            assert torch.allclose(point[name], tensor + 0.5 * first[name] - 2 * second[name], rtol=1e-12)
    assert plane.coordinates(point) == pytest.approx((0.5, -2.0))
