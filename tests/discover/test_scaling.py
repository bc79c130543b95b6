"""Scales and signs of single units, and the standard form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.discover.case import Calls, lin
from tests.discover.expert_modules import EXPERTS
from tests.discover.modules import CASES
from torch import nn

import isthmus
from isthmus.core.canonical import rescaled, scaled
from isthmus.core.errors import SymmetryError
from isthmus.discover.verify import difference, module_call, random_weights


def kinds_of(module: nn.Module, *shape: int) -> dict[str, list[int]]:
    symmetry = isthmus.discover(module, torch.zeros(shape), kinds=("permutation", "scale", "sign"))
    return {kind: sorted(g.size for g in symmetry.groups if g.kind == kind) for kind in ("scale", "sign")}


def pair(activation: nn.Module) -> nn.Module:
    return nn.Sequential(lin(4, 5), activation, lin(5, 3))


@pytest.mark.parametrize(
    ("make", "scale", "sign"),
    [
        (lambda: pair(nn.ReLU()), [5], []),
        (lambda: pair(nn.LeakyReLU()), [5], []),
        (lambda: pair(nn.Tanh()), [], [5]),
        (lambda: pair(nn.GELU()), [], []),
        (lambda: pair(nn.Identity()), [5], [5]),
        (lambda: nn.Sequential(lin(4, 5), nn.LayerNorm(5), nn.ReLU(), lin(5, 3)), [5], []),
    ],
    ids=["relu", "leaky relu", "tanh", "gelu", "linear", "layer norm and relu"],
)
def test_activations_decide_what_single_units_may_do(
    make: Callable[[], nn.Module], scale: list[int], sign: list[int]
) -> None:
    assert kinds_of(make(), 3, 4) == {"scale": scale, "sign": sign}


def test_a_stream_under_rms_norm_flips_signs_and_a_head_scales_its_channels() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.norm, self.hidden = lin(4, 6), nn.RMSNorm(6), lin(6, 5)
            self.back, self.out = lin(5, 6), lin(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.into(x)
            return self.out(x + self.back(torch.nn.functional.gelu(self.hidden(self.norm(x)))))

    symmetry = isthmus.discover(Block(), torch.zeros(3, 4), kinds=("permutation", "scale", "sign"))
    signs = [group for group in symmetry.groups if group.kind == "sign"]
    # The stream's sign, past the gain, which stretches a unit whatever its sign; and the gain's own, against its
    # reader.
    assert [group.size for group in signs] == [6, 6]
    touched = [{site.tensor for site in group.sites} for group in signs]
    assert {"norm.weight", "hidden.weight"} in touched
    assert any("into.weight" in names and "norm.weight" not in names for names in touched)
    attention = kinds_of(CASES["grouped queries"].make(), 2, 4, 6)
    # In each key-value head: query against key, and the key's bias alone, which softmax forgets; value against output.
    assert attention["scale"].count(3) == 4
    assert attention["scale"].count(5) == 2


@pytest.mark.parametrize("name", ["residual", "grouped queries", "experts", "convolution"])
def test_copies_have_one_standard_form(name: str) -> None:
    made = {
        "convolution": (
            nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), lin(16, 5), nn.Tanh(), lin(5, 2)
            ),
            (torch.zeros(2, 2, 4, 4),),
        )
    }
    zoo = {**CASES, **EXPERTS}
    module, example = made[name] if name in made else (zoo[name].make(), zoo[name].inputs())
    symmetry = isthmus.discover(module, example, kinds=("permutation", "scale", "sign"))
    generator = torch.Generator().manual_seed(3)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    inputs = tuple(torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in example)
    copy = symmetry.random(generator).apply(weights)
    for group in symmetry.groups:
        if group.kind == "scale":
            copy = scaled(copy, group, (torch.rand(group.size, generator=generator, dtype=torch.float64) - 0.5).exp())
        if group.kind == "sign":
            copy = scaled(copy, group, torch.randint(0, 2, (group.size,), generator=generator).double() * 2 - 1)
    one, other = symmetry.canonical(weights), symmetry.canonical(copy)
    call = module_call(module)
    assert difference(call(weights, inputs, {}), call(one, inputs, {})) < 1e-9
    gap = max(float((one[n] - other[n]).abs().max()) for n in one if one[n].is_floating_point())
    assert gap < 1e-8


def test_factors_must_be_of_the_groups_kind() -> None:
    symmetry = isthmus.discover(pair(nn.ReLU()), torch.zeros(3, 4), kinds=("scale",))
    weights = {name: torch.ones(shape) for name, shape in symmetry.tensors.items()}
    with pytest.raises(SymmetryError, match="must be positive"):
        scaled(weights, symmetry.groups[0], -torch.ones(5))
    with pytest.raises(SymmetryError, match="one factor for each"):
        scaled(weights, symmetry.groups[0], torch.ones(4))


def test_heads_of_a_plain_attention() -> None:
    module = Calls(lambda m, x: m.at(x, x, x, need_weights=False)[0], at=nn.MultiheadAttention(4, 2, batch_first=True))
    found = kinds_of(module, 2, 3, 4)
    # Two heads; in each the query-key channels, the value-output channels, and the key's bias, which softmax forgets.
    assert found == {"scale": [2] * 6, "sign": [2] * 6}


def of_kind(symmetry: isthmus.Symmetry, kind: str) -> list[isthmus.UnitGroup]:
    return [group for group in symmetry.groups if group.kind == kind]


def test_batch_norm_nets_have_two_scales_for_each_layer_and_pooling_does_not_hide_them() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), lin(4, 3),
    )  # fmt: skip
    symmetry = isthmus.discover(module, torch.zeros(2, 3, 12, 12), kinds=("scale", "sign"))
    powers = [{site.tensor: site.power for site in group.sites} for group in of_kind(symmetry, "scale")]
    assert powers == [
        {"1.weight": 1, "1.bias": 1, "4.weight": -1},
        {"0.weight": 1, "0.bias": 1, "1.running_mean": 1, "1.weight": -1},
        {"5.weight": 1, "5.bias": 1, "9.weight": -1},
        {"4.weight": 1, "4.bias": 1, "5.running_mean": 1, "5.weight": -1},
    ]
    # The sign that ReLU lets through is only that of a kernel against its own norm.
    assert [{site.tensor for site in group.sites} for group in of_kind(symmetry, "sign")] == [
        {"0.weight", "0.bias", "1.running_mean", "1.weight"},
        {"4.weight", "4.bias", "5.running_mean", "5.weight"},
    ]


def test_a_residual_stream_scales_as_one_through_all_its_blocks() -> None:
    module = isthmus.zoo.network("resnet20", width=0.25)
    symmetry = isthmus.discover(module, torch.zeros(2, 3, 16, 16), kinds=("permutation", "scale"))
    scales = of_kind(symmetry, "scale")
    # One for each of 12 groups of channels, and one for each of 21 kernels against its norm.
    assert len(scales) == 12 + 21
    first = next(group for group in scales if group.name == "conv scale")
    powers = {site.tensor: site.power for site in first.sites}
    assert powers["blocks.2.norm2.weight"] == 1
    assert powers["blocks.3.shortcut.0.weight"] == -1
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    factors = {g.name: torch.rand(g.size, generator=generator, dtype=torch.float64) + 0.5 for g in scales}
    copy = symmetry.random(generator).apply(rescaled(symmetry, weights, factors))
    one, other = symmetry.canonical(weights), symmetry.canonical(copy)
    assert all(torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-12) for name in one)
    assert torch.allclose(one["blocks.4.conv2.weight"].flatten(1).norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_pairs_that_a_rotary_embedding_turns_scale_and_flip_together() -> None:
    module, example = CASES["rotary"].make(), CASES["rotary"].inputs()
    symmetry = isthmus.discover(module, example, kinds=("permutation", "scale", "sign"))
    for kind, against in (("scale", -1), ("sign", 1)):
        turned = [g for g in of_kind(symmetry, kind) if any(site.tensor == "q.weight" for site in g.sites)]
        assert [group.size for group in turned] == [3, 3]
        sites = {site.tensor: site for site in turned[0].sites}
        assert sites["q.weight"].index.tolist() == [[0, 3], [1, 4], [2, 5]]
        assert sites["k.weight"].power == against


def test_derivatives_that_see_only_a_part_are_caught_by_computing() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = lin(4, 5), lin(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.a(x)
            return self.b(torch.relu(hidden) + hidden.detach() ** 2)

    symmetry = isthmus.discover(Hiding(), torch.zeros(2, 4), kinds=("permutation", "scale", "sign"))
    assert [group.kind for group in symmetry.groups] == ["permutation"]


def test_a_unit_that_is_squared_scales_its_reader_by_the_square() -> None:
    module = Calls(lambda m, x: m.b(torch.relu(m.a(x)) ** 2), a=lin(4, 5), b=lin(5, 3))
    symmetry = isthmus.discover(module, torch.zeros(2, 4), kinds=("scale",))
    (group,) = symmetry.groups
    assert {site.tensor: site.power for site in group.sites} == {"a.weight": 1, "a.bias": 1, "b.weight": -2}


def test_tied_tensors_scale_together() -> None:
    module = CASES["tied vocabulary"].make()
    symmetry = isthmus.discover(module, CASES["tied vocabulary"].inputs(), kinds=("scale",))
    assert [group.size for group in symmetry.groups] == [6]
    one, other = lin(4, 5), lin(4, 5)
    other.weight = one.weight
    shared = Calls(lambda m, x: m.b(torch.relu(m.a(x)) + torch.relu(m.c(-x))), a=one, b=lin(5, 3), c=other)
    (group,) = isthmus.discover(shared, torch.zeros(2, 4), kinds=("scale",)).groups
    assert {site.tensor for site in group.sites} == {"a.weight", "c.weight", "a.bias", "c.bias", "b.weight"}


@pytest.mark.parametrize(
    ("make", "gates", "sizes"),
    [
        (lambda: nn.LSTM(3, 4, batch_first=True), 4, [4]),
        (lambda: nn.GRU(3, 4, batch_first=True), 3, [4]),
        (lambda: nn.LSTM(3, 4, batch_first=True, proj_size=2), 4, [2, 4]),
    ],
    ids=["lstm", "gru", "projected lstm"],
)
def test_a_recurrent_unit_flips_with_the_one_gate_that_goes_through_tanh(
    make: Callable[[], nn.Module], gates: int, sizes: list[int]
) -> None:
    cell = make()
    out = lin(2 if len(sizes) > 1 else 4, 2)
    module = Calls(lambda m, x: m.o(m.cell(x)[0]), cell=cell, o=out)
    symmetry = isthmus.discover(module, torch.zeros(2, 5, 3), kinds=("permutation", "sign"))
    signs = of_kind(symmetry, "sign")
    assert sorted(group.size for group in signs) == sizes
    (unit,) = [group for group in signs if any(site.tensor == "cell.weight_ih_l0" for site in group.sites)]
    rows = {site.tensor: site.index.tolist() for site in unit.sites if site.dim == 0 and "weight_hr" not in site.tensor}
    # The candidate's rows: the third of four gates of an LSTM, the last of three of a GRU.
    assert set(rows) == {"cell.weight_ih_l0", "cell.weight_hh_l0", "cell.bias_ih_l0", "cell.bias_hh_l0"}
    assert all(index == [[8 + u] for u in range(4)] for index in rows.values())
    # By hand, on the whole: the function stays.
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    inputs = (torch.randn(2, 5, 3, generator=generator, dtype=torch.float64),)
    call = module_call(module)
    flipped = scaled(weights, unit, torch.tensor([-1.0, 1.0, -1.0, -1.0], dtype=torch.float64))
    assert difference(call(weights, inputs, {}), call(flipped, inputs, {})) < 1e-12
    assert gates * 4 == weights["cell.weight_ih_l0"].shape[0]
