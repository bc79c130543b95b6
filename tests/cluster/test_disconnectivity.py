"""Disconnectivity graphs by hand, against a brute-force minimax, and refusals."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from isthmus.cluster import disconnectivity, minimax, ultrametric_gap
from isthmus.core.errors import DataError, SettingError
from isthmus.core.randomness import child

LOSS = [0.1, 0.2, 0.15, 0.3]
HEIGHTS = torch.tensor(
    [[0.1, 0.5, 2.0, 2.5], [0.5, 0.2, 1.8, 2.2], [2.0, 1.8, 0.15, 0.9], [2.5, 2.2, 0.9, 0.3]], dtype=torch.float64
)


def test_a_graph_by_hand():
    linear = disconnectivity(LOSS, HEIGHTS, names=["a", "b", "c", "d"])
    # {a,b} join at .5, {c,d} at .9; average linkage joins them at the mean of the four ways between.
    torch.testing.assert_close(linear.merges[:, 2], torch.tensor([0.5, 0.9, (2.0 + 2.5 + 1.8 + 2.2) / 4]).double())
    assert not linear.ultrametric_by_construction
    assert linear.cophenetic < 1
    lowest = disconnectivity(LOSS, HEIGHTS, source="minimax")
    torch.testing.assert_close(lowest.merges[:, 2], torch.tensor([0.5, 0.9, 1.8]).double())
    assert lowest.ultrametric_by_construction
    assert lowest.cophenetic == 1.0
    assert set(lowest.order[:2]) in ({0, 1}, {2, 3})


def _random_heights(size: int) -> torch.Tensor:
    heights = torch.rand(size, size, generator=child(0), dtype=torch.float64) + 1
    heights = (heights + heights.T) / 2
    return heights.fill_diagonal_(0.5)


def test_minimax_is_the_lowest_pass_over_all_chains():
    heights = _random_heights(5)
    found = minimax(heights)
    for a, b in itertools.combinations(range(5), 2):
        others = [node for node in range(5) if node not in (a, b)]
        best = min(
            max(float(heights[x, y]) for x, y in itertools.pairwise((a, *chain, b)))
            for length in range(4)
            for chain in itertools.permutations(others, length)
        )
        assert float(found[a, b]) == pytest.approx(best)
    merges = linkage(squareform(heights.fill_diagonal_(0).numpy(), checks=False), "single")
    assert sorted({round(float(v), 12) for v in found[~torch.eye(5, dtype=torch.bool)]}) == sorted(
        {round(float(v), 12) for v in merges[:, 2]}
    )


def test_minimax_heights_are_ultrametric_whatever_the_landscape():
    """Why they are labelled: random heights without any structure come out as a perfect tree."""
    heights = _random_heights(12)
    above = minimax(heights).fill_diagonal_(0)
    assert ultrametric_gap(above) == pytest.approx(0.0, abs=1e-12)
    assert ultrametric_gap(heights.fill_diagonal_(0)) > 0.5


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: disconnectivity([0.1], torch.zeros(1, 1)), SettingError, "at least 2 solutions"),
        (lambda: disconnectivity(LOSS, HEIGHTS, source="best"), SettingError, "linear or minimax"),
        (lambda: disconnectivity(LOSS, HEIGHTS, names=["a"]), SettingError, "one for each of 4"),
        (lambda: disconnectivity(LOSS, HEIGHTS[:3]), DataError, "4 × 4 matrix"),
        (lambda: disconnectivity(LOSS, HEIGHTS / 0), DataError, "must be finite"),
        (lambda: disconnectivity(LOSS, HEIGHTS - 1.0), DataError, "pass losses, not barriers"),
    ],
)
def test_bad_heights_are_refused(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_two_solutions_make_the_smallest_graph():
    graph = disconnectivity([0.0, 0.1], torch.tensor([[0.0, 0.4], [0.4, 0.1]]))
    assert graph.merges.tolist() == [[0.0, 1.0, pytest.approx(0.4), 2.0]]
