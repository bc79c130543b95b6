"""The verdict on controls, its evidence, and what it refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from isthmus.cluster import (
    distribution,
    finite_size,
    gaussian_solutions,
    hierarchy,
    overlaps,
    planted_tree,
    recovery,
    states,
)
from isthmus.cluster.hierarchy import NullTest, _sentence, clouds, shared_parts, shuffled
from isthmus.core.errors import DataError, SettingError
from isthmus.core.randomness import child
from isthmus.core.record import to_json
from isthmus.core.statistics import Interval


def test_a_planted_tree_is_hierarchical_and_a_cloud_is_not():
    tree = hierarchy(overlaps(planted_tree(generator=child(0)).solutions), generator=child(1))
    assert tree.hierarchical
    assert tree.sentence.startswith("Hierarchical: K_KH 0.")
    assert tree.p == 1 / 200
    cloud = hierarchy(overlaps(gaussian_solutions(16, generator=child(0))), generator=child(1))
    assert not cloud.hierarchical
    assert cloud.sentence.startswith("Not hierarchical")
    assert tree.gap.high < cloud.gap.low
    assert {(test.measure, test.null) for test in tree.tests} == {
        (measure, null) for measure in ("gap", "cophenetic") for null in ("cloud", "shuffled")
    }
    assert json.loads(to_json(tree))["hierarchical"] is True


def test_the_planted_tree_has_the_overlaps_it_states():
    planted = planted_tree((3, 2, 2), shares=(0.2, 0.5, 0.3), entries=40_000, generator=child(3))
    q = overlaps(planted.solutions).q
    assert planted.overlaps == pytest.approx((0.0, 0.2, 0.7))
    assert planted.families == ((0,) * 4 + (1,) * 4 + (2,) * 4, (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5))
    assert float(q[0, 1]) == pytest.approx(0.7, abs=0.02)
    assert float(q[0, 2]) == pytest.approx(0.2, abs=0.02)
    assert float(q[0, 4]) == pytest.approx(0.0, abs=0.02)


def test_planted_solutions_can_have_a_networks_form():
    like = {"w": torch.zeros(6, 5), "b": torch.zeros(5, dtype=torch.bfloat16), "n": torch.tensor(3)}
    planted = planted_tree((2, 2), generator=child(0), like=like)
    assert {n: (t.shape, t.dtype) for n, t in planted.solutions[0].items()} == {
        n: (t.shape, t.dtype) for n, t in like.items()
    }
    assert gaussian_solutions(2, generator=child(0), like=like)[0]["w"].shape == (6, 5)


def test_structureless_points_have_the_mean_overlap_asked_for():
    q = overlaps(gaussian_solutions(12, generator=child(2), entries=20_000, overlap=0.3)).q
    assert float(q[~torch.eye(12, dtype=torch.bool)].mean()) == pytest.approx(0.3, abs=0.02)


def test_clouds_have_the_solutions_moments():
    """Mean and spread of the overlaps come back, for a tree and for a cloud with a common direction."""
    for solutions in (
        planted_tree(generator=child(0)).solutions,
        gaussian_solutions(16, generator=child(0), entries=200, overlap=0.4),
    ):
        q = overlaps(solutions).q
        rows, columns = np.triu_indices(16, 1)
        drawn = 1 - clouds(q, 400, generator=child(1))[:, rows, columns] ** 2 / 2
        values = q.numpy()[rows, columns]
        assert drawn.mean() == pytest.approx(values.mean(), abs=0.03)
        # The covariance of 16 points is itself drawn, so surrogates spread up to a third more than a cloud in 200
        # dimensions: the harder null of the two.
        assert values.std() < 1.1 * drawn.std(1).mean() < 1.6 * values.std()
        shared = shared_parts(q)
        products = (shared @ shared.T).numpy()[rows, columns]
        assert np.corrcoef(products, values)[0, 1] > 0.9


def test_shuffling_keeps_the_distances():
    distances = overlaps(gaussian_solutions(6, generator=child(0))).distances
    rows, columns = np.triu_indices(6, 1)
    expected = np.sort(distances.numpy()[rows, columns])
    batch = shuffled(distances, 5, generator=child(1))
    for matrix in batch:
        np.testing.assert_allclose(np.sort(matrix[rows, columns]), expected)
        np.testing.assert_array_equal(matrix, matrix.T)
    assert not np.array_equal(batch[0], batch[1])


def test_copies_and_diverged_solutions_are_judged_once_or_not_at_all():
    solutions = list(gaussian_solutions(8, generator=child(5)))
    copies = [*solutions, dict(solutions[0]), dict(solutions[0]), dict(solutions[1])]
    copies.append({"points": torch.full((1000,), math.nan)})
    verdict = hierarchy(overlaps(copies), generator=child(0))
    assert verdict.networks == 8
    assert verdict.left_out == ("11", "10", "8", "9")
    alone = hierarchy(overlaps(solutions), generator=child(0))
    assert verdict.gap.estimate == pytest.approx(alone.gap.estimate)


def test_verdicts_that_cannot_be_given_are_refused():
    three = overlaps(gaussian_solutions(3, generator=child(0)))
    with pytest.raises(SettingError, match="at least 4 different solutions, got 3"):
        hierarchy(three, generator=child(0))
    same = gaussian_solutions(1, generator=child(0)) * 6
    with pytest.raises(SettingError, match=r"got 1 \(5 left out"):
        hierarchy(overlaps(same), generator=child(0))
    with pytest.raises(DataError, match="all equal"):
        hierarchy(overlaps([{"w": row} for row in torch.eye(5)]), generator=child(0))
    with pytest.raises(SettingError, match="level must lie between"):
        hierarchy(three, generator=child(0), level=0.001)
    with pytest.raises(SettingError, match="branches must name"):
        planted_tree((), generator=child(0))
    with pytest.raises(SettingError, match="shares must be"):
        planted_tree((2, 2), shares=(0.5, 0.2), generator=child(0))
    with pytest.raises(SettingError, match="overlap must lie"):
        gaussian_solutions(3, overlap=1.0, generator=child(0))
    with pytest.raises(SettingError, match="count must be"):
        gaussian_solutions(0, generator=child(0))


def test_families_are_recovered_and_chance_scores_nothing():
    planted = planted_tree((4, 4), generator=child(0))
    found = overlaps(planted.solutions)
    hit = recovery(found, planted.families[0], generator=child(1))
    assert hit.score == 1.0
    assert hit.p == pytest.approx(1 / 1000)
    order = torch.randperm(16, generator=child(2)).tolist()
    miss = recovery(found, [planted.families[0][index] for index in order], generator=child(1))
    assert miss.p > 0.05
    assert abs(miss.score) < 0.4
    assert states(found).count == 4
    families = [*planted.families[0][1:], 0]  # four of sixteen stand with their neighbours
    some = recovery(found, families, generator=child(1))
    assert some.score == pytest.approx(adjusted_rand_score(families, some.state))
    assert 0.2 < some.score < 0.9
    assert states(found).state == hit.state
    with pytest.raises(SettingError, match="one for each of 16"):
        recovery(found, [0, 1], generator=child(0))
    with pytest.raises(SettingError, match="at least 2 families"):
        recovery(found, [0] * 16, generator=child(0))


def test_states_cut_by_count_and_height():
    found = overlaps(planted_tree((3, 2, 2), entries=20_000, generator=child(0)).solutions)
    for count in range(1, 13):
        assert states(found, count=count).count == count
    three = states(found, count=3)
    assert sorted(three.order) == list(range(12))
    # Drawn from left to right, groups lie side by side and are numbered in that order.
    assert [three.state[leaf] for leaf in three.order] == [0] * 4 + [1] * 4 + [2] * 4
    assert states(found, height=0.0).count == 12
    assert states(found, height=2.0).count == 1
    # Overlaps 1/3 and 2/3 mean distances √(4/3) and √(2/3); between them lie the three large families.
    assert states(found, height=1.25).state == three.state
    with pytest.raises(SettingError, match="not by both"):
        states(found, count=2, height=1.0)
    with pytest.raises(SettingError, match=r"count must lie in 1 … 12"):
        states(found, count=13)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.6, 0.9])
def test_structureless_points_spread_by_chance_alone(overlap):
    """At any mean overlap: the mean of 20 sets' excess is 1 within about 4 % (its own error is 1 to 2 %)."""
    excess = [
        distribution(
            overlaps(gaussian_solutions(16, generator=child(seed, "excess"), entries=2000, overlap=overlap)),
            generator=child(seed), draws=2,
        ).excess
        for seed in range(20)
    ]  # fmt: skip
    assert sum(excess) / 20 == pytest.approx(1, abs=0.08)


def test_the_distribution_is_a_density_with_its_mean():
    found = overlaps(gaussian_solutions(12, generator=child(0), entries=2000, overlap=0.3))
    result = distribution(found, generator=child(1), bins=15)
    widths = result.edges.diff()
    assert float((result.density * widths).sum()) == pytest.approx(1.0)
    assert bool((result.low <= result.density).all())
    assert bool((result.density <= result.high + 1e-9).all())
    wide = distribution(found, generator=child(1), bins=10, limits=(-1.0, 1.0))
    assert torch.allclose(wide.edges, torch.linspace(-1, 1, 11, dtype=torch.float64))
    assert float((wide.density * wide.edges.diff()).sum()) == pytest.approx(1.0)
    assert result.mean.low < 0.3 < result.mean.high
    assert 0.8 < result.excess < 1.25
    families = distribution(overlaps(planted_tree(generator=child(0)).solutions), generator=child(1))
    assert families.excess > 5
    three = distribution(overlaps(gaussian_solutions(3, generator=child(0))), generator=child(1))
    assert bool(torch.isnan(three.null).all())
    with pytest.raises(SettingError, match="at least 3 solutions"):
        distribution(overlaps(gaussian_solutions(2, generator=child(0))), generator=child(1))
    with pytest.raises(SettingError, match="bins"):
        distribution(found, generator=child(1), bins=0)


def test_finite_size_tells_a_cloud_from_families():
    sizes = (500, 2000, 8000)
    clouded = finite_size([overlaps(gaussian_solutions(12, generator=child(s), entries=s)) for s in sizes])
    assert clouded.exponent.low < -0.5 < clouded.exponent.high
    assert clouded.exponent.high < -0.2
    glassy = finite_size([overlaps(planted_tree(generator=child(s), entries=s).solutions) for s in sizes])
    assert glassy.exponent.estimate == pytest.approx(0.0, abs=0.05)
    with pytest.raises(SettingError, match="at least 2 sizes"):
        finite_size([overlaps(gaussian_solutions(5, generator=child(0)))])
    with pytest.raises(SettingError, match="at least 4 solutions"):
        finite_size([overlaps(gaussian_solutions(3, generator=child(0), entries=s)) for s in (10, 20)])


@pytest.mark.parametrize("found", [True, False])
def test_the_sentence_holds_the_solutions_against_the_cloud_s_figures(found):
    """The shuffled distances have other figures, which are no cloud's."""
    gap, cophenetic = (Interval(value, 0.0, 1.0, 0.95, 8, "by hand") for value in (0.11, 0.91))
    tests = (
        NullTest("gap", "shuffled", 0.11, 0.77, 0.0, 1.0, 0.01), NullTest("gap", "cloud", 0.11, 0.33, 0.0, 1.0, 0.02),
        NullTest("cophenetic", "cloud", 0.91, 0.55, 0.0, 1.0, 0.04),
        NullTest("cophenetic", "shuffled", 0.91, 0.66, 0.0, 1.0, 0.03),
    )  # fmt: skip
    numbers = "K_KH 0.11 against 0.33 for a structureless cloud, cophenetic correlation 0.91 against 0.55, p = 0.04"
    expected = f"Hierarchical: {numbers}." if found else f"Not hierarchical: {numbers} (cophenetic against cloud)."
    assert _sentence(found, gap, cophenetic, tests, 0.04) == expected
