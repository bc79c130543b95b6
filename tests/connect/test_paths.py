"""Paths beyond their contract: closed forms, coordinates, reused memory, refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connect import Bezier, Line, Plane, Polygon, Simplex
from isthmus.core.errors import SettingError
from isthmus.core.randomness import child


def numbers(*entries):
    return {"w": torch.tensor(entries, dtype=torch.float64), "count": torch.tensor(len(entries))}


def value(weights):
    return weights["w"].tolist()


def test_a_line_extrapolates():
    assert value(Line(numbers(0.0), numbers(1.0))(1.5)) == [1.5]
    assert value(Line(numbers(0.0), numbers(1.0))(-1.0)) == [-1.0]


@given(st.floats(0, 1), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_reused_memory_holds_the_same_points(t, dtype):
    generator = child(0, "line")
    start, end = (
        {
            "a": torch.randn(7, generator=generator).to(dtype),
            "n": torch.tensor(count),
            "h": torch.ones(2).half() * count,
        }
        for count in (1, 2)
    )
    line = Line(start, end)
    buffers = line.buffers()
    line.write(0.9, buffers)
    written, fresh = line.write(t, buffers), line(t)
    assert list(written) == list(fresh)
    for name, tensor in fresh.items():
        assert torch.equal(written[name], tensor)
        assert written[name].dtype == tensor.dtype


def test_reused_memory_is_only_ever_the_buffers():
    start, end = numbers(0.0), numbers(1.0)
    line = Line(start, end)
    buffers = line.buffers()
    assert line.write(0.5, buffers)["w"] is buffers["w"]
    assert line.write(0.0, buffers)["w"] is start["w"]
    assert value(start) == [0.0]
    assert value(end) == [1.0]


@given(st.floats(0, 1))
def test_a_bezier_of_points_on_a_line_is_that_line(t):
    curve = Bezier([numbers(0.0, 1.0), numbers(1.0, 2.0), numbers(2.0, 3.0), numbers(3.0, 4.0)])
    assert value(curve(t)) == pytest.approx([3 * t, 3 * t + 1], abs=1e-12)


@given(st.floats(0, 1))
def test_a_quadratic_bezier_by_its_formula(t):
    curve = Bezier([numbers(1.0), numbers(5.0), numbers(-2.0)])
    assert value(curve(t)) == pytest.approx([(1 - t) ** 2 + 2 * t * (1 - t) * 5 - 2 * t**2], abs=1e-12)


def test_a_polygon_passes_through_its_points_at_even_positions():
    corners = [numbers(float(entry)) for entry in (0, 3, 1, 7)]
    polygon = Polygon(corners)
    assert [value(polygon(index / 3))[0] for index in range(4)] == pytest.approx([0, 3, 1, 7])
    assert value(polygon(0.5)) == pytest.approx([2.0])
    with pytest.raises(SettingError, match=r"must lie in \[0, 1\], got 1.1"):
        polygon(1.1)


def test_a_simplex_mixes_by_shares_and_refuses_others():
    simplex = Simplex([numbers(0.0), numbers(1.0), numbers(10.0)])
    assert value(simplex([0.5, 0.3, 0.2])) == pytest.approx([2.3])
    assert simplex([0.0, 1.0, 0.0])["w"] is simplex.solutions[1]["w"]
    for wrong in ([0.5, 0.5], [0.5, 0.6, 0.1], [1.5, -0.5, 0.0]):
        with pytest.raises(SettingError, match="3 shares that sum to 1"):
            simplex(wrong)


def test_random_points_of_a_simplex_are_uniform():
    corners = [numbers(*row) for row in torch.eye(3, dtype=torch.float64).tolist()]
    simplex, generator = Simplex(corners), child(0, "simplex")
    drawn = torch.stack([simplex.random(generator)["w"] for _ in range(4000)])
    # The flat Dirichlet law of three shares: mean 1/3, variance 1/18; six standard errors are about .022 and .006.
    assert torch.allclose(drawn.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.022)
    assert torch.allclose(drawn.var(0), torch.full((3,), 1 / 18, dtype=torch.float64), atol=0.006)
    assert torch.allclose(drawn.sum(1), torch.ones(4000, dtype=torch.float64))


def test_counters_come_from_the_nearer_point():
    first, second = numbers(0.0), {"w": torch.ones(1, dtype=torch.float64), "count": torch.tensor(9)}
    assert int(Line(first, second)(0.4)["count"]) == 1
    assert int(Line(first, second)(0.6)["count"]) == 9
    for t, count in ((0.4, 1), (0.5, 1), (0.6, 9)):
        assert int(Line(first, second).write(t, Line(first, second).buffers())["count"]) == count
    assert int(Simplex([first, second])([0.4, 0.6])["count"]) == 9


def test_too_few_points_are_refused():
    for kind in (Polygon, Bezier, Simplex):
        with pytest.raises(SettingError, match="at least 2"):
            kind([numbers(0.0)])


def test_a_plane_may_move_some_tensors_only():
    origin = {"a": torch.zeros(2), "b": torch.ones(2)}
    plane = Plane(origin, {"a": torch.tensor([1.0, 0.0])}, {"a": torch.tensor([1.0, 1.0])})
    point = plane(1.0, 2.0)
    assert point["a"].tolist() == [3.0, 2.0]
    assert point["b"] is origin["b"]
    assert plane.coordinates(point) == pytest.approx((1.0, 2.0))


def test_curves_are_told_by_their_size_and_not_by_their_numbers():
    """As the last line of a notebook's cell a curve once filled the screen with every weight."""
    ends = [numbers(*range(1000)) for _ in range(3)]
    told = {
        Line(*ends[:2]): "<Line between 2 solutions of 2 tensors>",
        Polygon(ends): "<Polygon over 3 solutions of 2 tensors>",
        Bezier(ends): "<Bezier over 3 solutions of 2 tensors>",
        Simplex(ends): "<Simplex over 3 solutions of 2 tensors>",
        Plane(*ends): "<Plane through a solution of 2 tensors>",
    }
    assert {repr(curve): text for curve, text in told.items()} == {text: text for text in told.values()}
