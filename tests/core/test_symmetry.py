"""Laws of permutations, also of nested groups and of sites limited to a slice; the network itself is the judge."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.written_symmetries import CASES, column, drawn

from isthmus.core import weights as algebra
from isthmus.core.errors import SymmetryError
from isthmus.core.randomness import child
from isthmus.core.symmetry import Obstacle, Parent, Permutation, Site, Symmetry, UnitGroup


def rows(*lists):
    return torch.tensor(lists)


each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


seeds = st.integers(0, 2**31)


def permutation(case, seed):
    return case.symmetry.random(child(seed, "permutation"))


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first) and list(first) == list(second)


@each_case
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_the_function_stays(case, seed):
    moved = permutation(case, seed).apply(case.weights)
    assert torch.allclose(case.output(moved), case.output(case.weights), rtol=1e-10, atol=1e-10)


@each_case
def test_each_group_alone_moves_something_and_keeps_the_function(case):
    for group in case.symmetry.permutable:
        alone = Permutation(case.symmetry, {group.name: torch.arange(group.size).flip(0)})
        moved = alone.apply(case.weights)
        assert not same(moved, case.weights), group.name
        assert torch.allclose(case.output(moved), case.output(case.weights), rtol=1e-10, atol=1e-10), group.name


@each_case
@given(first=seeds, second=seeds)
@settings(max_examples=25, deadline=None)
def test_composition_is_one_after_the_other(case, first, second):
    p, q = permutation(case, first), permutation(case, second)
    assert same(q.after(p).apply(case.weights), q.apply(p.apply(case.weights)))


@each_case
@given(first=seeds, second=seeds, third=seeds)
@settings(max_examples=15, deadline=None)
def test_composition_is_associative(case, first, second, third):
    p, q, r = (permutation(case, seed) for seed in (first, second, third))
    assert r.after(q).after(p).same_as(r.after(q.after(p)))


@each_case
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_the_inverse_undoes(case, seed):
    p = permutation(case, seed)
    assert same(p.inverse().apply(p.apply(case.weights)), case.weights)
    assert same(p.apply(p.inverse().apply(case.weights)), case.weights)
    assert p.inverse().after(p).is_identity
    assert p.after(p.inverse()).is_identity
    assert p.inverse().inverse().same_as(p)


def test_alike_and_identity_are_said_of_every_group():
    """Many a test asks only whether two permutations are alike: one group that differs must be enough for a no."""
    case = CASES["attention"]
    still, groups = case.symmetry.identity(), case.symmetry.permutable
    total = sum(group.size for group in groups)
    assert (still.is_identity, still.fixed_share) == (True, 1.0)
    for group in groups:
        order = torch.arange(group.size)
        order[:2] = order[:2].flip(0)
        swapped = Permutation(case.symmetry, {group.name: order})
        assert not swapped.same_as(still), group.name
        assert not still.same_as(swapped), group.name
        assert not swapped.is_identity, group.name
        assert swapped.fixed_share == pytest.approx((total - 2) / total)


@each_case
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_norm_and_sorted_entries_stay(case, seed):
    moved = permutation(case, seed).apply(case.weights)
    assert algebra.norm(moved) == pytest.approx(algebra.norm(case.weights), rel=1e-12)
    for name, tensor in case.weights.items():
        assert torch.equal(moved[name].flatten().sort().values, tensor.flatten().sort().values)


@each_case
def test_stacked_weights_are_permuted_alike(case):
    p = permutation(case, 5)
    solutions = [drawn(case.module, seed) for seed in range(3)]
    stacked = p.apply(algebra.stack(solutions), stacked=True)
    for index, solution in enumerate(solutions):
        assert same(algebra.pick(stacked, index), p.apply(solution))


@each_case
def test_one_tensor_at_a_time_gives_the_same(case):
    p = permutation(case, 6)
    moved = p.apply(case.weights)
    for name, tensor in case.weights.items():
        assert torch.equal(p.moved(name, tensor), moved[name])


@each_case
def test_nothing_is_written_to_and_what_stays_is_handed_on(case):
    before = {name: tensor.clone() for name, tensor in case.weights.items()}
    extra = {**case.weights, "optimiser": torch.ones(3)}
    moved = permutation(case, 7).apply(extra)
    assert same(case.weights, before)
    assert moved["optimiser"] is extra["optimiser"]
    handed_on = case.symmetry.identity().apply(case.weights)
    assert all(handed_on[name] is case.weights[name] for name in case.weights)


def test_the_convention_is_gather():
    case = CASES["convolutional"]
    order = torch.tensor([2, 0, 3, 1])
    moved = Permutation(case.symmetry, {"first": order}).apply(case.weights)
    assert torch.equal(moved["0.weight"], case.weights["0.weight"][order])
    assert torch.equal(moved["1.running_var"], case.weights["1.running_var"][order])
    assert torch.equal(moved["3.weight"], case.weights["3.weight"][:, order])
    linear = Permutation(case.symmetry, {"second": torch.tensor([1, 2, 0])}).apply(case.weights)["5.weight"]
    assert torch.equal(linear[:, :9], case.weights["5.weight"][:, 9:18])


def test_nested_groups_permute_inside_first_and_then_the_units_move():
    case = CASES["deep"]
    inner_then_outer = Permutation(case.symmetry, {"outer": torch.tensor([1, 0]), "middle 0": torch.tensor([1, 2, 0])})
    source = torch.arange(12).view(2, 3, 2)
    expected = torch.stack([source[1], source[0][[1, 2, 0]]]).flatten()
    moved = inner_then_outer.apply(case.weights)
    assert torch.equal(moved["0.bias"], case.weights["0.bias"][expected])


def test_shares_and_identity():
    symmetry = CASES["convolutional"].symmetry
    assert symmetry.identity().is_identity
    assert symmetry.identity().fixed_share == 1.0
    swapped = Permutation(symmetry, {"first": torch.tensor([1, 0, 2, 3])})
    assert not swapped.is_identity
    assert swapped.fixed_share == pytest.approx(5 / 7)
    assert torch.equal(swapped["second"], torch.arange(3))
    some = symmetry.random(child(0, "some"), groups=["second"])
    assert torch.equal(some["first"], torch.arange(4))


def test_random_permutations_are_uniform():
    symmetry, generator = CASES["convolutional"].symmetry, child(0, "uniform")
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(1200):
        drawn_one = tuple(symmetry.random(generator)["second"].tolist())
        counts[drawn_one] = counts.get(drawn_one, 0) + 1
    # Six outcomes of probability 1/6: mean 200, deviation 13; six deviations.
    assert len(counts) == 6
    assert all(abs(number - 200) < 78 for number in counts.values())


def test_size_counts_every_group():
    log10 = lambda n: math.log10(math.factorial(n))  # noqa: E731
    assert CASES["convolutional"].symmetry.log10_size == pytest.approx(log10(4) + log10(3))
    assert CASES["grouped"].symmetry.log10_size == pytest.approx(log10(3) + 3 * (log10(2) + log10(4)))
    # The published count of a network with three hidden layers of 512 (floored for each layer): 3498.
    wide = UnitGroup("wide", 512, (Site("w", 0, column(512)),))
    one = Symmetry((wide,), {"w": (512,)})
    assert 3 * math.floor(one.log10_size) == 3498
    signs = UnitGroup("signs", 10, (Site("w", 0, column(10)),), kind="sign")
    assert Symmetry((signs,), {"w": (512,)}).log10_size == pytest.approx(10 * math.log10(2))


def test_tree_of_groups():
    symmetry = CASES["deep"].symmetry
    assert [symmetry.depth(group) for group in symmetry.permutable] == [0, 1, 1, *[2] * 6]
    assert symmetry.child("middle 1", 2, 0) == "inner 12"
    assert symmetry.child("middle 1", 3, 0) is None
    assert [group.name for group in symmetry.children("outer")] == ["middle 0", "middle 1"]
    assert [group.name for group in symmetry.children("middle 0", 1)] == ["inner 01"]
    carried = CASES["convolutional"].symmetry.by_name["first"]
    assert len(carried.matched) == len(carried.sites) - 2


W = {"w": (4, 3)}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([UnitGroup("a", 4, (Site("v", 0, column(4)),))], "unknown: v"),
        ([UnitGroup("a", 4, (Site("w", 2, column(4)),))], "must name an axis"),
        ([UnitGroup("a", 4, (Site("w", 0, column(3)),))], "one row for each unit"),
        ([UnitGroup("a", 4, (Site("w", 0, column(4, 1)),))], "different and within the axis"),
        ([UnitGroup("a", 2, (Site("w", 0, rows([0], [0])),))], "different and within the axis"),
        ([UnitGroup("a", 4, (Site("w", 0, column(4)),))] * 2, "doubled: a"),
        ([UnitGroup("a", 4, (Site("w", 0, column(4)),), parent=Parent("b", 0, 0))], "must be a group, got b"),
    ],
)
def test_symmetries_that_cannot_be_are_refused(groups, words):
    with pytest.raises(SymmetryError, match=words):
        Symmetry(tuple(groups), W)


def test_permutations_that_cannot_be_are_refused():
    symmetry = CASES["convolutional"].symmetry
    for indices, words in (
        ({"third": [0, 1]}, "unknown: third"),
        ({"first": [0, 1, 2, 2]}, "permutation of 0 … 3"),
        ({"first": [0, 1]}, "permutation of 0 … 3"),
    ):
        with pytest.raises(SymmetryError, match=words):
            Permutation(symmetry, {name: torch.tensor(index) for name, index in indices.items()})
    with pytest.raises(SymmetryError, match="of one symmetry"):
        symmetry.identity().after(CASES["deep"].symmetry.identity())


def test_weights_of_another_architecture_are_refused():
    case = CASES["convolutional"]
    lacking = {name: tensor for name, tensor in case.weights.items() if name != "3.bias"}
    with pytest.raises(SymmetryError, match=r"missing: 3\.bias"):
        case.symmetry.identity().apply(lacking)
    other = {**case.weights, "3.bias": torch.zeros(4)}
    with pytest.raises(SymmetryError, match=r"3\.bias is \(3,\) here, \(4,\) given"):
        case.symmetry.identity().apply(other)


def test_obstacles_are_records():
    assert Obstacle("sort", "no rule", ("w",)).to_dict()["operation"] == "sort"


def test_a_symmetry_is_told_by_its_size():
    site = Site("a", 0, torch.arange(4).reshape(4, 1))
    group = UnitGroup("a", 4, (site,))
    assert repr(group) == "<UnitGroup a: 4 units (permutation) in 1 tensors>"
    assert repr(Symmetry((group,), {"a": (4, 2)})) == "<Symmetry: 1 groups of 4 units, 0 obstacles>"
