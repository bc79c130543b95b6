"""Optimiser state, averaged copies and LoRA factors move with the network that they belong to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.core.canonical import scaled
from isthmus.core.companions import (
    Companion,
    accompanied,
    companions_in,
    optimiser_tensors,
    with_optimiser_tensors,
)
from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Site, Symmetry, UnitGroup


def network() -> nn.Sequential:
    torch.manual_seed(0)  # no bias before the norm: its gradient is rounding alone, which Adam would make large
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.Tanh(),
        nn.Linear(6, 3),
    ).double()


def trained(module: nn.Module, optimiser: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    module.train()
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 2, 4, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(3, (8,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimiser.step()


OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_goes_on_as_if_nothing_had_been_permuted(name: str) -> None:
    module = network()
    optimiser = OPTIMISERS[name](module.parameters())
    trained(module, optimiser, range(6))
    names = [name for name, _ in module.named_parameters()]
    weights = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    state = copy.deepcopy(optimiser.state_dict())
    extra = {key: tensor.clone() for key, tensor in optimiser_tensors(state, names).items()}
    symmetry = isthmus.discover(module, torch.zeros(2, 2, 4, 4, dtype=torch.float64))
    everything = {**weights, **extra}
    wide = accompanied(symmetry, everything, companions_in(everything, symmetry))
    assert len(wide.tensors) == len(symmetry.tensors) + len(extra)
    permutation = wide.random(torch.Generator().manual_seed(1))
    moved = permutation.apply(everything)

    other = network()
    other.load_state_dict({key: moved[key] for key in weights})
    again = OPTIMISERS[name](other.parameters())
    again.load_state_dict(with_optimiser_tensors(state, names, moved))
    trained(module, optimiser, range(6, 12))
    trained(other, again, range(6, 12))
    expected = permutation.apply({**module.state_dict(), **optimiser_tensors(optimiser.state_dict(), names)})
    found = {**other.state_dict(), **optimiser_tensors(again.state_dict(), names)}
    assert all(torch.allclose(found[key], expected[key], rtol=1e-9, atol=1e-12) for key in expected)

    forgetful = network()
    forgetful.load_state_dict({key: moved[key] for key in weights})
    left = OPTIMISERS[name](forgetful.parameters())
    left.load_state_dict(state)
    trained(forgetful, left, range(6, 12))
    assert not torch.allclose(forgetful.state_dict()["4.weight"], expected["4.weight"], rtol=1e-3)


def test_an_averaged_copy_moves_along_by_its_prefix() -> None:
    module = network()
    symmetry = isthmus.discover(module, torch.zeros(2, 2, 4, 4, dtype=torch.float64), verify=False)
    weights = dict(module.state_dict())
    both = {**weights, **{f"ema.module.{name}": 2 * tensor for name, tensor in weights.items()}}
    wide = accompanied(symmetry, both, companions_in(both, symmetry, prefixes={"ema.module.": ""}))
    moved = wide.random(torch.Generator().manual_seed(2)).apply(both)
    assert not torch.equal(moved["0.weight"], weights["0.weight"])
    assert all(torch.equal(moved[f"ema.module.{name}"], 2 * moved[name]) for name in weights)


def test_lora_factors_move_with_inputs_and_outputs() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2)).double()
    symmetry = isthmus.discover(module, torch.zeros(2, 4, dtype=torch.float64), verify=False)
    weights = dict(module.state_dict())
    draw = torch.Generator().manual_seed(3)
    factors = {
        f"{layer}.lora_{factor}.default.weight": torch.randn(shape, generator=draw, dtype=torch.float64)
        for layer, factor, shape in (("2", "A", (3, 6)), ("2", "B", (5, 3)), ("4", "A", (3, 5)), ("4", "B", (2, 3)))
    }
    both = {**weights, **factors}

    def outputs(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        merged = dict(tensors)
        for layer in ("2", "4"):
            a, b = (merged.pop(f"{layer}.lora_{factor}.default.weight") for factor in "AB")
            merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + b @ a
        return torch.func.functional_call(module, merged, (x,))

    wide = accompanied(symmetry, both, companions_in(both, symmetry))
    moved = wide.random(torch.Generator().manual_seed(4)).apply(both)
    x = torch.randn(7, 4, dtype=torch.float64)
    assert torch.allclose(outputs(moved, x), outputs(both, x), rtol=1e-12)
    without = symmetry.random(torch.Generator().manual_seed(4)).apply(both)
    assert not torch.allclose(outputs(without, x), outputs(both, x), rtol=1e-2)


def test_gradients_scale_against_weights_and_magnitudes_do_not_flip() -> None:
    index = torch.tensor([[0], [1]])
    site = Site("w", 0, index)
    groups = (UnitGroup("g", 2, (site,), "scale"), UnitGroup("s", 2, (site,), "sign"))
    symmetry = Symmetry(groups, {"w": (2, 1)})
    state = {f"{kind}.w": torch.ones(2, 1) for kind in ("exp_avg", "exp_avg_sq", "exp_inf")}
    weights = {"w": torch.ones(2, 1), **state}
    wide = accompanied(symmetry, weights, companions_in(weights, symmetry))
    grown = scaled(weights, wide.groups[0], torch.tensor([2.0, 1.0]))
    values = [float(grown[f"{kind}.w"][0]) for kind in ("exp_avg", "exp_avg_sq", "exp_inf")]
    assert values == [0.5, 0.25, 0.5]
    flipped = scaled(weights, wide.groups[1], torch.tensor([-1.0, 1.0]))
    assert [float(flipped[f"{kind}.w"][0]) for kind in ("exp_avg", "exp_avg_sq", "exp_inf")] == [-1, 1, 1]


def test_what_is_refused() -> None:
    within = ((0, torch.tensor([0])),)
    group = UnitGroup("g", 2, (Site("w", 1, torch.tensor([[0], [1]]), within=within),))
    symmetry = Symmetry((group,), {"w": (2, 2)})
    with pytest.raises(SymmetryError, match="do not: a"):
        accompanied(symmetry, {"a": torch.ones(2)}, {"a": Companion("nope", (0,))})
    with pytest.raises(SymmetryError, match="sizes of those"):
        accompanied(symmetry, {"a": torch.ones(3)}, {"a": Companion("w", (1,))})
    with pytest.raises(SymmetryError, match="slices of its axis 0"):
        accompanied(symmetry, {"a": torch.ones(2)}, {"a": Companion("w", (1,))})
    with pytest.raises(SymmetryError, match="every parameter"):
        optimiser_tensors({"state": {3: {"exp_avg": torch.ones(2)}}}, ["w"])
