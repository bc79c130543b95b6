"""Units that are modules of their own: what permutations, files, companions and the standard form do to siblings."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from isthmus.core.companions import Companion, accompanied, companions_in, optimiser_tensors
from isthmus.core.errors import SymmetryError
from isthmus.core.siblings import stacked
from isthmus.core.symmetry import Parent, Permutation, Siblings, Site, Symmetry, UnitGroup
from isthmus.core.symmetry_file import from_json, to_json

EXPERTS, INNER, STREAM = 3, 4, 2


def along(size: int) -> Tensor:
    return torch.arange(size)[:, None]


def row(part: str) -> tuple[str, ...]:
    return tuple(f"e.{n}.{part}" for n in range(EXPERTS))


def symmetry() -> Symmetry:
    experts = UnitGroup("e.*", EXPERTS, (Site("r", 0, along(EXPERTS)),),
                        siblings=(Siblings(row("up")), Siblings(row("down"))))  # fmt: skip
    inner = [
        UnitGroup(
            f"e.{n}.up",
            INNER,
            (Site(f"e.{n}.up", 0, along(INNER)), Site(f"e.{n}.down", 1, along(INNER))),
            parent=Parent("e.*", n, 0),
        )
        for n in range(EXPERTS)
    ]
    everywhere = [Site("r", 1, along(STREAM))]
    everywhere += [Site(name, 1, along(STREAM)) for name in row("up")]
    everywhere += [Site(name, 0, along(STREAM)) for name in row("down")]
    tensors: dict[str, tuple[int, ...]] = {"r": (EXPERTS, STREAM)}
    tensors |= dict.fromkeys(row("up"), (INNER, STREAM)) | dict.fromkeys(row("down"), (STREAM, INNER))
    return Symmetry((experts, *inner, UnitGroup("stream", STREAM, tuple(everywhere))), tensors)


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = symmetry().tensors
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def output(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    shares = torch.softmax(x @ weights["r"].T, -1)
    made = [torch.relu(x @ weights[f"e.{n}.up"].T) @ weights[f"e.{n}.down"].T for n in range(EXPERTS)]
    return sum(shares[:, n, None] * one for n, one in enumerate(made))  # type: ignore[return-value]


def test_inner_units_move_first_then_whole_experts() -> None:
    given, before = symmetry(), weights()
    swap = torch.tensor([1, 0, 2, 3])
    permutation = Permutation(given, {"e.*": torch.tensor([2, 0, 1]), "e.2.up": swap})
    after = permutation.apply(before)
    assert torch.equal(after["e.0.up"], before["e.2.up"][swap])
    assert torch.equal(after["e.0.down"], before["e.2.down"][:, swap])
    assert torch.equal(after["e.1.up"], before["e.0.up"])
    assert torch.equal(after["r"], before["r"][[2, 0, 1]])
    assert permutation.source("e.0.up") == "e.2.up"
    assert permutation.source("r") == "r"


def test_experts_and_their_channels_leave_the_function() -> None:
    x = torch.randn(5, STREAM, dtype=torch.float64)
    inside = [group.name for group in symmetry().groups if group.name != "stream"]
    for seed in range(5):
        drawn = symmetry().random(torch.Generator().manual_seed(seed), groups=inside)
        assert torch.allclose(output(drawn.apply(weights()), x), output(weights(), x))


def test_size_counts_experts_and_channels() -> None:
    factorials = [6, *[24] * EXPERTS, 2]
    assert symmetry().log10_size == pytest.approx(torch.tensor(factorials).double().log10().sum().item())


def test_stacked_symmetry_does_the_same_to_stacked_weights() -> None:
    made = stacked(symmetry())
    assert made.symmetry.tensors == {"r": (3, 2), "e.*.up": (3, 4, 2), "e.*.down": (3, 2, 4)}
    assert not any(group.siblings for group in made.symmetry.groups)
    drawn = symmetry().random(torch.Generator().manual_seed(1))
    there = made.permutation(drawn).apply(dict(made.weights(weights())))
    here = made.weights(drawn.apply(weights()))
    assert all(torch.equal(there[name], here[name]) for name in there)
    assert made.back(made.permutation(drawn)).same_as(drawn)


def test_stacks_need_outer_groups_to_lie_alike_in_all_siblings() -> None:
    given = symmetry()
    turned = Site("e.1.up", 1, along(STREAM).flip(0))
    stream = given.by_name["stream"]
    sites = tuple(turned if site.tensor == "e.1.up" else site for site in stream.sites)
    groups = tuple(dataclasses.replace(g, sites=sites) if g is stream else g for g in given.groups)
    with pytest.raises(SymmetryError, match="same places in all units"):
        stacked(dataclasses.replace(given, groups=groups))


def test_a_symmetry_without_siblings_is_its_own_stack() -> None:
    plain = Symmetry((UnitGroup("w", 2, (Site("w", 0, along(2)),)),), {"w": (2, 3)})
    assert stacked(plain).symmetry is plain


def test_files_with_siblings_are_of_a_version_that_older_readers_refuse() -> None:
    assert '"version": 2' in to_json(symmetry())
    read = from_json(to_json(symmetry()))
    assert [group.siblings for group in read.groups] == [group.siblings for group in symmetry().groups]
    plain = Symmetry((UnitGroup("w", 2, (Site("w", 0, along(2)),)),), {"w": (2, 3)})
    assert '"version": 1' in to_json(plain)
    with pytest.raises(SymmetryError, match="version 1 or 2, got 3"):
        from_json(to_json(symmetry()).replace('"version": 2', '"version": 3'))


@pytest.mark.parametrize(
    ("siblings", "says"),
    [
        ((Siblings(("a", "b")),), "must be 3, one a unit, got 2"),
        ((Siblings(("a", "b", "d")),), "must have one shape"),
        ((Siblings(("a", "b", "x")),), "unknown: x"),
        ((Siblings(("a", "b", "b")),), "more than once"),
        ((Siblings(("a", "b", "c")), Siblings(("a", "b", "c"))), "more than once"),
    ],
)
def test_siblings_that_cannot_stand_for_each_other_are_refused(siblings: tuple[Siblings, ...], says: str) -> None:
    shapes = {"a": (2,), "b": (2,), "c": (2,), "d": (3,)}
    with pytest.raises(SymmetryError, match=says):
        Symmetry((UnitGroup("g", 3, (), siblings=siblings),), shapes)


def test_factors_have_no_siblings() -> None:
    group = UnitGroup("g", 2, (), "scale", siblings=(Siblings(("a", "b")),))
    with pytest.raises(SymmetryError, match="only permutation groups have siblings"):
        Symmetry((group,), {"a": (2,), "b": (2,)})


def test_the_standard_form_is_the_same_for_all_copies() -> None:
    given = symmetry()
    standard = given.canonical(weights())
    for seed in range(3):
        copy = given.random(torch.Generator().manual_seed(seed)).apply(weights())
        assert all(torch.equal(given.canonical(copy)[name], standard[name]) for name in standard)


def test_optimiser_state_and_copies_follow_their_expert() -> None:
    given = symmetry()
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in weights().items()}
    optimiser = torch.optim.Adam(parameters.values())
    (output(parameters, torch.ones(1, STREAM, dtype=torch.float64)).sum()).backward()
    optimiser.step()
    further = optimiser_tensors(optimiser.state_dict(), list(parameters))
    further |= {f"ema.{name}": tensor * 2 for name, tensor in weights().items()}
    everything = {**weights(), **further}
    wide = accompanied(given, everything, companions_in(everything, given, prefixes={"ema.": ""}))
    drawn = given.random(torch.Generator().manual_seed(2))
    after = Permutation(wide, drawn.indices).apply(everything)
    own = drawn.apply(weights())
    assert all(torch.equal(after[f"ema.{name}"], own[name] * 2) for name in own)
    gradients = {name: everything[f"exp_avg.{name}"] for name in own}
    assert all(torch.equal(after[f"exp_avg.{name}"], drawn.apply(gradients)[name]) for name in own)


def test_adapters_of_siblings_follow_and_those_of_some_are_refused() -> None:
    given = symmetry()
    names = {f"e.{n}.up": (f"e.{n}.up.lora_A.weight", f"e.{n}.up.lora_B.weight") for n in range(EXPERTS)}
    made = {}
    for pair in names.values():
        made |= {pair[0]: torch.randn(1, STREAM), pair[1]: torch.randn(INNER, 1)}
    found = companions_in({**weights(), **made}, given)
    assert set(found) == set(made)
    wide = accompanied(given, made, found)
    after = Permutation(wide, {"e.*": torch.tensor([1, 2, 0])}).apply({**weights(), **made})
    assert torch.equal(after["e.0.up.lora_B.weight"], made["e.1.up.lora_B.weight"])
    with pytest.raises(SymmetryError, match=r"follow every unit of e\.\* or none"):
        accompanied(given, made, {"e.0.up.lora_A.weight": Companion("e.0.up", (None, 1))})
