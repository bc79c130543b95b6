"""Exact selection against sorting, and the masks of DARE against their own promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.merge import selection


def parts(magnitudes, length):
    return lambda: (magnitudes[i : i + length] for i in range(0, len(magnitudes), length))


def masks(band, magnitudes, length):
    kept = []
    for part in parts(magnitudes, length)():
        out, scratch = np.empty(len(part), bool), np.empty(len(part), bool)
        kept.append(band.keep(part, out, scratch).copy())
    return np.concatenate(kept)


@settings(deadline=None, max_examples=60)
@given(
    width=st.sampled_from([16, 32, 64]),
    few=st.booleans(),
    size=st.integers(1, 400),
    share=st.floats(0, 1),
    outliers=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_bands_are_what_a_stable_sort_gives(width, few, size, share, outliers, seed):
    rng = np.random.default_rng(seed)
    kind = {16: np.uint16, 32: np.uint32, 64: np.uint64}[width]
    values = rng.integers(0, 4 if few else (1 << (width - 1)) - 1, size, dtype=kind)
    kept = int(share * size)
    top = np.zeros(size, bool)
    top[np.argsort(-values.astype(np.float64) if width < 64 else ~values, kind="stable")[:kept]] = True
    band = selection.largest(parts(values, 37), size, kept, width=width)
    np.testing.assert_array_equal(masks(band, values, 37), top)

    dropped = int((size - kept) * outliers)
    between = np.zeros(size, bool)
    between[np.argsort(values, kind="stable")[dropped : dropped + kept]] = True
    band = selection.middle(parts(values, 37), dropped, kept, width=width)
    np.testing.assert_array_equal(masks(band, values, 37), between)


def all_masks(size, density, part, **keywords):
    got = list(selection.dare_masks(size, density, seed=3, name="w", solution=0, part=part, **keywords))
    return np.concatenate([mask for mask, _ in got]), got[0][1]


def test_masks_do_not_depend_on_the_parts():
    np.testing.assert_array_equal(all_masks(10_001, 0.3, 64)[0], all_masks(10_001, 0.3, 4096)[0])


def test_the_share_that_is_kept_has_the_stated_probability():
    mask, probability = all_masks(1_000_000, 0.1, 65536)
    deviation = (mask.mean() - probability) / np.sqrt(probability * (1 - probability) / 1_000_000)
    assert abs(deviation) < 4.5  # false alarms: 7 in a million
    assert abs(probability - 0.1) < 1 / 65536


def test_solutions_and_tensors_have_independent_masks():
    first = next(selection.dare_masks(100_000, 0.5, seed=0, name="w", solution=0, part=100_000))[0]
    for keywords in ({"name": "w", "solution": 1, "seed": 0}, {"name": "v", "solution": 0, "seed": 0}):
        other = next(selection.dare_masks(100_000, 0.5, part=100_000, **keywords))[0]
        assert abs((first == other).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(100_000)


@pytest.mark.parametrize("density", [1.0])
def test_density_one_keeps_everything(density):
    mask, probability = all_masks(1000, density, 64)
    assert mask.all()
    assert probability == 1.0
