"""Verdicts from crossings: what is said, what would change it, and how sure the heights that decide are."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.statistics import Interval
from isthmus.studies.check.capabilities import rank_correlation
from isthmus.studies.check.verdict import Thresholds, changes, judged
from isthmus.studies.check.views import Crossing, View, accuracy, height


def test_the_interval_of_a_height_covers_the_true_one():
    """One inner point, known excess of .05 with known noise: the interval covers it as often as it says."""
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        excess = torch.zeros(3, 400, dtype=torch.float64)
        excess[1] = 0.05 + 0.3 * torch.randn(400, generator=generator, dtype=torch.float64)
        interval = height(excess, generator=generator)
        hits += interval.low <= 0.05 <= interval.high
    assert 180 <= hits <= 199  # 95 % of 200 is 190; the binomial leaves this range once in 500


@pytest.mark.parametrize("examples", [60, 400])
def test_a_barrier_at_the_threshold_is_rarely_said_to_lie_above_it(examples):
    """Eleven points, nine of them at exactly the threshold: the highest mean lies above it, its interval must not."""
    generator, above, below = torch.Generator().manual_seed(examples), 0, 0
    for _ in range(200):
        excess = torch.zeros(11, examples, dtype=torch.float64)
        excess[1:-1] = 0.02 + 0.3 * torch.randn(9, examples, generator=generator, dtype=torch.float64)
        interval = height(excess, generator=generator)
        above += interval.low > 0.02
        below += interval.high < 0.02
    assert above <= 12  # 2.5 % of 200 is 5; the binomial goes beyond 12 once in 500. A percentile gave over 100
    assert below <= 12


def test_the_lower_end_is_an_error_of_all_points_at_once():
    """By hand: half of the resamples of two examples raise one of two points by 1, though none lowers the maximum."""
    excess = torch.tensor([[0.0, 0.0], [1.0, 3.0], [3.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    interval = height(excess, generator=torch.Generator().manual_seed(0))
    assert (interval.estimate, interval.low, interval.high) == (2.0, 1.0, 3.0)


def test_losses_that_are_not_finite_have_no_interval():
    excess = torch.tensor([[0.0, 0.0], [math.inf, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert math.isnan(height(excess, generator=torch.Generator()).high)


def test_wilson_against_its_definition():
    seen = View(torch.zeros(50), torch.tensor([0] * 45 + [1] * 5), torch.zeros(50, dtype=torch.long), 0.0, 0.0)
    found = accuracy(seen)
    z = 1.959963984540054
    for bound in (found.low, found.high):  # the ends are where the score test just rejects
        assert abs(0.9 - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 50))


def test_rank_correlation_against_scipy():
    from scipy.stats import spearmanr

    a, b = [0.1, 0.5, 0.5, 0.9, 0.2], [3.0, 1.0, 4.0, 9.0, 2.0]
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]))
    assert math.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]))


def crossing(way, estimate, low, high, examples=100):
    grid = torch.tensor([0.0, 0.5, 1.0])
    interval = Interval(estimate, low, high, 0.95, 2, "given")
    return Crossing(0, 1, way, grid, grid, grid, interval, interval, interval, 0.5, 0.0, 1.0, examples, 0.0)


@pytest.mark.parametrize(
    ("heights", "strict", "expected"),
    [
        ({"naive": (0.01, 0.0, 0.015)}, False, ("as_they_are", "naive", True)),
        ({"naive": (0.01, 0.0, 0.03)}, False, ("as_they_are", "naive", False)),
        ({"naive": (0.01, 0.0, 0.03), "repair": (0.0, 0.0, 0.01)}, True, ("repair", "repair", True)),
        (
            {"naive": (0.3, 0.2, 0.4), "weights": (0.01, 0, 0.01), "activations": (0, 0, 0.01)},
            False,
            ("permutation", "activations", True),
        ),
        ({"naive": (0.3, 0.2, 0.4), "repair": (0.1, 0.05, 0.2)}, False, ("apart", "repair", True)),
        ({"naive": (0.3, 0.2, 0.4), "repair": (0.03, 0.01, 0.05)}, False, ("apart", "repair", False)),
        ({"naive": (math.nan, math.nan, math.nan), "repair": (0.5, 0.4, 0.6)}, False, ("apart", "repair", True)),
    ],
)  # fmt: skip
def test_verdicts(heights, strict, expected):
    found = judged({way: crossing(way, *values) for way, values in heights.items()}, Thresholds(strict=strict))
    assert found == expected


def pair_of(**heights):
    from isthmus.studies.check.capabilities import Retention
    from isthmus.studies.check.verdict import Pair

    crossings = {way: crossing(way, *values) for way, values in heights.items()}
    verdict, best, established = judged(crossings, Thresholds())
    return Pair(0, 1, verdict, established, best, crossings, 1.0, 1.0, 0.5, Retention(0, 1, best, 0.1, (), math.nan))


def test_what_would_change_a_verdict():
    pair = pair_of(naive=(0.3, 0.2, 0.4), repair=(0.03, 0.01, 0.05))
    found = {change.what: change for change in changes([pair], "apart", Thresholds())}
    assert {c.verdict: c.value for c in changes([pair], "apart", Thresholds()) if c.what == "threshold"} == {
        "as_they_are": 0.3,
        "repair": 0.03,
    }
    # Half the interval is .02 and the margin .01: four times the 100 examples.
    assert found["examples"].value == pytest.approx(400)


def test_leaving_out_the_model_at_fault():
    good, bad = pair_of(naive=(0.0, 0.0, 0.01)), pair_of(naive=(0.5, 0.4, 0.6))
    pairs = [good, dataclasses.replace(bad, second=2), dataclasses.replace(bad, first=1, second=2)]
    left_out = [c for c in changes(pairs, "apart", Thresholds()) if c.what == "without"]
    assert [(c.value, c.verdict) for c in left_out] == [(2, "as_they_are")]


@given(st.floats(0.001, 0.5), st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0, 0.6))
def test_the_threshold_that_is_named_does_change_the_verdict(threshold, naive, weights, repair):
    rule = Thresholds(barrier=threshold)
    crossings = {w: crossing(w, h, h, h) for w, h in (("naive", naive), ("weights", weights), ("repair", repair))}
    verdict, best, established = judged(crossings, rule)
    whole = pair_of(naive=(0.0, 0.0, 0.0))
    pair = dataclasses.replace(whole, crossings=crossings, verdict=verdict, best=best, established=established)
    for change in changes([pair], verdict, rule):
        if change.what == "threshold" and 0 < change.value < 1:
            assert judged(crossings, Thresholds(barrier=change.value))[0] == change.verdict
        if change.what == "stricter" and change.value > 1e-6:
            assert judged(crossings, Thresholds(barrier=change.value * (1 - 1e-9)))[0] == change.verdict
