"""Scales and signs of single units, and the standard form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.discover.modules import CASES, Calls, lin
from torch import nn

import isthmus
from isthmus.core.canonical import scaled
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
    module, example = made[name] if name in made else (CASES[name].make(), CASES[name].inputs())
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
