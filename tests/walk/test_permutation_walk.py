"""The permutation walk: same function elsewhere, as many units moved as asked for, barriers that rise with k."""

from __future__ import annotations

import pytest
import torch
from tests.walk.small import classifier, symmetry, trained

from isthmus.core import weights as w
from isthmus.core.errors import SettingError, SymmetryError
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.walk import PermutationWalk, partial_permutation, permutation_barriers


def _midpoint_barrier(objective):
    return lambda start, end: (
        objective(w.lerp(start, end, 0.5)).loss - 0.5 * (objective(start).loss + objective(end).loss)
    )


@pytest.mark.parametrize("moved", [0, 2, 3, 7, 8])
def test_exactly_k_units_move(moved):
    generator = child(0, "moved", moved)
    for _ in range(20):
        permutation = partial_permutation(symmetry(), group="0.weight", moved=moved, generator=generator)
        assert int((permutation["0.weight"] != torch.arange(8)).sum()) == moved


def test_partial_permutations_are_uniform():
    """Of three units moved among three there are two derangements; of two among three, three exchanges."""
    generator = child(1)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(1200):
        index = partial_permutation(symmetry(3), group="0.weight", moved=2, generator=generator)["0.weight"]
        counts[tuple(index.tolist())] = counts.get(tuple(index.tolist()), 0) + 1
    assert len(counts) == 3
    # 400 ± 16: five standard errors.
    assert all(abs(count - 400) < 82 for count in counts.values())


@pytest.mark.parametrize("moved", [1, 9, -2])
def test_impossible_numbers_are_refused(moved):
    with pytest.raises(SettingError, match=r"moved must be 0 or lie in 2 … 8"):
        partial_permutation(symmetry(), group="0.weight", moved=moved, generator=child(0))
    with pytest.raises(SettingError, match="moved must lie in"):
        PermutationWalk(symmetry(), moved=moved)


def test_the_function_stays_and_the_place_changes():
    objective = classifier(dtype=torch.float64)
    walk = PermutationWalk(symmetry(), moved=2, barrier=_midpoint_barrier(objective))(
        objective, objective.network.weights, steps=12, generator=child(0), walkers=3, every=2, keep=[12]
    )
    torch.testing.assert_close(walk.loss, walk.loss[:, :1].expand_as(walk.loss), rtol=1e-12, atol=0)
    assert walk.steps.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert bool((walk.distance[:, 1:] > 0).any(1).all())
    assert walk.extras["displaced"].shape == walk.extras["barrier"].shape == (3, 7)
    assert float(walk.extras["barrier"][:, 0].abs().max()) == 0.0
    for index in range(3):
        there = w.pick(walk.kept[12], index)
        assert float(walk.overlap[index, -1]) == pytest.approx(w.cosine(there, objective.network.weights))
        assert float(walk.extras["barrier"][index, -1]) == pytest.approx(
            _midpoint_barrier(objective)(objective.network.weights, there)
        )
    assert walk.settings["group"] == "0.weight"


def test_barriers_rise_with_the_share_of_units_that_move():
    objective = classifier(hidden=16, examples=200, seed=3)
    start = trained(objective, steps=80)
    found = permutation_barriers(
        start, symmetry(16), group="0.weight", moved=(0, 2, 16), barrier=_midpoint_barrier(objective),
        generator=child(0), draws=12,
    )  # fmt: skip
    none, few, all_ = found.intervals()
    assert none.estimate == 0.0
    assert few.high < all_.low
    assert found.share == (0.0, 2 / 16, 1.0)
    assert bool((found.overlap[0] == 1).all())
    assert float(found.overlap[2].mean()) < float(found.overlap[1].mean()) < 1


def test_groups_that_are_not_there_are_refused():
    with pytest.raises(SymmetryError, match=r"\(0\.weight\), got 7\.weight"):
        partial_permutation(symmetry(), group="7.weight", moved=2, generator=child(0))
    with pytest.raises(SymmetryError, match="got none"):
        PermutationWalk(Symmetry((), {"a": (2,)}))
    with pytest.raises(SettingError, match="draws"):
        permutation_barriers(
            {}, symmetry(), group="0.weight", moved=(2,), barrier=lambda a, b: 0.0, generator=child(0), draws=0
        )
