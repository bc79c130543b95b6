"""The linear algebra of weights: against NumPy in float64, by its laws, and exactly where exactness is promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core import weights as w
from isthmus.core.errors import WeightsError
from isthmus.core.randomness import child

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def drawn(seed, dtype=torch.float64):
    generator = child(seed, "weights")
    return {
        "layer.weight": torch.randn(4, 3, generator=generator, dtype=torch.float64).to(dtype),
        "layer.bias": torch.randn(4, generator=generator, dtype=torch.float64).to(dtype),
        "scale": torch.randn((), generator=generator, dtype=torch.float64).to(dtype),
        "steps": torch.tensor(seed),
        "mask": torch.tensor([True, bool(seed % 2)]),
    }


def vector(weights):
    return np.concatenate([t.double().numpy().ravel() for t in weights.values() if t.is_floating_point()])


def same(first, second):
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", FLOATS)
def test_lerp_is_exact_at_its_ends(dtype):
    start, end = drawn(1, dtype), drawn(2, dtype)
    assert same(w.lerp(start, end, 0.0), start)
    assert same(w.lerp(start, end, 1.0), end)
    assert all(tensor.dtype == start[name].dtype for name, tensor in w.lerp(start, end, 0.4).items())


@given(st.floats(-1, 2))
def test_lerp_by_its_formula(t):
    start, end = drawn(1), drawn(2)
    assert vector(w.lerp(start, end, t)) == pytest.approx((1 - t) * vector(start) + t * vector(end), abs=1e-12)


def test_lerp_of_half_precision_rounds_once():
    start, end = drawn(1, torch.bfloat16), drawn(2, torch.bfloat16)
    wide = w.lerp(w.to(start, dtype=torch.float32), w.to(end, dtype=torch.float32), 0.37)
    assert same(w.lerp(start, end, 0.37), w.to(wide, dtype=torch.bfloat16))


def test_lerp_takes_what_cannot_be_mixed_from_the_nearer_end():
    assert int(w.lerp(drawn(1), drawn(2), 0.5)["steps"]) == 1
    assert int(w.lerp(drawn(1), drawn(2), 0.51)["steps"]) == 2


def test_many_positions_stack():
    positions = torch.tensor([0.0, 0.25, 1.0])
    stacked = w.lerp(drawn(1), drawn(2), positions)
    for index, t in enumerate(positions.tolist()):
        assert same(w.pick(stacked, index), w.lerp(drawn(1), drawn(2), t))


def test_combine_and_mean_accumulate_in_float32():
    solutions = [drawn(seed, torch.bfloat16) for seed in range(5)]
    found = w.combine(solutions, [0.2] * 5)
    wide = sum(0.2 * s["layer.weight"].float() for s in solutions)
    assert torch.equal(found["layer.weight"], wide.to(torch.bfloat16))  # type: ignore[union-attr]
    assert same(w.mean(solutions), found)
    assert int(found["steps"]) == 0
    doubles = [drawn(seed) for seed in range(5)]
    assert vector(w.mean(doubles)) == pytest.approx(np.mean([vector(s) for s in doubles], 0), abs=1e-15)
    for bad in (([], []), (solutions, [1.0])):
        with pytest.raises(WeightsError, match="one coefficient for each"):
            w.combine(*bad)
    with pytest.raises(WeightsError, match="at least one solution"):
        w.mean([])


def test_inner_products_agree_with_numpy():
    first, second = drawn(1), drawn(2)
    a, b = vector(first), vector(second)
    assert w.dot(first, second) == pytest.approx(a @ b, rel=1e-13)
    assert w.norm(first) == pytest.approx(np.linalg.norm(a), rel=1e-13)
    assert w.distance(first, second) == pytest.approx(np.linalg.norm(a - b), rel=1e-13)
    assert w.cosine(first, second) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-13)
    assert w.cosine(first, first) == pytest.approx(1)
    one = first["layer.bias"].numpy()
    assert w.dot(first, second, tensors=["layer.bias"]) == pytest.approx(one @ second["layer.bias"].numpy())
    assert torch.equal(w.flatten(first), torch.from_numpy(a))


def test_sums_over_many_small_entries_do_not_drown():
    # In float32 a running sum of 2²⁵ ones would stop at 2²⁴.
    many = {"w": torch.ones(1 << 20).half()}
    assert w.dot(many, many) == float(1 << 20)
    assert w.distance(many, {"w": torch.zeros(1 << 20).half()}) == 1024.0


def test_an_overlap_with_nothing_is_refused():
    with pytest.raises(WeightsError, match="not all zero"):
        w.cosine({"w": torch.zeros(3)}, {"w": torch.ones(3)})


def test_flatten_and_unflatten_are_inverse_and_keep_gradients():
    weights = drawn(1)
    flat = w.flatten(weights)
    assert same(w.unflatten(flat, weights), weights)
    leaf = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(w.unflatten(leaf, weights)["layer.bias"].sum(), leaf)
    assert float(gradient.sum()) == 4
    part = w.flatten(weights, tensors=["layer.bias"])
    assert len(part) == 4
    assert torch.equal(w.unflatten(part + 1, weights, tensors=["layer.bias"])["layer.bias"], weights["layer.bias"] + 1)
    with pytest.raises(WeightsError, match="must have 17 entries, got 3"):
        w.unflatten(torch.zeros(3), weights)
    with pytest.raises(WeightsError, match="unknown: nothing"):
        w.flatten(weights, tensors=["nothing"])


def test_stacking_and_picking():
    solutions = [drawn(seed) for seed in range(3)]
    stacked = w.stack(solutions)
    assert w.count(stacked) == 3
    assert all(same(one, other) for one, other in zip(w.unstack(stacked), solutions, strict=True))
    assert w.pick(stacked, 1)["scale"].data_ptr() == stacked["scale"][1].data_ptr()
    with pytest.raises(WeightsError, match="at least one solution"):
        w.stack([])
    with pytest.raises(WeightsError, match="share one leading axis"):
        w.count({"a": torch.zeros(2, 3), "b": torch.zeros(3)})


def test_conversion_leaves_counters_alone():
    converted = w.to(drawn(1), dtype=torch.float16)
    assert converted["scale"].dtype == torch.float16
    assert converted["steps"].dtype == torch.int64
    assert converted["mask"].dtype == torch.bool


def test_differences_in_form_are_named():
    weights = drawn(1)
    lacking = {name: tensor for name, tensor in weights.items() if name != "scale"}
    for first, second, words in (
        (weights, lacking, "lacks scale"),
        (lacking, weights, "also has scale"),
        (weights, {**weights, "layer.bias": torch.zeros(5)}, r"layer\.bias is \(4,\) and \(5,\)"),
    ):
        for function in (w.dot, w.distance, lambda a, b: w.lerp(a, b, 0.5), lambda a, b: w.combine([a, b], [1, 1])):
            with pytest.raises(WeightsError, match=words):
                function(first, second)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(bad):
    w.check_finite(drawn(1))
    broken = drawn(1)
    broken["layer.bias"][2] = bad
    with pytest.raises(WeightsError, match=r"the start must be finite; NaN or Inf in layer\.bias"):
        w.check_finite(broken, what="the start")


def test_nothing_is_written_to():
    start, end = drawn(1), drawn(2)
    kept = [{n: t.clone() for n, t in weights.items()} for weights in (start, end)]
    w.lerp(start, end, 0.3)
    w.combine([start, end], [2.0, 3.0])
    w.unflatten(w.flatten(start) * 0, start)
    w.to(start, dtype=torch.float16)
    w.stack([start, end])
    assert same(start, kept[0])
    assert same(end, kept[1])


def test_memory_in_bytes():
    assert w.nbytes({"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.float16)}) == 48 + 10


def test_complex_numbers_are_mixed_and_measured_as_two_real_ones():
    draw = torch.Generator().manual_seed(0)
    one, other = (
        {"w": torch.randn(3, 2, dtype=torch.complex128, generator=draw), "b": torch.randn(2, generator=draw)}
        for _ in range(2)
    )
    real = [{"w": torch.view_as_real(each["w"]), "b": each["b"]} for each in (one, other)]
    for t in (0.25, 0.75):
        assert torch.allclose(w.lerp(one, other, t)["w"], (1 - t) * one["w"] + t * other["w"])
    assert torch.allclose(w.combine([one, other], [0.5, 2.0])["w"], 0.5 * one["w"] + 2 * other["w"])
    assert w.dot(one, other) == pytest.approx(w.dot(*real), rel=1e-12)
    assert w.distance(one, other) == pytest.approx(w.distance(*real), rel=1e-12)
    vector = w.flatten({"w": one["w"]})
    assert vector.shape == (12,)
    assert torch.equal(w.unflatten(vector, {"w": one["w"]})["w"], one["w"])


def test_eight_bit_floats_are_mixed_and_checked():
    one = {"w": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)}
    other = {"w": torch.tensor([2.0, 4.0]).to(torch.float8_e4m3fn)}
    w.check_finite(one)
    assert w.lerp(one, other, 0.5)["w"].float().tolist() == [1.5, 3.0]


def test_an_overlap_never_leaves_its_range():
    """The length of a vector is rounded, so that its square may be less than the inner product with itself."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        one = {"w": torch.randn(7, generator=generator)}
        assert w.cosine(one, one) == pytest.approx(1.0)
        assert w.cosine(one, one) <= 1.0
        assert w.cosine(one, {"w": -one["w"]}) >= -1.0


@pytest.mark.parametrize("odd", [{"a": torch.zeros(3)}, {"a": torch.zeros(2), "b": torch.zeros(1)}, {}])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_solutions_that_do_not_fit_together_are_not_stacked(odd, place):
    solutions = [{"a": torch.zeros(2)}, {"a": torch.zeros(2)}]
    solutions.insert(place, odd)
    with pytest.raises(WeightsError, match="stacked solutions must"):
        w.stack(solutions)
