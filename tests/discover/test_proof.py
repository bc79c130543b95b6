"""The proof catches wrong rules, and laws that any symmetry must keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.discover.case import lin
from tests.discover.expert_modules import EXPERTS
from tests.discover.modules import CASES
from torch import nn

import isthmus
from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.discover.labels import Labels
from isthmus.discover.rules import RULES, Rule
from isthmus.discover.verify import difference, module_call, prove, random_weights


def first_only(ledger: Any, value: Labels, *_: Any, **__: Any) -> Labels:
    """A rule that forgets to tie its operands."""
    return value


def silent(rule: Rule) -> Rule:
    """The same rule with everything it says to the ledger forgotten."""

    def forgetting(ledger: Any, *arguments: Any, **keywords: Any) -> Any:
        ties, nests, marks = list(ledger.ties), list(ledger.nests), list(ledger.marks)
        result = rule(ledger, *arguments, **keywords)
        ledger.ties, ledger.nests, ledger.marks = ties, nests, marks
        return result

    return forgetting


def unsaid(rule: Rule) -> Rule:
    """The same rule, its result without the layer that says which units an input chose."""

    def forgetting(ledger: Any, *arguments: Any, **keywords: Any) -> Any:
        result = rule(ledger, *arguments, **keywords)
        return dataclasses.replace(result, layers=tuple(layer for layer in result.layers if layer.pinned))

    return forgetting


MUTANTS: dict[str, tuple[str, str, Callable[[], Rule]]] = {
    "a sum that ties nothing": ("residual", "aten.add", lambda: first_only),
    "a linear layer that ties nothing": ("residual", "aten.linear", lambda: silent(RULES["aten.linear"])),
    "a convolution that ties nothing": ("grouped convolution", "aten.conv2d", lambda: silent(RULES["aten.conv2d"])),
    "a group norm without groups": ("group norm", "aten.group_norm", lambda: RULES["aten.instance_norm_plain"]),
    "a norm that forgets its gain": ("rms norm", "aten.rms_norm", lambda: first_only),
    "attention that ties nothing": (
        "grouped queries",
        "aten.scaled_dot_product_attention",
        lambda: silent(RULES["aten.scaled_dot_product_attention"]),
    ),
    "a running sum taken for elementwise": ("running sum over channels", "aten.cumsum", lambda: first_only),
    "a recurrence that ties nothing": ("lstm", "aten.lstm", lambda: silent(RULES["aten.lstm"])),
    "a roll taken for nothing": ("rolled", "aten.roll", lambda: first_only),
    "experts picked without their router": (
        "experts picked by number",
        "aten.index",
        lambda: silent(RULES["aten.index"]),
    ),
    "gates scattered to nobody": (
        "experts under scattered gates",
        "aten.scatter",
        lambda: unsaid(RULES["aten.scatter"]),
    ),
    "an embedding whose rows are free": ("embedding", "aten.embedding", lambda: free_rows),
}


def free_rows(ledger: Any, table: Labels, index: Labels, *_: Any) -> Labels:
    """An embedding that forgets that rows are named by the input."""
    columns = ledger.reduce(table, [0])
    shape = (*index.shape, table.shape[1])
    return Labels(shape, tuple(type(layer)(layer.ids.reshape(1, 1, -1)) for layer in columns.layers))


def ungrouped(ledger: Any, value: Labels, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> Labels:
    """A group norm that forgets its groups."""
    return RULES["aten.instance_norm"](ledger, value, weight, bias)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten.instance_norm_plain", ungrouped)
    case, operation, mutant = MUTANTS[name]
    torch.manual_seed(0)
    example = {**CASES, **EXPERTS}[case]
    with pytest.raises(SymmetryError, match=r"must not change the network|come apart"):
        isthmus.discover(example.make(), example.inputs(), rules={operation: mutant()})


def test_statistics_that_do_not_move_are_caught() -> None:
    network = nn.Sequential(lin(4, 5), nn.BatchNorm1d(5), nn.ReLU(), lin(5, 2))

    def forgetful(ledger: Any, value: Labels, weight: Any, bias: Any, *_: Any) -> Labels:
        return ledger.meet(
            value, *[Labels((1, 5), (type(v.layers[0])(v.layers[0].ids[None]),)) for v in (weight, bias)]
        )

    with pytest.raises(SymmetryError, match="0"):
        isthmus.discover(network, torch.zeros(3, 4), rules={"aten.batch_norm": forgetful})


def test_a_users_rule_frees_what_was_pinned() -> None:
    """A custom operation that works on each unit alone is pinned without a rule and free with one."""

    @torch.library.custom_op("isthmus_test::cube", mutates_args=())
    def cube(x: torch.Tensor) -> torch.Tensor:
        return x**3

    cube.register_fake(lambda x: torch.empty_like(x))

    class Cubing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = lin(4, 5), lin(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(cube(self.a(x)))

    pinned = isthmus.discover(Cubing(), torch.zeros(3, 4))
    assert not pinned.groups
    assert [obstacle.operation for obstacle in pinned.obstacles] == ["isthmus_test.cube"]
    free = isthmus.discover(Cubing(), torch.zeros(3, 4), rules={"isthmus_test.cube": lambda ledger, x: x})
    assert [group.size for group in free.groups] == [5]


@settings(max_examples=10, deadline=None)
@given(
    widths=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    norm=st.sampled_from(["none", "batch", "layer"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_permutation_keeps_the_function(widths: list[int], norm: str, seed: int) -> None:
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers += [lin(before, width)]
        layers += {"none": [], "batch": [nn.BatchNorm1d(width)], "layer": [nn.LayerNorm(width)]}[norm]
        layers += [nn.GELU()]
        before = width
    module = nn.Sequential(*layers, lin(before, 2))
    symmetry = isthmus.discover(module, torch.zeros(4, 3), verify=False)
    assert sorted(group.size for group in symmetry.groups) == sorted(widths)
    generator = torch.Generator().manual_seed(seed)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    inputs = (torch.randn(4, 3, generator=generator, dtype=torch.float64),)
    first, second = symmetry.random(generator), symmetry.random(generator)
    call = module_call(module)
    outputs = call(weights, inputs, {})
    moved = first.apply(weights)
    assert difference(outputs, call(moved, inputs, {})) < 1e-11
    assert difference(outputs, call(second.after(first).apply(weights), inputs, {})) < 1e-11
    back = first.inverse().apply(moved)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize("name", ["transformer", "grouped queries", "experts", "grouped convolution"])
def test_nested_permutations_compose_and_invert(name: str) -> None:
    case = {**CASES, **EXPERTS}[name]
    module = case.make()
    symmetry = isthmus.discover(module, case.inputs(), verify=False)
    generator = torch.Generator().manual_seed(5)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    first, second = symmetry.random(generator), symmetry.random(generator)
    one = second.apply(first.apply(weights))
    both = second.after(first).apply(weights)
    assert all(torch.equal(one[name], both[name]) for name in weights)
    back = first.inverse().apply(first.apply(weights))
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_a_layer_in_two_places_is_left_as_it_was() -> None:
    layer = nn.Linear(6, 6)
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 2))
    held, numbers = layer.weight, layer.weight.detach().clone()
    isthmus.discover(module, torch.zeros(2, 5))
    assert layer.weight is held
    assert torch.equal(layer.weight, numbers)


class TwoSums(nn.Module):
    """Two layers of two units, and one that reads the products of equal places: the two may only move together."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.read = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 3, bias=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.read(torch.tanh(self.one(value)) * torch.tanh(self.other(value)))


def forged(*layers: tuple[str, ...]) -> Symmetry:
    """A symmetry of ``TwoSums`` with a group of two units over the axes of each list of layers."""
    module = TwoSums()
    axes = {"one": (("one.weight", 0), ("one.bias", 0)), "other": (("other.weight", 0), ("other.bias", 0))}
    axes["read"] = (("read.weight", 1),)
    groups = tuple(
        UnitGroup(
            ", ".join(names),
            2,
            tuple(Site(tensor, dim, torch.arange(2)[:, None]) for n in names for tensor, dim in axes[n]),
        )
        for names in layers
    )
    return Symmetry(groups, {name: tuple(tensor.shape) for name, tensor in module.named_parameters()})


@pytest.mark.parametrize("layers", [[("one", "other")], [("one", "read"), ("other",)], [("one",), ("other", "read")]])
def test_a_wrong_group_of_two_units_is_caught_by_every_seed(layers: list[tuple[str, ...]]) -> None:
    """A uniform draw leaves two units in place half of the time, and moves two groups alike half of the time."""
    module, example = TwoSums().double(), torch.randn(4, 3, dtype=torch.float64)
    for seed in range(40):
        with pytest.raises(SymmetryError, match="change"):
            prove(
                forged(*layers), module_call(module), (example,), {},
                originals=dict(module.state_dict()), generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip


def test_the_right_group_of_two_units_is_proved() -> None:
    module, example = TwoSums().double(), torch.randn(4, 3, dtype=torch.float64)
    proof = prove(
        forged(("one", "other", "read")), module_call(module), (example,), {},
        originals=dict(module.state_dict()), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert proof.error <= 1e-14
