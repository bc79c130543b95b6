"""Factors of single units, and the one standard form of networks that their symmetry makes equivalent."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from isthmus.core.canonical import canonical, rescaled, scaled, unit_scale
from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Permutation, Site, Symmetry, UnitGroup


def rows(size: int) -> Tensor:
    return torch.arange(size)[:, None]


def chain(kind: str = "scale") -> tuple[nn.Sequential, Symmetry]:
    """A plain ReLU network and its groups, written by hand."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    groups = []
    for here, after, size in ((0, 2, 6), (2, 4, 5)):
        sites = (
            Site(f"{here}.weight", 0, rows(size)),
            Site(f"{here}.bias", 0, rows(size)),
            Site(f"{after}.weight", 1, rows(size), power=-1.0),
        )
        groups.append(UnitGroup(f"{here} {kind}", size, sites, kind))  # type: ignore[arg-type]
        if kind == "scale":
            plain = tuple(dataclasses.replace(site, power=1.0) for site in sites)
            groups.append(UnitGroup(str(here), size, plain))
    return module, Symmetry(tuple(groups), {name: tuple(t.shape) for name, t in module.state_dict().items()})


def outputs(module: nn.Module, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    return torch.func.functional_call(module, weights, (inputs,))


def test_unit_scale_gives_rows_and_biases_of_norm_one_and_keeps_the_function() -> None:
    module, symmetry = chain()
    weights, inputs = dict(module.state_dict()), torch.randn(9, 4, dtype=torch.float64)
    found = unit_scale(symmetry, weights)
    for layer in (0, 2):
        square = found[f"{layer}.weight"].square().sum(1) + found[f"{layer}.bias"].square()
        assert torch.allclose(square, torch.ones_like(square), rtol=1e-12)
    assert torch.allclose(outputs(module, found, inputs), outputs(module, weights, inputs), rtol=1e-12)
    backwards = dataclasses.replace(symmetry, groups=symmetry.groups[::-1])
    again = unit_scale(backwards, weights)
    assert all(torch.allclose(found[name], again[name], rtol=1e-11) for name in found)


def test_copies_of_all_kinds_have_one_standard_form() -> None:
    module, symmetry = chain()
    weights = dict(module.state_dict())
    generator = torch.Generator().manual_seed(1)
    factors = {
        group.name: torch.rand(group.size, generator=generator, dtype=torch.float64) * 5 + 0.1
        for group in symmetry.groups
        if group.kind == "scale"
    }
    copy = symmetry.random(generator).apply(rescaled(symmetry, weights, factors))
    one, other = canonical(symmetry, weights), canonical(symmetry, copy)
    assert not torch.allclose(copy["0.weight"], weights["0.weight"], rtol=0.1)
    assert all(torch.allclose(one[name], other[name], rtol=1e-10) for name in one)


def test_signs_are_fixed_layer_by_layer() -> None:
    module, symmetry = chain("sign")
    weights = dict(module.state_dict())
    flips = {group.name: torch.tensor([-1.0] * 2 + [1.0] * (group.size - 2)) for group in symmetry.groups}
    one, other = canonical(symmetry, weights), canonical(symmetry, rescaled(symmetry, weights, flips))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert bool(((one["2.weight"].sum(1) + one["2.bias"]) > 0).all())


def test_several_factors_are_rounded_once() -> None:
    _, symmetry = chain()
    generator = torch.Generator().manual_seed(2)
    half = {
        name: torch.randn(shape, generator=generator).to(torch.bfloat16) for name, shape in symmetry.tensors.items()
    }
    factors = {
        group.name: torch.full((group.size,), value)
        for group, value in zip([g for g in symmetry.groups if g.kind == "scale"], (1.7, 1.7), strict=True)
    }
    found = rescaled(symmetry, half, factors)
    assert found["2.weight"].dtype == torch.bfloat16
    assert torch.equal(found["2.weight"], half["2.weight"])  # times 1.7 and by 1.7: twice rounded, it would not be


def test_a_site_inside_a_slice_moves_nothing_else() -> None:
    site = Site("w", 1, torch.tensor([[3], [1]]), within=((0, torch.tensor([0, 2])),), power=-1.0)
    group = UnitGroup("g", 2, (site,), "scale")
    found = scaled({"w": torch.ones(3, 4)}, group, torch.tensor([2.0, 4.0]))["w"]
    assert torch.equal(found, torch.tensor([[1, 0.25, 1, 0.5], [1, 1, 1, 1], [1, 0.25, 1, 0.5]]))


def test_dead_units_stay_and_nothing_is_written_to() -> None:
    module, symmetry = chain()
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weights["0.weight"][2], weights["0.bias"][2] = 0, 0
    before = {name: tensor.clone() for name, tensor in weights.items()}
    found = unit_scale(symmetry, weights)
    assert torch.equal(found["2.weight"][:, 2] == 0, torch.zeros(5, dtype=torch.bool))
    assert not found["0.weight"][2].any()
    assert all(torch.equal(before[name], weights[name]) for name in weights)


def test_a_branch_that_writes_a_unit_again_does_not_count() -> None:
    """In a stream that a branch adds to, lengths of all writers could not all be one; the first writer's can."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.a, self.b, self.out = (nn.Linear(*n, bias=False) for n in ((4, 5), (5, 6), (6, 5), (5, 2)))

        def forward(self, x: Tensor) -> Tensor:
            stream = torch.relu(self.into(x))
            return self.out(stream + torch.relu(self.b(torch.relu(self.a(stream)))))

    torch.manual_seed(0)
    module = Stream().double()
    stream = UnitGroup(
        "s",
        5,
        (
            Site("into.weight", 0, rows(5)),
            Site("b.weight", 0, rows(5)),
            Site("a.weight", 1, rows(5), power=-1.0),
            Site("out.weight", 1, rows(5), power=-1.0),
        ),
        "scale",
    )
    inner = UnitGroup("a", 6, (Site("a.weight", 0, rows(6)), Site("b.weight", 1, rows(6), power=-1.0)), "scale")
    weights = dict(module.state_dict())
    symmetry = Symmetry((inner, stream), {name: tuple(t.shape) for name, t in weights.items()})
    found = unit_scale(symmetry, weights)
    assert torch.allclose(found["into.weight"].norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(found["a.weight"].norm(dim=1), torch.ones(6, dtype=torch.float64))
    x = torch.randn(7, 4, dtype=torch.float64)
    assert torch.allclose(outputs(module, found, x), outputs(module, weights, x), rtol=1e-11)


def test_what_is_refused() -> None:
    _, symmetry = chain()
    weights = {name: torch.ones(shape) for name, shape in symmetry.tensors.items()}
    with pytest.raises(SymmetryError, match="unknown: nope"):
        rescaled(symmetry, weights, {"nope": torch.ones(1)})
    with pytest.raises(SymmetryError, match="must be positive"):
        rescaled(symmetry, weights, {"0 scale": torch.zeros(6)})
    with pytest.raises(SymmetryError, match="one factor for each of its 6 units"):
        rescaled(symmetry, weights, {"0 scale": torch.ones(5)})
    with pytest.raises(SymmetryError, match="permutation group"):
        scaled(weights, Permutation(symmetry, {}).symmetry.by_name["0"], torch.ones(6))
    circle = [
        UnitGroup(name, 2, (Site(name, 0, rows(2)), Site(other, 0, rows(2), power=-1.0)), "scale")
        for name, other in (("a", "b"), ("b", "a"))
    ]
    with pytest.raises(SymmetryError, match="in a circle"):
        unit_scale(Symmetry(tuple(circle), {"a": (2, 2), "b": (2, 2)}), {"a": torch.ones(2, 2), "b": torch.ones(2, 2)})
