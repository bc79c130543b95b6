"""What weight matching keeps, shares among threads or makes when needed changes no answer."""

from __future__ import annotations

import pytest
import torch
from tests.align.networks import mlp, residual, weights_of
from torch import Tensor

from isthmus.align import WeightMatching, held
from isthmus.align import ascent as ascent_module
from isthmus.align.ascent import Ascent
from isthmus.align.costs import Costs
from isthmus.align.landscape import Landscape
from isthmus.align.starts import anchored
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry


def test_kept_similarities_equal_fresh_ones_after_any_moves() -> None:
    symmetry = residual(16, 24, 3)
    landscape = Landscape.of(symmetry, weights_of(symmetry, 0, torch.float64), weights_of(symmetry, 1, torch.float64))
    ascent = Ascent.at(landscape, symmetry.identity(), generator=child(0, "order"))
    generator = child(1, "moves")
    updated = 0
    for _ in range(30):
        for tree in landscape.trees:
            fresh = landscape.similarity(ascent.current)([tree.root], [tree.root])[0, 0]
            torch.testing.assert_close(ascent.costs.similarity(tree, ascent.current), fresh, rtol=1e-9, atol=1e-11)
            updated += ascent.costs._kept[tree.name].updates > 0
        tree = landscape.trees[int(torch.randint(len(landscape.trees), (), generator=generator))]
        index = torch.arange(tree.root.size)
        pair = torch.randperm(tree.root.size, generator=generator)[:2]
        index[pair] = index[pair.flip(0)]
        ascent.take(tree, {tree.name: index})
    assert updated > 20  # the short way was really taken
    assert isinstance(ascent.costs, Costs)


def _wide_blocks() -> tuple[Symmetry, dict[str, Tensor], dict[str, Tensor]]:
    """Blocks wide enough for threads, around a stream: trees that share nothing but the stream."""
    symmetry = residual(24, 260, 3)
    return symmetry, weights_of(symmetry, 0), weights_of(symmetry, 1)


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    symmetry, moving, fixed = _wide_blocks()
    started: list[int] = []
    inside = ascent_module.in_threads
    monkeypatch.setattr(
        ascent_module, "in_threads", lambda *given, threads: started.append(threads) or inside(*given, threads=threads)
    )
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            started.clear()
            found.append(WeightMatching(tolerance=0)(symmetry, moving, fixed, generator=child(0, "match")))
            assert max(started) == threads  # the solves were really handed to threads
    finally:
        torch.set_num_threads(before)
    assert found[1].permutation.same_as(found[0].permutation)
    assert found[1].history == pytest.approx(found[0].history, rel=1e-12)  # sums of products, in another order


def test_solving_at_once_is_solving_one_after_the_other() -> None:
    """A sweep by levels of trees that share no tensor ends where a sweep in the plain order does."""
    symmetry, moving, fixed = _wide_blocks()
    landscape = Landscape.of(symmetry, moving, fixed)
    ascents = [Ascent.at(landscape, symmetry.identity(), generator=child(0, "order")) for _ in range(2)]
    order = [landscape.trees[place] for place in torch.randperm(4, generator=child(1, "order")).tolist()]
    levels = ascents[0]._levels(order)
    assert sorted(tree.name for level in levels for tree in level) == sorted(tree.name for tree in order)
    assert 1 < len(levels) < len(order)
    for level in levels:
        assert not any(second.name in landscape.neighbours[first.name] for first in level for second in level)
        ascents[0]._settle(level)
    for tree in order:
        ascents[1]._settle([tree])
    assert ascents[0].permutation.same_as(ascents[1].permutation)
    assert ascents[0].objective == ascents[1].objective


def test_the_first_pass_is_not_done_twice() -> None:
    """Trees that all their tensors spoke for are settled, unless a neighbour moved after them."""
    symmetry = mlp(8, 12, 3)
    landscape = Landscape.of(symmetry, weights_of(symmetry, 0), weights_of(symmetry, 1))
    assert not anchored(landscape, generator=child(0, "order")).unsettled
    chain = mlp(8, 12, 12, 12, 3)  # the middle one is solved last, with both its sides in place
    landscape = Landscape.of(chain, weights_of(chain, 0), weights_of(chain, 1))
    ascent = anchored(landscape, generator=child(0, "order"))
    last = ascent.landscape.trees[-1].name if "layer 2" not in ascent.unsettled else "layer 1"
    assert 0 < len(ascent.unsettled) < 3, last
    for tree in landscape.trees:  # what is said to be settled would really not move
        if tree.name not in ascent.unsettled:
            assert not ascent._proposed(tree)


def test_tensors_that_are_made_when_needed_give_the_same_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for copies, with room for the last few, and with room for all: one result."""
    symmetry, moving, fixed = _wide_blocks()
    moving, fixed = ({n: t.to(torch.bfloat16) for n, t in weights.items()} for weights in (moving, fixed))
    kept = WeightMatching()(symmetry, moving, fixed, generator=child(0, "match"))
    monkeypatch.setattr(held, "ROOM", 0)
    made = []
    for room in (0, 200_000, 10_000_000):
        monkeypatch.setattr(held, "RECENT", room)
        made.append(WeightMatching()(symmetry, moving, fixed, generator=child(0, "match")))
    assert all(match.permutation.same_as(kept.permutation) for match in made)
    assert all(match.objective == kept.objective for match in made)


def test_what_is_kept_of_made_tensors_stays_in_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "RECENT", 100)
    calls: list[str] = []

    def make(name: str) -> Tensor:
        calls.append(name)
        return torch.full((10,), float(name))

    tensors = held.Made(["1", "2", "3", "4"], make)
    for name in "1121321":
        assert float(tensors[name][0]) == float(name)
    assert calls == ["1", "2", "3", "2", "1"]  # room for two of 40 bytes; the one asked for longest ago makes room
    assert held.Made(["1"], lambda name: torch.zeros(1000))["1"].shape == (1000,)
    with pytest.raises(KeyError):
        tensors["5"]
