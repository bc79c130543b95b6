"""Operations for which order along an axis matters: running sums, sorting, recurrences in time."""

from __future__ import annotations

from typing import Any

from isthmus.discover.labels import Labels, fixed
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
    if ledger.used(1):
        value = ledger.order(value, dim, "tells positions along the axis on which these units lie")
    reduced = ledger.reduce(value, [dim], keepdim=True)
    shape = list(value.shape)
    shape[dim] = ledger.shape[dim]
    places = ledger.order(Labels(tuple(shape), reduced.layers), dim)
    return places, places


@rule("argsort")
def argument_order(ledger: Ledger, value: Labels, *arguments: Any, **__: Any) -> Labels:
    """Positions in sorted order."""
    return ledger.opaque([value], ledger.shape, "tells positions along the axis on which these units lie")


@rule("randn", "rand", "randint", "randperm", "bernoulli", "rand_like", "randn_like", "normal", "multinomial")
def random(ledger: Ledger, *_: Any, **__: Any) -> Labels:
    """Random numbers are as good as an input."""
    return fixed(ledger.shape)
