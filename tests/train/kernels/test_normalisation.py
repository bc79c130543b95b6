"""The kernels of batch normalisation against torch in float64, with what is fused into them."""

import pytest
import torch
from torch.nn import functional

pytest.importorskip("triton")

from isthmus.train.kernels import normalisation

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPSILON = 1e-3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.detach().double() - other.detach().double()).norm() / other.detach().double().norm())


@pytest.fixture(autouse=True)
def many_shares(monkeypatch):
    """Small tensors are cut up like large ones."""
    monkeypatch.setattr(normalisation, "_TILE", 256)
    monkeypatch.setattr(normalisation, "_PROGRAMS", 20)


@pytest.mark.parametrize("shape", [(2, 7, 16, 5, 4), (3, 6, 5, 3, 3), (1, 40, 150), (2, 30, 3)])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("rectified", [False, True])
def test_forward_and_backward(shape, added, rectified):
    inputs = drawn(*shape) + 50  # far from zero: sums of squares would cancel
    gain, shift = drawn(shape[0], shape[2], seed=1), drawn(shape[0], shape[2], seed=2)
    slopes, more, other = drawn(*shape, seed=3), drawn(*shape, seed=4), drawn(*shape, seed=5)
    wide = [tensor.double().requires_grad_() for tensor in (inputs, gain, shift)]
    right = torch.stack(
        [functional.batch_norm(x, None, None, w, b, training=True, eps=EPSILON) for x, w, b in zip(*wide, strict=True)]
    )
    right = right + other.double() if added else right
    right = right.relu() if rectified else right
    kept = added and rectified  # then what is added may have a gradient of its own, and slopes a second part
    wanted = torch.autograd.grad(right, wide, (slopes + more if kept else slopes).double())

    mean, deviation, unbiased = normalisation.moments(inputs, EPSILON)
    flat = inputs.double().transpose(1, 2).flatten(2)
    assert apart(mean, flat.mean(2)) < 1e-6
    assert apart(deviation, (flat.var(2, correction=0) + EPSILON).rsqrt()) < 1e-5
    assert apart(unbiased, flat.var(2)) < 1e-5
    fixed = (mean, deviation, gain, shift)
    outputs = normalisation.normalise(inputs, *fixed, other if added else None, rectified)
    assert apart(outputs, right) < 1e-5
    total, products, counted = normalisation.slope_sums(
        slopes, inputs, *fixed, outputs if kept else None, rectified, more if kept else None
    )
    assert apart(total, wanted[2]) < 1e-5
    assert apart(products, wanted[1]) < 2e-5
    if kept:
        torch.testing.assert_close(counted, torch.where(outputs > 0, slopes + more, 0))
    found = normalisation.input_slopes(
        counted if kept else slopes, inputs, *fixed, total, products, rectified and not kept
    )
    assert apart(found, wanted[0]) < 1e-5


def test_without_gain_and_shift_in_bfloat16():
    inputs, slopes = drawn(2, 9, 5, 4, 4).bfloat16(), drawn(2, 9, 5, 4, 4, seed=1).bfloat16()
    wide = inputs.double().requires_grad_()
    right = torch.stack([functional.batch_norm(x, None, None, training=True, eps=EPSILON) for x in wide])
    (wanted,) = torch.autograd.grad(right, wide, slopes.double())
    mean, deviation, _ = normalisation.moments(inputs, EPSILON)
    fixed = (mean, deviation, None, None)
    outputs = normalisation.normalise(inputs, *fixed, None, False)
    assert outputs.dtype is torch.bfloat16
    assert apart(outputs, right) < 5e-3
    total, products, _ = normalisation.slope_sums(slopes, inputs, *fixed, None, False)
    found = normalisation.input_slopes(slopes, inputs, *fixed, total, products, False)
    assert apart(found, wanted) < 5e-3


def test_what_is_not_a_number_stays_so():
    inputs = drawn(1, 4, 2, 3, 3)
    inputs[0, 0, 0, 0, 0] = float("nan")
    mean, deviation, _ = normalisation.moments(inputs, EPSILON)
    outputs = normalisation.normalise(inputs, mean, deviation, None, None, None, True)
    assert outputs[0, :, 0].isnan().all()
    assert outputs[0, :, 1].isfinite().all()
