"""Which solutions belong together, as the page and the shell tell it."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from isthmus.report.glass import families, family_lines
from isthmus.report.words import words_for


@pytest.mark.parametrize("sizes", [(4, 4, 4), (2, 5), (1, 3, 3), (3, 2, 2, 2)])
def test_families_that_lie_apart_are_found_as_scipy_cuts_them(sizes):
    generator = np.random.default_rng(0)
    centres = 10 * np.eye(len(sizes))
    label = np.repeat(np.arange(len(sizes)), sizes)
    order = generator.permutation(len(label))
    points = (centres[label] + 0.1 * generator.standard_normal((len(label), len(sizes))))[order]
    merges = linkage(points, "average")
    found = families(merges.tolist(), len(label))
    cut = fcluster(merges, t=5.0, criterion="distance")
    assert sorted(map(tuple, found)) == sorted(tuple(np.flatnonzero(cut == one)) for one in np.unique(cut))
    assert len(found) == len(sizes)


def arrangement(label: str, *, hierarchical: bool) -> dict:
    merges = [[0, 1, 0.1, 2], [2, 3, 0.2, 2], [4, 5, 0.9, 4]]
    verdict = {"hierarchical": hierarchical}
    return {"label": label, "verdict": verdict, "states": {"merges": merges}, "overlaps": {"names": list("abcd")}}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_families_are_named_where_there_is_a_hierarchy_and_never_for_a_control(language):
    found = [
        arrangement("raw", hierarchical=True),
        arrangement("pairwise", hierarchical=False),
        arrangement("planted", hierarchical=True),
        {**arrangement("function", hierarchical=True), "verdict": None},
    ]
    (line,) = family_lines({"arrangements": found}, words_for(language))
    assert "a, b" in line
    assert "c, d" in line
