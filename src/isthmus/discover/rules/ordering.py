"""Operations for which order along an axis matters: running sums, sorting, recurrences in time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from isthmus.discover.labels import Labels, constant, fixed
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule

_ALONG = "runs in order along the axis on which these units lie"


@rule("cumsum", "cumprod", "logcumsumexp", "diff")
def running(ledger: Ledger, value: Labels, dim: int = -1, *_: Any, **__: Any) -> Labels:
    """Each entry depends on those before it."""
    if ledger.shape != value.shape:
        return ledger.opaque([value], ledger.shape, _ALONG)
    return ledger.order(value, dim, _ALONG)


@rule("cummax", "cummin")
def running_extreme(ledger: Ledger, value: Labels, dim: int) -> tuple[Labels, Labels]:
    """Running extremes and their positions."""
    result = ledger.order(value, dim, _ALONG)
    return result, result


@rule("sort", "topk")
def sorting(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> tuple[Labels, Labels]:
    """Sorted values depend on the set only; positions point back to the units, which pins them unless nobody looks."""
    dim = keywords.get("dim")
    if dim is None:
        integers = [a for a in arguments if isinstance(a, int) and not isinstance(a, bool)]
        start = 1 if ledger.operation.startswith("aten.topk") else 0
        dim = integers[start] if len(integers) > start else -1
    choice = None
    if ledger.used(1):
        told = ledger.operation.startswith("aten.topk")
        choice = choice_of(value, dim, ledger.shape, lenient=ledger.lenient) if told else None
    if ledger.used(1) and choice is None:
        value = ledger.order(value, dim, "tells positions along the axis on which these units lie")
    reduced = ledger.reduce(value, [dim], keepdim=True)
    shape = list(value.shape)
    shape[dim] = ledger.shape[dim]
    places = ledger.order(Labels(tuple(shape), reduced.layers), dim)
    return places, places if choice is None else choice


def choice_of(value: Labels, dim: int, shape: Sequence[int], *, lenient: bool = False) -> Labels | None:
    """The numbers of units that an input chooses along an axis, if these could be any: one choice stands for all.

    Units are chosen in turn, so that neighbours are different and all are chosen; a shorter example than there are
    units cannot show all of them.
    """
    dim %= value.rank
    along = [layer for layer in value.layers if layer.ids.shape[dim] > 1]
    if len(along) != 1 or along[0].pinned or len(along[0].axes) != 1:
        return None
    units = along[0].ids.reshape(-1)
    if len(units.unique()) != len(units) or (math.prod(shape) < len(units) and not lenient):
        return None
    last = [size for axis, size in enumerate(shape) if axis != dim] if len(shape) == value.rank else list(shape)
    count = shape[dim] if len(shape) == value.rank else 1
    turn = (torch.arange(math.prod(shape)) % len(units)).reshape(*last, count)
    picked = turn.movedim(-1, dim) if len(shape) == value.rank else turn.reshape(tuple(shape))
    return dataclasses.replace(constant(picked.contiguous()), refers=units)


@rule("argsort")
def argument_order(ledger: Ledger, value: Labels, *arguments: Any, **__: Any) -> Labels:
    """Positions in sorted order."""
    return ledger.opaque([value], ledger.shape, "tells positions along the axis on which these units lie")


@rule("randn", "rand", "randint", "randperm", "rand_like", "randn_like", "randint_like")
def random(ledger: Ledger, *_: Any, **__: Any) -> Labels:
    """Random numbers are as good as an input."""
    return fixed(ledger.shape)


_DRAWN = "draws a random number for each of its units"


@rule("bernoulli", "normal", "poisson", "binomial", "_standard_gamma", "rrelu_with_noise")
def drawn(ledger: Ledger, *arguments: Any, **keywords: Any) -> Labels:
    """Random numbers about entries of a value: which entry gets which is as good as an input."""
    values = [value for value in [*arguments, *keywords.values()] if isinstance(value, Labels)]
    for value in values:
        for layer in value.movable:
            ledger.obstacle(layer.ids.unique(), _DRAWN)
    return ledger.meet(*values, fixed(ledger.shape))


@rule(
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
    "native_dropout",
    "_fused_dropout",
    "rrelu",
)
def dropped_out(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> Any:
    """Nothing, or random numbers where a module asks for them in evaluation, too."""
    if not any(argument is True for argument in [*arguments, *keywords.values()]):
        return ledger.first_of(value)
    result = drawn(ledger, value)
    return (result, *[result] * (ledger.outputs - 1)) if ledger.outputs > 1 else result


@rule("multinomial")
def multinomial(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Labels:
    """Units drawn by their weights: the same random numbers stand for other units once these are exchanged."""
    return ledger.opaque([value], ledger.shape, "draws units by their numbers")
