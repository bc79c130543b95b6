"""Laws of permutations, also of nested groups and of sites limited to a slice; the network itself is the judge."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isthmus.core import weights as algebra
from isthmus.core.errors import SymmetryError
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.symmetry import Obstacle, Parent, Permutation, Site, Symmetry, UnitGroup


def rows(*lists):
    return torch.tensor(lists)


def column(size, start=0):
    return torch.arange(start, start + size).unsqueeze(1)


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def drawn(module, seed=0):
    """Random weights and random buffers in float64: untouched BatchNorm statistics would hide mistakes."""
    generator = child(seed, "weights")
    return {
        name: (torch.randn(t.shape, generator=generator, dtype=torch.float64).abs() + 0.1).mul(
            1 if "var" in name else -1
        )
        if t.is_floating_point()
        else t
        for name, t in module.state_dict().items()
    }


class Case:
    """A module, its symmetry written by hand, and inputs."""

    def __init__(self, module, groups, inputs):
        self.module = module.double()
        self.symmetry = Symmetry(groups, shapes(module))
        self.network = Network.of(self.module)
        self.inputs = inputs
        self.weights = drawn(module)

    def output(self, weights):
        return self.network(weights, self.inputs)


def convolutional():
    """Two convolutions with BatchNorm, flattened into a linear layer: units own blocks of entries there."""
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(27, 5)
    )
    first = (
        Site("0.weight", 0, column(4)),
        Site("0.bias", 0, column(4)),
        *(Site(f"1.{name}", 0, column(4)) for name in ("weight", "bias")),
        *(Site(f"1.{name}", 0, column(4), "carry") for name in ("running_mean", "running_var")),
        Site("3.weight", 1, column(4)),
    )
    second = (
        Site("3.weight", 0, column(3)),
        Site("3.bias", 0, column(3)),
        Site("5.weight", 1, torch.arange(27).view(3, 9)),
    )
    groups = (UnitGroup("first", 4, first), UnitGroup("second", 3, second))
    return Case(module, groups, torch.randn(3, 2, 5, 5, generator=child(0, "images"), dtype=torch.float64))


def grouped():
    """A grouped convolution between two others: blocks may be exchanged, and channels inside each block on their own.

    The block's reading side shares its input channels with the layer before; the weight's second axis counts channels
    inside a block, so there a site is limited to the rows of that block.
    """
    blocks, inside, outside = 3, 2, 4
    module = nn.Sequential(
        nn.Conv2d(2, blocks * inside, 1),
        nn.ReLU(),
        nn.Conv2d(blocks * inside, blocks * outside, 3, groups=blocks),
        nn.ReLU(),
        nn.Conv2d(blocks * outside, 2, 1),
    )
    into, out = torch.arange(blocks * inside).view(blocks, inside), torch.arange(blocks * outside).view(blocks, outside)
    groups = [
        UnitGroup(
            "blocks",
            blocks,
            (
                Site("0.weight", 0, into),
                Site("0.bias", 0, into),
                Site("2.weight", 0, out),
                Site("2.bias", 0, out),
                Site("4.weight", 1, out),
            ),
        )
    ]
    for block in range(blocks):
        read, written = into[block].unsqueeze(1), out[block].unsqueeze(1)
        groups += [
            UnitGroup(
                f"read {block}",
                inside,
                (
                    Site("0.weight", 0, read),
                    Site("0.bias", 0, read),
                    Site("2.weight", 1, column(inside), within=((0, out[block]),)),
                ),
                parent=Parent("blocks", block, 0),
            ),
            UnitGroup(
                f"written {block}",
                outside,
                (Site("2.weight", 0, written), Site("2.bias", 0, written), Site("4.weight", 1, written)),
                parent=Parent("blocks", block, 1),
            ),
        ]
    return Case(module, tuple(groups), torch.randn(2, 2, 4, 4, generator=child(1, "images"), dtype=torch.float64))


def attention():
    """Heads may be exchanged; inside a head the query–key channels, and the value–output channels on their own."""
    heads, size = 3, 2
    width = heads * size

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(5, 3 * width)
            self.out = nn.Linear(width, 5)

        def forward(self, tokens):
            q, k, v = (
                part.unflatten(-1, (heads, size)).transpose(1, 2) for part in self.project(tokens).chunk(3, dim=-1)
            )
            mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            return self.out(mixed.transpose(1, 2).flatten(2))

    places = torch.arange(3 * width).view(3, heads, size)
    whole = places.transpose(0, 1).flatten(1)
    groups = [
        UnitGroup(
            "heads",
            heads,
            (
                Site("project.weight", 0, whole),
                Site("project.bias", 0, whole),
                Site("out.weight", 1, torch.arange(width).view(heads, size)),
            ),
        )
    ]
    for head in range(heads):
        both = places[:2, head].T
        groups += [
            UnitGroup(
                f"query and key {head}",
                size,
                (Site("project.weight", 0, both), Site("project.bias", 0, both)),
                parent=Parent("heads", head, 0),
            ),
            UnitGroup(
                f"value {head}",
                size,
                (
                    Site("project.weight", 0, places[2, head].unsqueeze(1)),
                    Site("project.bias", 0, places[2, head].unsqueeze(1)),
                    Site("out.weight", 1, column(size, head * size)),
                ),
                parent=Parent("heads", head, 1),
            ),
        ]
    return Case(Attention(), tuple(groups), torch.randn(2, 4, 5, generator=child(2, "tokens"), dtype=torch.float64))


def deep():
    """Three levels: blocks of blocks of units, so that a group moves with a parent that moves with its own."""
    outer, middle, inner = 2, 3, 2
    size = outer * middle * inner
    module = nn.Sequential(nn.Linear(3, size), nn.Tanh(), nn.Linear(size, 2))
    place = torch.arange(size).view(outer, middle, inner)

    def sites(index):
        return (Site("0.weight", 0, index), Site("0.bias", 0, index), Site("2.weight", 1, index))

    groups = [UnitGroup("outer", outer, sites(place.flatten(1)))]
    for a in range(outer):
        groups.append(UnitGroup(f"middle {a}", middle, sites(place[a]), parent=Parent("outer", a, 0)))
        for b in range(middle):
            groups.append(
                UnitGroup(f"inner {a}{b}", inner, sites(place[a, b].unsqueeze(1)), parent=Parent(f"middle {a}", b, 0))
            )
    return Case(module, tuple(groups), torch.randn(4, 3, generator=child(3, "x"), dtype=torch.float64))


CASES = {"convolutional": convolutional(), "grouped": grouped(), "attention": attention(), "deep": deep()}
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
