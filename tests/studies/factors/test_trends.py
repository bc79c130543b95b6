"""Trend tests against SciPy, brute force and their own promise: how often they cry wolf."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from isthmus.core.errors import SettingError
from isthmus.studies.factors.trends import holm, jonckheere, matched_trend


def score(groups):
    return sum(np.sign(b - a) for first, second in itertools.combinations(groups, 2) for a in first for b in second)


@pytest.mark.parametrize("ties", [False, True])
def test_jonckheere_s_null_is_that_of_all_orders(ties):
    """Every assignment of seven values to levels of 2, 2 and 3."""
    values = [1.0, 2.0, 2.0, 4.0, 5.0, 5.0, 5.0] if ties else [1.0, 3.0, 2.0, 4.0, 5.0, 7.0, 6.0]
    everything = np.array([score([p[:2], p[2:4], p[4:]]) for p in itertools.permutations(values)])
    found = jonckheere([values[:2], values[2:4], values[4:]])
    own = score([values[:2], values[2:4], values[4:]])
    assert found.p == pytest.approx(np.mean(np.abs(everything) >= abs(own)), rel=1e-9)
    assert "exact" in found.method


@pytest.mark.parametrize("ties", [False, True])
def test_jonckheere_of_many_values_agrees_with_kendall_s_tau(ties):
    """Both count concordant pairs; SciPy's tau with ties among levels and among values is the oracle."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=80).round(1 if ties else 6)
    _, p = stats.kendalltau(np.repeat(np.arange(4), 20), values, method="asymptotic")
    assert jonckheere(values.reshape(4, 20).tolist()).p == pytest.approx(p, rel=1e-9)
    _, p = stats.kendalltau(np.arange(80), values, method="asymptotic")
    assert jonckheere([[value] for value in values]).p == pytest.approx(p, rel=1e-9)


def test_the_sampled_null_agrees_with_kendall_s_exact_one():
    values = np.random.default_rng(0).normal(size=12)
    found = jonckheere([[value] for value in values])
    statistic, p = stats.kendalltau(np.arange(12), values, method="exact")
    assert found.statistic == pytest.approx(statistic)
    assert found.p == pytest.approx(p, abs=0.015)
    assert "sampled" in found.method


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 3)])
def test_jonckheere_keeps_its_error_rate_for_few_values(sizes):
    """The normal law gives 6.9 % and 10.8 % for the first two; 1,000 studies above 6.7 % are rarer than 1 in 100."""
    draw = np.random.default_rng(5)
    found = [jonckheere([draw.normal(size=size) for size in sizes]).p for _ in range(1000)]
    assert np.mean(np.array(found) <= 0.05) < 0.067


def test_a_rise_is_one_and_a_fall_is_minus_one():
    levels = [[1, 2, 3], [4, 5], [6, 7, 8]]
    assert jonckheere(levels).statistic == 1
    assert jonckheere(levels[::-1]).statistic == -1
    assert matched_trend([[1, 2, 3], [5, 6, 7]]).statistic == pytest.approx(1)
    assert matched_trend([[3, 2, 1], [7, 6, 5]]).statistic == pytest.approx(-1)


def test_the_matched_trend_is_page_s_test():
    """Page's L is a + b·(mean rank correlation), and SciPy's exact p is one-sided."""
    data = np.random.default_rng(1).normal(size=(4, 4)) + np.arange(4) * 0.4
    page = stats.page_trend_test(data, method="exact")
    found = matched_trend(data)
    blocks, levels = data.shape
    mean = blocks * levels * (levels + 1) ** 2 / 4
    most = blocks * levels * (levels + 1) * (2 * levels + 1) / 6
    assert found.statistic == pytest.approx((page.statistic - mean) / (most - mean))
    if found.statistic > 0:
        assert found.p == pytest.approx(min(1.0, 2 * page.pvalue), abs=0.02)


def test_small_tables_are_tested_exactly():
    """Three levels in three replicates, all rising: 2 of 6³ orders are as extreme."""
    found = matched_trend([[1, 2, 3]] * 3)
    assert found.p == pytest.approx(2 / 6**3)
    assert "exact" in found.method


def test_replicates_that_say_nothing_change_nothing_but_the_count():
    found = matched_trend([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert (found.statistic, found.p) == (0.0, 1.0)
    assert jonckheere([[1.0, 1.0], [1.0, 1.0]]).p == 1.0


@pytest.mark.parametrize(("replicates", "levels"), [(3, 3), (6, 4)])
def test_the_matched_trend_keeps_its_error_rate(replicates, levels):
    """At most 5 % false findings: 400 null studies give more than 8 % in fewer than 1 of 100 repetitions."""
    draw = np.random.default_rng(2)
    block = draw.normal(size=(400, replicates, 1)) * 3
    tables = draw.normal(size=(400, replicates, levels)) + block
    assert np.mean([matched_trend(table).p < 0.05 for table in tables]) < 0.08


def test_matching_finds_what_independent_samples_hide():
    draw = np.random.default_rng(3)
    table = draw.normal(size=(8, 1)) * 10 + np.arange(4) * 0.5 + draw.normal(size=(8, 4)) * 0.3
    assert matched_trend(table).p < 0.001
    assert jonckheere(table.T.tolist()).p > 0.05


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested():
    found = holm([0.02, math.nan, 0.03])
    assert found[0] == pytest.approx(0.04)
    assert math.isnan(found[1])


def test_holm_agrees_with_the_closed_test_on_every_order():
    """Holm rejects exactly what the closure of Bonferroni tests rejects."""
    draw = np.random.default_rng(4)
    for _ in range(50):
        p = draw.uniform(size=4) ** 2
        subsets = [c for size in range(1, 5) for c in itertools.combinations(range(4), size)]
        closed = [max(min(1, len(c) * min(p[list(c)])) for c in subsets if i in c) for i in range(4)]
        assert holm(p.tolist()) == pytest.approx(closed)


def test_too_little_is_refused():
    with pytest.raises(SettingError, match="two levels"):
        jonckheere([[1.0]])
    with pytest.raises(SettingError, match="two levels"):
        matched_trend([[1.0], [2.0]])
