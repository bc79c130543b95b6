"""Completeness by brute force: every transposition of hidden coordinates that keeps the function was found."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from tests.discover.case import Calls, lin
from tests.discover.compact_modules import COMPACT
from tests.discover.modules import CASES
from tests.discover.sequence_modules import SEQUENCES
from torch import Tensor, nn

import isthmus
from isthmus.core.weights import Weights
from isthmus.discover.verify import difference, module_call, random_weights


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Hidden coordinates and where coordinate i appears: (tensor, dim, position of i), changed together."""

    count: int
    places: tuple[tuple[str, int, Callable[[int], list[int]]], ...]

    def swapped(self, weights: Weights, i: int, j: int) -> dict[str, Tensor]:
        result = dict(weights)
        for tensor, dim, where in self.places:
            order = torch.arange(result[tensor].shape[dim])
            order[where(i)], order[where(j)] = torch.tensor(where(j)), torch.tensor(where(i))
            result[tensor] = result[tensor].index_select(dim, order)
        return result


def at(*places: tuple[str, int]) -> tuple[tuple[str, int, Callable[[int], list[int]]], ...]:
    return tuple((tensor, dim, lambda i: [i]) for tensor, dim in places)


def both(module: nn.Module, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((f"{name}.{part}", 0) for name in names for part in ("weight", "bias"))


def flattened() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), lin(16, 5), nn.Tanh(), lin(5, 2)
    )


PARTS = ("weight", "bias")

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[Coordinates, ...]]] = {
    "convolution and flatten": (
        flattened,
        (2, 2, 4, 4),
        (
            Coordinates(
                4,
                (
                    *at(("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0)),
                    *at(("1.running_mean", 0), ("1.running_var", 0)),
                    ("4.weight", 1, lambda i: list(range(4 * i, 4 * i + 4))),
                ),
            ),
            Coordinates(5, at(("4.weight", 0), ("4.bias", 0), ("6.weight", 1))),
            Coordinates(16, at(("4.weight", 1))),  # columns alone: nothing keeps the function
        ),
    ),
    "residual": (
        CASES["residual"].make,
        (2, 5),
        (
            Coordinates(
                6, at(("i.weight", 0), ("i.bias", 0), ("a.weight", 1), ("b.weight", 0), ("b.bias", 0), ("o.weight", 1))
            ),
            Coordinates(7, at(("a.weight", 0), ("a.bias", 0), ("b.weight", 1))),
            Coordinates(6, at(("i.weight", 0), ("i.bias", 0), ("a.weight", 1), ("o.weight", 1))),
        ),
    ),
    "attention": (
        lambda: Calls(
            lambda m, x: m.o(m.at(x, x, x, need_weights=False)[0]),
            at=nn.MultiheadAttention(6, 2, batch_first=True),
            o=lin(6, 2),
        ),
        (2, 4, 6),
        (
            Coordinates(6, tuple((f"at.in_proj_{p}", 0, lambda i: [i, 6 + i]) for p in ("weight", "bias"))),
            Coordinates(
                6,
                (
                    *((f"at.in_proj_{p}", 0, lambda i: [12 + i]) for p in ("weight", "bias")),
                    *at(("at.out_proj.weight", 1)),
                ),
            ),
            Coordinates(6, at(("at.out_proj.weight", 0), ("at.out_proj.bias", 0), ("o.weight", 1))),
        ),
    ),
    "rotary": (
        CASES["rotary"].make,
        (2, 4, 6),
        (
            Coordinates(12, at(("q.weight", 0), ("q.bias", 0), ("k.weight", 0), ("k.bias", 0))),
            Coordinates(10, at(("v.weight", 0), ("v.bias", 0), ("o.weight", 1))),
        ),
    ),
    "grouped queries": (
        CASES["grouped queries"].make,
        (2, 4, 6),
        (
            Coordinates(
                6,
                (
                    *at(("k.weight", 0), ("k.bias", 0)),
                    *(
                        (f"q.{p}", 0, lambda i: [6 * (i // 3) + i % 3, 6 * (i // 3) + 3 + i % 3])
                        for p in ("weight", "bias")
                    ),
                ),
            ),
            Coordinates(
                10,
                (
                    *at(("v.weight", 0), ("v.bias", 0)),
                    ("o.weight", 1, lambda i: [10 * (i // 5) + i % 5, 10 * (i // 5) + 5 + i % 5]),
                ),
            ),
            Coordinates(
                4,
                (
                    *((f"q.{p}", 0, lambda i: list(range(3 * i, 3 * i + 3))) for p in ("weight", "bias")),
                    ("o.weight", 1, lambda i: list(range(5 * i, 5 * i + 5))),
                ),
            ),
        ),
    ),
    "group norm": (
        CASES["group norm"].make,
        (2, 3, 8, 8),
        (Coordinates(12, at(("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("3.weight", 1))),),
    ),
    # Units j of heads h: four gates' rows, and both axes of the head's recurrent weights. Coordinate 3 h + j.
    "recurrent heads": (
        SEQUENCES["recurrent heads"].make,
        (2, 3, 5),
        (
            Coordinates(
                2,
                (
                    *((f"a.{p}", 0, lambda h: [6 * g + 3 * h + j for g in range(4) for j in range(3)]) for p in PARTS),
                    *at(("r", 0)),
                    ("o.weight", 1, lambda h: [3 * h, 3 * h + 1, 3 * h + 2]),
                ),
            ),
            Coordinates(
                6, (*((f"a.{p}", 0, lambda i: [6 * g + i for g in range(4)]) for p in PARTS), *at(("o.weight", 1)))
            ),
        ),
    ),
    # Blocks k, and places j in each: the first's columns are the second's blocks.
    "monarch": (
        COMPACT["monarch"].make,
        (2, 5),
        (
            Coordinates(
                2,
                (
                    *at(("first", 0), ("second", 1)),
                    *((f"i.{p}", 0, lambda k: [3 * k, 3 * k + 1, 3 * k + 2]) for p in PARTS),
                ),
            ),
            Coordinates(3, (*at(("first", 2), ("second", 0)), ("o.weight", 1, lambda j: [2 * j, 2 * j + 1]))),
            Coordinates(3, at(("first", 2), ("second", 0))),
            Coordinates(6, at(("i.weight", 0), ("i.bias", 0))),
        ),
    ),
    # Query, key and prefix channels are one head's; prefixes have an order in each head, which moves no whole axis.
    "learned prefix": (
        SEQUENCES["learned prefix"].make,
        (2, 5, 6),
        (
            Coordinates(
                2,
                (
                    *at(("pk", 1), ("pv", 1)),
                    *((f"{n}.{p}", 0, lambda h: list(range(4 * h, 4 * h + 4))) for n in "qkv" for p in PARTS),
                    ("o.weight", 1, lambda h: list(range(4 * h, 4 * h + 4))),
                ),
            ),
            Coordinates(3, at(("pk", 2))),
            Coordinates(8, tuple((f"{n}.{p}", 0, lambda i: [i]) for n in "qk" for p in PARTS)),
        ),
    ),
    "zeros for the key": (
        SEQUENCES["zeros for the key"].make,
        (2, 5, 6),
        (
            Coordinates(8, (("w", 0, lambda i: [i, 8 + i]), *at(("qb", 0)))),
            Coordinates(8, (("w", 0, lambda i: [16 + i]), *at(("vb", 0), ("o.weight", 1)))),
            Coordinates(8, (("w", 0, lambda i: [8 + i]),)),
        ),
    ),
    "lstm": (
        lambda: Calls(lambda m, x: m.o(m.l(x)[0]), l=nn.LSTM(3, 4, batch_first=True), o=lin(4, 2)),
        (2, 5, 3),
        (
            Coordinates(
                4,
                (
                    *(
                        (f"l.{n}_l0", 0, lambda i: [i, 4 + i, 8 + i, 12 + i])
                        for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    ),
                    *at(("l.weight_hh_l0", 1), ("o.weight", 1)),
                ),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_transposition_keeps_the_function_exactly_if_it_was_found(name: str) -> None:
    make, shape, layers = NETWORKS[name]
    torch.manual_seed(0)
    module = make()
    generator = torch.Generator().manual_seed(1)
    inputs = (torch.randn(shape, generator=generator, dtype=torch.float64),)
    weights = random_weights(dict(module.state_dict(keep_vars=True)), generator, torch.float64)
    call = module_call(module)
    before = call(weights, inputs, {})
    symmetry = isthmus.discover(module, inputs[0].float())
    kept = 0
    for layer in layers:
        for i, j in itertools.combinations(range(layer.count), 2):
            swapped = layer.swapped(weights, i, j)
            keeps = difference(before, call(swapped, inputs, {})) < 1e-10
            assert keeps == _found(symmetry, weights, swapped), (layer.places[0][:2], i, j)
            kept += keeps
    assert kept


def _found(symmetry: isthmus.Symmetry, weights: Weights, swapped: Weights) -> bool:
    """Whether a transposition of two units of some group gives exactly these weights."""
    changed = {name for name in weights if not torch.equal(weights[name], swapped[name])}
    for group in symmetry.groups:
        if {site.tensor for site in group.sites} != changed:  # all entries differ: it would change other tensors
            continue
        for i, j in itertools.combinations(range(group.size), 2):
            index = torch.arange(group.size)
            index[i], index[j] = j, i
            moved = isthmus.Permutation(symmetry, {group.name: index}).apply(weights)
            if all(torch.equal(moved[name], swapped[name]) for name in weights):
                return True
    return False
