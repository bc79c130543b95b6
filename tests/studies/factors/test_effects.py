"""Effects of a planted table: what was put in is found, with networks as the unit."""

import itertools
import math

import numpy as np
import pytest
import torch

from isthmus.core.statistics import over_networks, over_pairs
from isthmus.studies import MatchingError, Observation, Table, effects, holm, judge, parse_design
from isthmus.studies.factors.table import sample
from isthmus.studies.factors.verdicts import _outcome


def table(values, *, loss=None, diverged=(), factors=None, ordered=("rate",)):
    """values[rate][width][replicate] as a table of one measure."""
    factors = factors or {"rate": (0.1, 0.2, 0.3), "width": ("a", "b")}
    found = []
    for i, rate in enumerate(factors["rate"]):
        for j, width in enumerate(factors["width"]):
            for unit, value in enumerate(values[i][j]):
                lost = (i, j, unit) in diverged
                levels = {"rate": rate, "width": width}
                for measure, number in (("training_loss", loss(i, j) if loss else 0.01), ("barrier", float(value))):
                    shown = None if lost else number
                    found.append(Observation(levels, (unit,), (f"{i}{j}{unit}",), measure, shown, "nats", lost))
    return Table("planted", factors, ordered, tuple(found), len(diverged), len(found) // 2, 0)


@pytest.fixture
def planted():
    """barrier = replicate's own level + 2·rate's number + 3 for width b + 5 more where rate is last and width b."""
    draw = np.random.default_rng(0)
    own = draw.normal(size=6) * 10
    return np.array(
        [[own + 2 * i + 3 * j + 5 * (i == 2) * j + draw.normal(size=6) * 0.01 for j in range(2)] for i in range(3)]
    )


def test_contrasts_are_paired_by_replicate(planted):
    found = effects(table(planted))
    width = next(c for c in found.contrasts if c.measure == "barrier" and c.factor == "width")
    differences = (planted[:, 1] - planted[:, 0]).mean(0)
    expected = over_networks(torch.tensor(differences))
    assert width.difference.estimate == pytest.approx(3 + 5 / 3, abs=0.02)
    assert (width.difference.low, width.difference.high) == pytest.approx((expected.low, expected.high))
    assert width.difference.networks == 6
    # Unpaired, the replicates' own levels (deviation 10) would drown a difference of 5.
    assert width.p < 1e-6


def test_the_p_value_is_the_paired_t_test_s(planted):
    from scipy import stats

    noisy = planted + np.random.default_rng(1).normal(size=planted.shape) * 4
    found = effects(table(noisy))
    for contrast in (c for c in found.contrasts if c.measure == "barrier" and c.factor == "rate"):
        first, second = ((0.1, 0.2, 0.3).index(level) for level in (contrast.first, contrast.second))
        oracle = stats.ttest_rel(noisy[second].mean(0), noisy[first].mean(0))
        assert contrast.p == pytest.approx(oracle.pvalue, rel=1e-6)
        assert contrast.p_corrected >= contrast.p


def test_units_that_all_differ_alike_are_no_certainty():
    """Two replicates with .1 more each, up to rounding: one sign test in two says so by chance."""
    for units, p in ((2, 0.5), (3, 0.25), (6, 1 / 32)):
        own = np.arange(units) / 10
        values = [[own, own + 0.1], [own + 0.2, own + 0.3]]
        found = effects(table(values, factors={"rate": (0.1, 0.2), "width": ("a", "b")}, ordered=()))
        assert [c.p for c in found.contrasts if c.measure == "barrier"] == pytest.approx([p, p])


def test_two_replicates_of_a_coarse_measure_keep_the_level():
    """Errors of 20 examples without any effect: t alone finds one in a tenth of studies."""
    draw, found = np.random.default_rng(0), 0
    for _ in range(600):
        values = draw.binomial(20, 0.1, size=(2, 1, 2)) / 20
        result = effects(table(values, factors={"rate": (0.1, 0.2), "width": ("a",)}, ordered=()))
        found += any(c.p <= 0.05 for c in result.contrasts if c.measure == "barrier")
    assert found <= 46  # 5 % of 600 is 30; the binomial goes beyond 46 once in 500


def test_the_interaction_is_found_where_it_was_put(planted):
    (two,) = (t for t in effects(table(planted)).two_way if t.measure == "barrier")
    assert (two.rows, two.columns) == ("rate", "width")
    (none,), (some,) = two.interactions
    assert (some.factor, some.first, some.second, some.depends_on, some.here, some.there) == (
        "rate", 0.1, 0.3, "width", "a", "b",
    )  # fmt: skip
    assert [none.difference.estimate, some.difference.estimate] == pytest.approx([0, 5], abs=0.05)
    assert none.difference.low < 0 < none.difference.high
    assert some.p_corrected == pytest.approx(2 * some.p)  # Holm over the two
    assert some.p_corrected < 1e-6 < none.p == none.p_corrected
    assert two.means[2][1].estimate == pytest.approx(planted[2, 1].mean())
    assert [mean.estimate for mean in two.row_means] == pytest.approx(planted.mean((1, 2)).tolist())
    assert [mean.estimate for mean in two.column_means] == pytest.approx(planted.mean((0, 2)).tolist())


def test_the_interaction_s_p_value_is_the_t_test_s_of_differences_of_differences(planted):
    from scipy import stats

    noisy = planted + np.random.default_rng(2).normal(size=planted.shape) * 4
    (two,) = (t for t in effects(table(noisy)).two_way if t.measure == "barrier")
    for row, (one,) in enumerate(two.interactions, start=1):
        oracle = stats.ttest_1samp((noisy[row, 1] - noisy[0, 1]) - (noisy[row, 0] - noisy[0, 0]), 0)
        assert one.p == pytest.approx(oracle.pvalue, rel=1e-6)


def test_the_trend_is_the_matched_one_and_only_for_ordered_factors(planted):
    trends = [t for t in effects(table(planted)).trends if t.measure == "barrier"]
    assert [t.factor for t in trends] == ["rate"]
    assert trends[0].trend.statistic == pytest.approx(1)
    assert trends[0].p_corrected < 0.001


def test_diverged_networks_are_left_out_with_a_count(planted):
    spoiled = planted.copy()
    spoiled[2, 1, 3] = 1e9
    found = effects(table(spoiled, diverged={(2, 1, 3)}))
    cell = next(c for c in found.cells if c.measure == "barrier" and c.levels == {"rate": 0.3, "width": "b"})
    assert (cell.excluded, cell.interval.networks) == (1, 5)
    assert cell.interval.estimate == pytest.approx(np.delete(planted[2, 1], 3).mean())
    rates = {(c.first, c.second): c for c in found.contrasts if c.measure == "barrier" and c.factor == "rate"}
    assert rates[0.1, 0.2].difference.networks == 6
    assert rates[0.1, 0.3].difference.networks == 5
    assert found.diverged == 1
    trend = next(t for t in found.trends if t.measure == "barrier")
    assert "Jonckheere" in trend.trend.method


def test_a_cell_with_nothing_left_has_no_number(planted):
    found = effects(table(planted, diverged={(0, 0, unit) for unit in range(6)}))
    cell = next(c for c in found.cells if c.measure == "barrier" and c.levels == {"rate": 0.1, "width": "a"})
    assert math.isnan(cell.interval.estimate)
    assert "left out" in cell.interval.method


def test_a_trend_is_that_of_the_levels_that_are_left():
    draw = np.random.default_rng(4)
    values = np.array([[draw.normal(size=6) + i for _ in range(2)] for i in range(4)])
    factors = {"rate": (0.1, 0.2, 0.3, 9.0), "width": ("a", "b")}
    lost = {(3, j, unit) for j in range(2) for unit in range(6)}
    (trend,) = [
        t.trend for t in effects(table(values, diverged=lost, factors=factors)).trends if t.measure == "barrier"
    ]
    (right,) = [t.trend for t in effects(table(values[:3])).trends if t.measure == "barrier"]
    assert (trend.statistic, trend.p) == (right.statistic, right.p)
    assert trend.method.endswith(", without 9.0")


def test_matching_is_reported_and_can_be_required(planted):
    uneven = table(planted, loss=lambda i, j: 0.01 + 0.1 * i)
    matching = effects(uneven).matching
    assert matching is not None
    assert (matching.matched, matching.spread) == (False, pytest.approx(0.2))
    assert matching.high == "rate=0.3, width=a"
    with pytest.raises(MatchingError, match=r"within 0.05, but its mean is 0.01 at rate=0.1.* 0.21 at rate=0.3"):
        effects(uneven, require_matching=True)
    assert effects(uneven, tolerance=0.3, require_matching=True).matching.matched


def pairs_table(matrices, *, diverged=()):
    found = []
    for level, matrix in matrices.items():
        for a, b in itertools.combinations(range(len(matrix)), 2):
            lost = (level, a) in diverged or (level, b) in diverged
            value = None if lost else float(matrix[a][b])
            found.append(Observation({"x": level}, (a, b), (f"{level}{a}", f"{level}{b}"), "barrier", value, "", lost))
    return Table("pairs", {"x": tuple(matrices)}, (), tuple(found), len(diverged), 0, 0)


def test_pairs_of_one_set_of_networks_have_intervals_over_networks():
    draw = torch.Generator().manual_seed(0)
    first, shift = (
        torch.rand(6, 6, generator=draw, dtype=torch.float64),
        torch.rand(6, 6, generator=draw).double() * 0.1,
    )
    matrices = {"a": (first + first.T), "b": (first + first.T + 1 + shift + shift.T)}
    found = effects(pairs_table(matrices))
    expected = over_pairs(matrices["a"])
    assert found.cells[0].interval.estimate == pytest.approx(expected.estimate)
    assert found.cells[0].interval.high == pytest.approx(expected.high)
    (contrast,) = found.contrasts
    assert contrast.difference.estimate == pytest.approx(over_pairs(1 + shift + shift.T).estimate)
    assert contrast.difference.networks == 6
    assert found.trends == ()


def test_a_diverged_network_leaves_all_its_pairs():
    matrices = {"a": torch.ones(6, 6), "b": torch.ones(6, 6) * 2}
    found = sample(pairs_table(matrices, diverged={("a", 2)}), "barrier", {"x": "a"})
    assert (found.units, found.excluded) == ((0, 1, 3, 4, 5), 5)


def test_an_average_over_cells_needs_a_unit_in_each(planted):
    found = sample(table(planted, diverged={(0, 1, 0)}), "barrier", {"rate": 0.1})
    assert found.units == (1, 2, 3, 4, 5)
    assert found.values.tolist() == pytest.approx(planted[0].mean(0)[1:].tolist())


@pytest.mark.parametrize(
    ("direction", "sign", "p", "outcome"),
    [
        ("rises", 1, 0.01, "supported"),
        ("rises", -1, 0.01, "contradicted"),
        ("falls", -1, 0.01, "supported"),
        ("falls", 1, 0.01, "contradicted"),
        ("differs", -1, 0.01, "supported"),
        ("rises", 1, 0.2, "undecided"),
        ("rises", 1, math.nan, "undecided"),
    ],
)
def test_a_claim_is_decided_by_its_direction(direction, sign, p, outcome):
    assert _outcome(direction, sign, p) == outcome


def verdicts_of(found, *claims):
    design = parse_design(
        {
            "name": "planted",
            "factors": {"rate": [0.1, 0.2, 0.3], "width": {"levels": {"a": {}, "b": {"epochs": 2}}}},
            "claims": [{"words": "w", "measure": "barrier", **claim} for claim in claims],
        }
    )
    return judge(design, found).verdicts


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        ({"factor": "rate", "direction": "rises"}, "supported"),
        ({"factor": "rate", "direction": "falls"}, "contradicted"),
        ({"factor": "rate", "direction": "falls", "between": [0.3, 0.1]}, "supported"),
        ({"factor": "width", "direction": "falls", "between": ["b", "a"]}, "supported"),
        ({"factor": "width", "direction": "falls", "between": ["a", "b"]}, "contradicted"),
        ({"factor": "width", "direction": "rises", "at": {"rate": 0.1}}, "supported"),
        ({"factor": "rate", "direction": "falls", "between": [0.1, 0.3], "at": {"width": "a"}}, "contradicted"),
        ({"factor": "rate", "between": [0.1, 0.3], "depends_on": "width", "direction": "rises"}, "supported"),
        ({"factor": "rate", "between": [0.3, 0.1], "depends_on": "width", "direction": "rises"}, "contradicted"),
        ({"factor": "rate", "between": [0.1, 0.2], "depends_on": "width"}, "undecided"),
        ({"factor": "width", "depends_on": "rate", "where": [0.3, 0.1], "direction": "falls"}, "supported"),
    ],
)
def test_verdicts_follow_the_order_that_the_claim_names(planted, claim, outcome):
    (verdict,) = verdicts_of(table(planted), claim)
    assert (verdict.outcome, verdict.measure) == (outcome, "barrier")


def test_a_level_whose_networks_all_diverged_is_said_and_not_printed_as_a_number(planted):
    gone = {(2, width, unit) for width in range(2) for unit in range(6)}
    between = [0.1, 0.3]
    found = verdicts_of(
        table(planted, diverged=gone),
        {"factor": "rate", "between": between}, {"factor": "rate", "between": between, "at": {"width": "a"}},
        {"factor": "rate", "between": between, "depends_on": "width"},
    )  # fmt: skip
    for verdict in found:
        assert verdict.outcome == "not measured"
        assert verdict.evidence.startswith("a level has no value: its networks diverged")


def test_what_is_asked_beside_main_effects_is_corrected_with_its_own_kind(planted):
    from scipy import stats

    noisy = planted + np.random.default_rng(3).normal(size=planted.shape) * 2
    asked = [{"factor": "width", "at": {"rate": rate}} for rate in (0.1, 0.2, 0.3)]
    found = verdicts_of(
        table(noisy), *asked, {"factor": "width"}, {"factor": "width", "depends_on": "rate", "where": [0.1, 0.3]}
    )
    single = [stats.ttest_rel(noisy[row, 1], noisy[row, 0]).pvalue for row in range(3)]
    assert [v.p_corrected for v in found[:3]] == pytest.approx(holm(single))
    alone = stats.ttest_1samp((noisy[2, 1] - noisy[2, 0]) - (noisy[0, 1] - noisy[0, 0]), 0).pvalue
    assert found[4].p_corrected == pytest.approx(alone)
    assert found[0].evidence.startswith("b minus a at rate=0.1: ")
    assert found[4].evidence.startswith("(b minus a) at 0.3 minus the same at 0.1: ")


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_value_that_is_not_finite_counts_nowhere(planted, lost):
    """A table made by hand may hold one; the store keeps none."""
    values = planted.copy()
    values[1, 0, 2] = lost
    found = effects(table(values))
    rates = [c for c in found.contrasts if c.measure == "barrier" and c.factor == "rate"]
    assert [c.difference.networks for c in rates] == [5, 6, 5]  # without replicate 2 where .2 takes part
    assert all(math.isfinite(c.difference.estimate) for c in rates)
    assert sum(cell.excluded for cell in found.cells if cell.measure == "barrier") == 1
