"""K_KH, cophenetic correlation and average linkage against exact trees, known clouds and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist, squareform

from isthmus.cluster import cophenetic_correlation, ultrametric_gap
from isthmus.cluster.tree import cophenetic_correlations, cophenetic_distances
from isthmus.core.errors import DataError, SettingError
from isthmus.core.randomness import child


def _exact_tree(branches=(3, 2, 2)) -> np.ndarray:
    """Distance between leaves of a tree: the height of their last common ancestor."""
    leaves = math.prod(branches)
    distances = np.zeros((leaves, leaves))
    for a in range(leaves):
        for b in range(leaves):
            if a != b:
                sizes = [math.prod(branches[level + 1 :]) for level in range(len(branches))]
                parted = next(level for level, size in enumerate(sizes) if a // size != b // size)
                distances[a, b] = len(branches) - parted
    return distances


def _clouds(networks: int, dimensions: int, draws: int) -> np.ndarray:
    generator = child(0, "clouds")
    points = torch.randn(draws, networks, dimensions, generator=generator, dtype=torch.float64)
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def test_an_exact_tree_has_gap_zero_and_cophenetic_one():
    for branches in ((3, 2, 2), (2, 2, 2, 2), (5, 3)):
        tree = _exact_tree(branches)
        assert ultrametric_gap(torch.from_numpy(tree)) == pytest.approx(0.0, abs=1e-12)
        assert cophenetic_correlation(torch.from_numpy(tree)) == pytest.approx(1.0, abs=1e-12)


def test_high_dimensional_gaussians_have_gap_three_quarters():
    gaps = [ultrametric_gap(torch.from_numpy(d)) for d in _clouds(40, 2000, 20)]
    assert np.mean(gaps) == pytest.approx(0.75, abs=0.03)
    # The trap: a ratio with d₁ below the line says "ultrametric" of the very same points.
    d = np.sort(squareform(_clouds(40, 2000, 1)[0]))
    assert (d[-1] - d[0]) / d[0] < 0.25


def test_the_gap_equals_its_definition_triangle_by_triangle():
    distances = _clouds(9, 4, 1)[0]
    total, count = 0.0, 0
    for a in range(9):
        for b in range(a + 1, 9):
            for c in range(b + 1, 9):
                sides = sorted([distances[a, b], distances[a, c], distances[b, c]])
                total, count = total + sides[2] - sides[1], count + 1
    expected = total / count / np.std(squareform(distances))
    assert ultrametric_gap(torch.from_numpy(distances)) == pytest.approx(expected, abs=1e-12)


def test_many_networks_use_drawn_triangles():
    distances = torch.from_numpy(_clouds(90, 50, 1)[0])
    drawn = [ultrametric_gap(distances, generator=child(seed)) for seed in range(4)]
    assert len(set(drawn)) == 4
    assert np.std(drawn) < 0.01
    assert ultrametric_gap(distances) == ultrametric_gap(distances)


@pytest.mark.parametrize("networks", [3, 4, 9, 20])
def test_average_linkage_in_batches_equals_scipy(networks):
    batch = _clouds(networks, 3, 6)
    heights = cophenetic_distances(batch)
    correlations = cophenetic_correlations(batch)
    for distances, found, correlation in zip(batch, heights, correlations, strict=True):
        condensed = squareform(distances, checks=False)
        expected_correlation, expected = cophenet(linkage(condensed, "average"), condensed)
        np.testing.assert_allclose(squareform(found, checks=False), expected, rtol=1e-10)
        assert correlation == pytest.approx(expected_correlation, abs=1e-12)
    assert ((batch >= 0) & (batch < np.inf)).all()


def test_the_cophenetic_correlation_of_a_cloud_is_near_its_known_value():
    values = [cophenetic_correlation(torch.from_numpy(d)) for d in _clouds(16, 1000, 40)]
    assert np.mean(values) == pytest.approx(0.63, abs=0.08)
    assert pdist(np.zeros((2, 1))).shape == (1,)


@pytest.mark.parametrize(
    ("distances", "error", "words"),
    [
        (torch.zeros(2, 2), SettingError, "at least 3 solutions, got 2"),
        (1 - torch.eye(4), DataError, "all equal"),
        (torch.zeros(3, 4), DataError, "square"),
        (torch.full((3, 3), math.nan), DataError, "finite"),
        (-torch.ones(3, 3), DataError, "non-negative"),
        (torch.ones(3, 3) - 1.5 * torch.eye(3), DataError, "non-negative"),
        (torch.rand(4, 4), DataError, "symmetric"),
    ],
)
def test_bad_distances_are_refused(distances, error, words):
    for measure in (ultrametric_gap, cophenetic_correlation):
        with pytest.raises(error, match=words):
            measure(distances)
