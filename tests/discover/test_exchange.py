"""Whole modules as units: experts in a list, heads that are modules, branches that are summed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.discover.beside import CASES as BESIDE
from tests.discover.beside import Beside, plain, routed, soft, summed
from tests.discover.case import Calls, lin
from tests.discover.trees import TREES
from torch import Tensor, nn

import isthmus
import isthmus.noise
from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Permutation, Symmetry, UnitGroup
from isthmus.core.symmetry_file import from_json, to_json
from isthmus.discover import exchange, layer_map
from isthmus.discover.verify import difference, module_call, random_weights

CASES = {**BESIDE, **TREES}
_MADE: dict[str, tuple[nn.Module, Symmetry]] = {}


def found(name: str) -> tuple[nn.Module, Symmetry]:
    """A case's module and its symmetry, discovered once."""
    if name not in _MADE:
        case = CASES[name]
        torch.manual_seed(0)
        module = case.make()
        _MADE[name] = module, isthmus.discover(module, torch.randn(case.shape))
    return _MADE[name]


def whole(symmetry: Symmetry) -> list[UnitGroup]:
    return [group for group in symmetry.groups if group.siblings]


def drawn(module: nn.Module, shape: tuple[int, ...], seed: int) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    return weights, (torch.randn(shape, generator=generator, dtype=torch.float64),)


@pytest.mark.parametrize("name", CASES)
def test_modules_are_the_units_worked_out_by_hand(name: str) -> None:
    case: Beside = CASES[name]
    _, symmetry = found(name)
    groups = whole(symmetry)
    assert sorted((group.size, len(symmetry.children(group.name, 0))) for group in groups) == sorted(case.groups)
    if case.shared:
        assert {(site.tensor, site.dim) for site in groups[0].sites} == set(case.shared)
    assert symmetry.proof is not None
    assert symmetry.proof.error < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_groups_inside_one_unit_are_inside_each(name: str) -> None:
    _, symmetry = found(name)
    for group in whole(symmetry):
        sizes = [[child.size for child in symmetry.children(group.name, unit)] for unit in range(group.size)]
        assert all(one == sizes[0] for one in sizes)


@given(name=st.sampled_from([name for name, case in CASES.items() if case.groups]), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_any_permutation_keeps_the_function_and_the_laws(name: str, seed: int) -> None:
    module, symmetry = found(name)
    weights, inputs = drawn(module, CASES[name].shape, seed)
    generator = torch.Generator().manual_seed(seed)
    first, second = symmetry.random(generator), symmetry.random(generator)
    call = module_call(module)
    moved = first.apply(weights)
    assert difference(call(weights, inputs, {}), call(moved, inputs, {})) < 1e-12
    assert _equal(second.after(first).apply(weights), second.apply(moved))
    assert _equal(first.inverse().apply(moved), weights)
    assert _equal({n: first.moved(n, weights[first.source(n)]) for n in weights}, moved)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("name", ["soft mixture", "mixtures of mixtures", "branches of channels", "parts of a stream"])
def test_a_symmetry_read_from_a_file_moves_a_bare_checkpoint(name: str) -> None:
    module, symmetry = found(name)
    weights, _ = drawn(module, CASES[name].shape, 3)
    read = from_json(to_json(symmetry))
    permutation = symmetry.random(torch.Generator().manual_seed(1))
    assert _equal(Permutation(read, permutation.indices).apply(weights), permutation.apply(weights))
    assert [group.siblings for group in read.groups] == [group.siblings for group in symmetry.groups]
    first = whole(read)[0].siblings[0].tensors[1]
    with pytest.raises(SymmetryError, match=f"missing: {first}"):
        read.random(torch.Generator()).apply({key: value for key, value in weights.items() if key != first})


def test_each_solution_of_a_stack_is_moved_alike() -> None:
    module, symmetry = found("mixtures of mixtures")
    several = [drawn(module, CASES["mixtures of mixtures"].shape, seed)[0] for seed in range(3)]
    permutation = symmetry.random(torch.Generator().manual_seed(2))
    stacked = permutation.apply({n: torch.stack([w[n] for w in several]) for n in several[0]}, stacked=True)
    for place, weights in enumerate(several):
        assert _equal({name: tensor[place] for name, tensor in stacked.items()}, permutation.apply(weights))


def test_what_looks_alike_and_changes_the_outputs_is_named() -> None:
    _, symmetry = found("parts of the input")
    (obstacle,) = symmetry.obstacles
    assert obstacle.operation == "exchange"
    assert "list.0.up.weight" in obstacle.tensors


def test_experts_that_move_are_no_obstacles() -> None:
    _, symmetry = found("best two, masked")
    assert not [one for one in symmetry.obstacles if "router.weight" in one.tensors]


def test_counters_of_batches_move_with_their_module() -> None:
    module, symmetry = found("experts with running statistics")
    weights, _ = drawn(module, CASES["experts with running statistics"].shape, 0)
    weights |= {f"list.{n}.1.num_batches_tracked": torch.tensor(n) for n in range(3)}
    index = torch.tensor([2, 0, 1])
    moved = Permutation(symmetry, {whole(symmetry)[0].name: index}).apply(weights)
    assert [int(moved[f"list.{n}.1.num_batches_tracked"]) for n in range(3)] == index.tolist()


def test_every_exchange_of_two_modules_was_found() -> None:
    """By brute force: two experts are exchanged together with any set of rows and columns of all that is shared."""
    module = routed(soft, 3)().double()
    symmetry = isthmus.discover(module, torch.randn(4, 3, dtype=torch.float64))
    weights, inputs = drawn(module, (4, 3), 1)
    before = module_call(module)(weights, inputs, {})
    shared = [
        (name, dim)
        for name, tensor in weights.items()
        if not name.startswith("list")
        for dim in range(tensor.dim())
        if tensor.shape[dim] == 3
    ]
    kept = []
    for i, j in itertools.combinations(range(3), 2):
        for chosen in itertools.chain.from_iterable(itertools.combinations(shared, n) for n in range(len(shared) + 1)):
            moved = _exchanged(weights, i, j, chosen)
            if difference(before, module_call(module)(moved, inputs, {})) < 1e-9:
                kept.append((i, j, chosen))
    assert {(i, j) for i, j, _ in kept} == {(0, 1), (0, 2), (1, 2)}
    (group,) = whole(symmetry)
    for i, j, chosen in kept:
        assert {(site.tensor, site.dim) for site in group.sites} == set(chosen)
        index = torch.arange(3)
        index[[i, j]] = index[[j, i]]
        assert _equal(Permutation(symmetry, {group.name: index}).apply(weights), _exchanged(weights, i, j, chosen))


def _exchanged(weights: Mapping[str, Tensor], i: int, j: int, shared: Any) -> dict[str, Tensor]:
    result = dict(weights)
    for name in weights:
        if name.startswith(f"list.{i}."):
            other = name.replace(f"list.{i}.", f"list.{j}.")
            result[name], result[other] = weights[other], weights[name]
    for name, dim in shared:
        order = torch.arange(3)
        order[[i, j]] = order[[j, i]]
        result[name] = result[name].index_select(dim, order)
    return result


def test_a_mistake_in_a_proposal_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    # A proposal that forgets the router's rows must fall to the computed trial, and say so.
    whole_group = exchange.group_of_parts

    def forgetful(*arguments: Any) -> UnitGroup | None:
        group = whole_group(*arguments)
        return group and UnitGroup(group.name, group.size, (), siblings=group.siblings)

    monkeypatch.setattr(exchange, "group_of_parts", forgetful)
    symmetry = isthmus.discover(CASES["soft mixture"].make(), torch.randn(8, 3))
    assert not whole(symmetry)
    assert [one.operation for one in symmetry.obstacles] == ["exchange"]


def test_one_right_proposal_beside_a_wrong_one_is_kept() -> None:
    def both(m: Any, x: Tensor) -> Tensor:
        x = m.i(x)
        wrong = sum((n + 1) * branch(x) for n, branch in enumerate(m.other))
        return m.o(wrong + sum(branch(x) for branch in m.list))

    module = plain(both, other=lambda: nn.ModuleList([lin(6, 6), lin(6, 6)]))()
    assert [group.size for group in whole(isthmus.discover(module, torch.randn(8, 3)))] == [3]


def test_without_proof_modules_are_still_tried() -> None:
    symmetry = isthmus.discover(CASES["parts of the input"].make(), torch.randn(8, 12), verify=False)
    assert not whole(symmetry)
    symmetry = isthmus.discover(CASES["soft mixture"].make(), torch.randn(8, 3), verify=False)
    assert [group.size for group in whole(symmetry)] == [4]


def test_scales_and_signs_are_found_as_without_modules() -> None:
    module = routed(soft, 3)()
    symmetry = isthmus.discover(module, torch.randn(8, 3), kinds=("permutation", "scale"))
    scales = [group for group in symmetry.groups if group.kind == "scale"]
    # Five units with ReLU in each of three experts, and the stream that nothing but linear layers read.
    assert sorted(group.size for group in scales) == [5, 5, 5, 6]
    weights, inputs = drawn(module, (8, 3), 0)
    before = module_call(module)(weights, inputs, {})
    standard = symmetry.canonical(weights)
    assert difference(before, module_call(module)(standard, inputs, {})) < 1e-12
    copy = symmetry.random(torch.Generator().manual_seed(4)).apply(weights)
    again = symmetry.canonical(copy)
    assert all(torch.allclose(again[name], standard[name]) for name in standard)


def test_a_module_on_the_meta_device_is_tried_on_its_narrow_copy() -> None:
    with torch.device("meta"):
        wide = routed(soft, 3)()
    narrow = routed(soft, 3)()
    symmetry = isthmus.discover(wide, torch.zeros(8, 3, device="meta"), narrow=narrow)
    assert [group.size for group in whole(symmetry)] == [3]
    unproved = isthmus.discover(wide, torch.zeros(8, 3, device="meta"), verify=False)
    assert not whole(unproved)
    assert "could not be computed" in unproved.obstacles[-1].reason


def test_branches_whose_routing_looks_at_values_are_refused_with_their_line() -> None:
    def skipping(m: Any, x: Tensor) -> Tensor:
        best = m.router(x).argmax(-1)
        for number, expert in enumerate(m.list):
            if (best == number).any():
                x = x + expert(x)
        return x

    module = Calls(skipping, router=lin(6, 2), list=nn.ModuleList([lin(6, 6), lin(6, 6)]))
    with pytest.raises(SymmetryError, match=r"must be exportable.*test_exchange\.py"):
        isthmus.discover(module, torch.randn(4, 6))


def test_names_say_which_modules() -> None:
    _, symmetry = found("soft mixture")
    assert [group.name for group in whole(symmetry)] == ["list.*"]
    _, symmetry = found("two factors")
    assert [group.name for group in whole(symmetry)] == ["a|b"]


def test_tied_names_move_together() -> None:
    module = plain(summed)()
    for number, branch in enumerate(module.list):
        setattr(module, f"again{number}", branch.up)
    symmetry = isthmus.discover(module, torch.randn(8, 3))
    (group,) = whole(symmetry)
    rows = {row.tensors: row.role for row in group.siblings}
    both = [tuple(f"{name}.weight" for name in names) for names in (
        ("list.0.up", "list.1.up", "list.2.up"), ("again0", "again1", "again2"))]  # fmt: skip
    assert sorted(rows[names] for names in both) == ["carry", "match"]


def test_the_picture_shows_every_module_and_what_is_inside_each() -> None:
    _, symmetry = found("soft mixture")
    cells = layer_map(symmetry).cells
    experts = {cell.layer for cell in cells if cell.group == "list.*"}
    assert experts == {"router", *(f"list.{n}.{part}" for n in range(4) for part in ("up", "down"))}
    inner = [cell for cell in cells if cell.group == "list.0.up"]
    assert {cell.layer for cell in inner} == experts - {"router"}
    assert {cell.copies for cell in inner} == {1}


def test_equal_experts_count_as_one() -> None:
    module, symmetry = found("soft mixture")
    weights, _ = drawn(module, CASES["soft mixture"].shape, 0)
    weights |= {name: weights[name.replace("list.1", "list.0")] for name in weights if name.startswith("list.1.")}
    for name in ("router.weight", "router.bias"):
        weights[name] = weights[name].index_copy(0, torch.tensor([1]), weights[name][:1])
    (group,) = whole(symmetry)
    counted = {one.name: one for one in isthmus.noise.effective_redundancy(symmetry, weights).groups}
    assert counted[group.name].log10_distinct == pytest.approx(math.log10(math.factorial(4) / 2))


def test_an_expert_that_adds_nothing_is_silent() -> None:
    module, symmetry = found("soft mixture")
    weights, inputs = drawn(module, CASES["soft mixture"].shape, 0)
    for name in ("list.2.down.weight", "list.2.down.bias"):
        weights[name] = torch.zeros_like(weights[name])
    (group,) = whole(symmetry)
    network = isthmus.Network.of(module)
    weights["router.weight"] = weights["router.weight"].index_fill(0, torch.tensor([2]), 0)
    weights["router.bias"] = weights["router.bias"].index_fill(0, torch.tensor([2]), 0)
    silent = isthmus.noise.silent_units(network, symmetry, weights, inputs[0], generator=torch.Generator())
    assert silent[group.name].tolist() == [False, False, True, False]
