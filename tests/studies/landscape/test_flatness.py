"""Rank correlations of sharpness and generalisation gap: oracles, controls that must come out right, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from isthmus.core.errors import DataError, SettingError
from isthmus.core.randomness import child
from isthmus.studies.landscape.flatness import _dealt, flatness


def _numbers(seed: int, networks: int = 40):
    return np.random.default_rng(seed).normal(size=(4, networks))


def test_the_plain_correlation_is_spearmans():
    sharp, gap, loss, _ = _numbers(0)
    gap[:10] = np.round(gap[:10])
    found = flatness({"trace": sharp}, gap, loss, generator=child(0), draws=200)
    assert found.correlations[0].plain.estimate == pytest.approx(spearmanr(sharp, gap).statistic, abs=1e-12)


def test_the_partial_correlation_is_the_textbook_formula():
    sharp, gap, loss, _ = _numbers(1)
    gap = gap + loss
    found = flatness({"trace": sharp + loss}, gap, loss, generator=child(0), draws=200)
    xy, xz, yz = (spearmanr(*pair).statistic for pair in ((sharp + loss, gap), (sharp + loss, loss), (gap, loss)))
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert found.correlations[0].partial.estimate == pytest.approx(expected, abs=1e-10)


def test_a_connection_only_through_the_training_loss_disappears():
    sharp, gap, loss, _ = _numbers(2, 80)
    found = flatness({"trace": loss + 0.3 * sharp}, loss + 0.3 * gap, loss, generator=child(0), draws=300)
    each = found.correlations[0]
    assert each.plain.low > 0.5
    assert each.p > 0.05
    assert "no connection" in found.sentence


@pytest.mark.parametrize(("sign", "words"), [(1, "flatter networks generalise better"), (-1, "against the expect")])
def test_the_verdict_says_what_was_found_either_way(sign, words):
    sharp, noise, loss, _ = _numbers(3)
    found = flatness({"trace": sharp}, sign * sharp + 0.5 * noise, loss, generator=child(0), draws=300)
    assert words in found.sentence
    assert found.correlations[0].partial.estimate * sign > 0.5


def test_a_connection_only_between_settings_is_not_one_within():
    sharp, gap, loss, _ = _numbers(4, 60)
    settings = np.repeat(np.arange(6), 10)
    found = flatness(
        {"trace": sharp + 5 * settings}, gap + 5 * settings, loss, settings=settings.tolist(), generator=child(0),
        draws=300,
    )  # fmt: skip
    each = found.correlations[0]
    assert each.plain.estimate > 0.9
    assert each.within.low < 0 < each.within.high
    assert "6 settings of 60 networks" in each.within.method


@pytest.mark.slow
def test_false_findings_stay_at_their_level():
    """200 studies without a connection, two measures each: Holm keeps any finding at 5 %."""
    findings = 0
    for seed in range(200):
        first, gap, loss, second = _numbers(100 + seed, 24)
        found = flatness({"a": first, "b": second}, gap, loss, generator=child(seed), draws=99)
        findings += min(each.p_corrected for each in found.correlations) <= 0.05
    # More than 19 of 200 at a true rate of .05 have a chance of .3 %.
    assert findings <= 19


def test_networks_are_matched_and_diverged_ones_counted():
    sharp, gap, loss, _ = _numbers(5)
    gap[3] = math.nan
    found = flatness({"trace": sharp}, gap, loss, matched=(-1.0, 1.0), generator=child(0), draws=100)
    inside = (np.abs(loss) <= 1) & (np.arange(40) != 3)
    assert found.networks == inside.sum()
    assert found.left_out == 1
    assert found.unmatched == 39 - inside.sum()
    assert -1 <= found.loss_range[0] <= found.loss_range[1] <= 1


def test_questions_without_an_answer_are_refused():
    sharp, gap, loss, _ = _numbers(6)
    with pytest.raises(SettingError, match="at least 5 networks"):
        flatness({"t": sharp[:4]}, gap[:4], loss[:4], generator=child(0))
    with pytest.raises(SettingError, match="at least one measure"):
        flatness({}, gap, loss, generator=child(0))
    with pytest.raises(DataError, match="one number for each of 40"):
        flatness({"t": sharp[:7]}, gap, loss, generator=child(0))
    with pytest.raises(DataError, match="must differ"):
        flatness({"t": np.ones(40)}, gap, loss, generator=child(0))
    with pytest.raises(DataError, match="settings must be one"):
        flatness({"t": sharp}, gap, loss, settings=[1], generator=child(0))


def test_seeds_of_one_setting_are_no_independent_evidence():
    """Nine settings of three seeds, both numbers ruled by the setting and not connected: 5 % may be significant.

    Permuting networks one by one calls 23 % significant; 60 null studies above 20 % are rarer than 1 in 10,000.
    """
    draw = np.random.default_rng(0)
    settings = np.repeat(np.arange(9), 3)

    def column():
        return (draw.normal(size=9)[settings] * 0.9**0.5 + draw.normal(size=27) * 0.1**0.5).tolist()

    found = [
        flatness({"a": column()}, column(), column(), settings=settings.tolist(), draws=200,
                 generator=torch.Generator().manual_seed(seed)).correlations[0].p <= 0.05
        for seed in range(60)
    ]  # fmt: skip
    assert np.mean(found) < 0.17


def test_few_networks_and_several_controls_keep_the_level():
    """What is dealt out anew loses what the controls explain, as what was observed did; else 19 % are significant."""
    draw, found = np.random.default_rng(0), 0
    for seed in range(300):
        sharp, gap, loss, first, second = draw.normal(size=(5, 8))
        result = flatness(
            {"a": sharp}, gap, loss, controls={"rate": first, "batch": second}, generator=child(seed), draws=99
        )
        found += result.correlations[0].p <= 0.05
    assert found <= 26  # 5 % of 300 is 15; the binomial goes beyond 26 once in 400


def test_what_is_dealt_out_anew_keeps_its_settings():
    values, groups = np.array([1.0, 3.0, 10.0, 14.0, 5.0]), np.array([0, 0, 1, 1, 2])
    drawn = _dealt(values, groups, 500, torch.Generator().manual_seed(0))
    apart = np.abs(drawn[:, 0] - drawn[:, 1]), np.abs(drawn[:, 2] - drawn[:, 3])
    assert np.allclose(apart[0], 2)
    assert np.allclose(apart[1], 4)
    assert {round(float(value), 9) for value in drawn[:, 4]} == {2.0, 12.0, 5.0}
    alone = _dealt(values, None, 50, torch.Generator().manual_seed(0))
    assert all(sorted(row) == sorted(values) for row in alone.tolist())


def test_the_interval_within_settings_has_the_width_of_its_error():
    """Of independent columns in nine settings of three the correlation has a deviation of about 1/√18 = .24."""
    draw = np.random.default_rng(1)
    settings = np.repeat(np.arange(9), 3).tolist()
    found = [
        flatness({"a": draw.normal(size=27).tolist()}, draw.normal(size=27).tolist(), draw.normal(size=27).tolist(),
                 settings=settings, draws=200, generator=torch.Generator().manual_seed(seed)).correlations[0].within
        for seed in range(20)
    ]  # fmt: skip
    assert np.std([one.estimate for one in found]) == pytest.approx(0.24, abs=0.09)
    assert np.mean([one.high - one.low for one in found]) == pytest.approx(2 * 1.96 * 0.22, abs=0.2)
