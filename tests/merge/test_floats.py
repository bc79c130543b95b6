"""NumPy's handling of bits against torch's own conversions."""

import numpy as np
import pytest
import torch

from isthmus.core.errors import CheckpointError
from isthmus.merge import floats

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def every_half() -> np.ndarray:
    return np.arange(65536, dtype=np.uint16)


@pytest.mark.parametrize("precision", [floats.BF16, floats.F16], ids=lambda p: p.code)
def test_every_half_precision_number_widens_like_torch(precision):
    bits = every_half()
    ours = floats.widen(bits, precision, np.empty(65536, np.float32))
    theirs = torch.from_numpy(bits.view(np.int16)).view(TORCH[precision.code]).float().numpy()
    np.testing.assert_array_equal(ours, theirs)


def hard_values(dtype) -> np.ndarray:
    """Random bit patterns, exact ties of bfloat16 and values close to them."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    ties = (rng.integers(0, 2**16, 50_000, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    edges = np.array([0.0, -0.0, 1.0, 3.3e38, -3.38e38, 65504.0, 65520.0, 1e-40], np.float32)
    values = np.concatenate([values, ties, edges])
    return values[np.isfinite(values)].astype(dtype)


@pytest.mark.parametrize("precision", floats.PRECISIONS, ids=lambda p: p.code)
def test_rounding_is_to_nearest_even_once(precision):
    values = hard_values(precision.work)
    out = np.empty(len(values), precision.bits)
    floats.narrow(values, precision, out, np.empty(len(values), np.uint32))
    expected = torch.from_numpy(values).to(TORCH[precision.code])
    same_width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[precision.size]
    np.testing.assert_array_equal(out, expected.view(same_width).numpy().view(precision.bits))


def test_doubles_beside_a_tie_are_rounded_once_to_bfloat16():
    tie = 1 + 2.0**-8  # halfway between two bfloat16 numbers
    values = np.array([tie, tie * (1 + 1e-13), tie * (1 - 1e-13), -tie * (1 + 1e-13)])
    out = np.empty(4, np.uint16)
    floats.narrow(values, floats.BF16, out, np.empty(4, np.uint32))
    got = floats.widen(out, floats.BF16, np.empty(4, np.float32))
    np.testing.assert_array_equal(got, [1.0, 1 + 2.0**-7, 1.0, -(1 + 2.0**-7)])


@pytest.mark.parametrize("precision", floats.PRECISIONS, ids=lambda p: p.code)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_entry_is_seen(precision, bad):
    values = np.ones(1000, precision.work)
    out, scratch = np.empty(1000, precision.bits), np.empty(1000, np.uint32)
    floats.narrow(values, precision, out, scratch)
    assert floats.finite(out, precision, np.empty(1000, precision.bits))
    values[617] = bad
    floats.narrow(values, precision, out, scratch)
    assert not floats.finite(out, precision, np.empty(1000, precision.bits))


def test_magnitudes_order_like_whole_numbers():
    finite = [b for b in every_half() if b & 0x7F80 != 0x7F80]
    bits = np.array(finite, np.uint16)
    values = np.abs(floats.widen(bits, floats.BF16, np.empty(len(bits), np.float32)))
    order = np.argsort(bits & floats.BF16.magnitude_mask, kind="stable")
    assert (np.diff(values[order]) >= 0).all()


def test_an_unknown_precision_is_refused():
    with pytest.raises(CheckpointError, match="a precision must be one of bfloat16"):
        floats.precision_of("F8_E4M3")
