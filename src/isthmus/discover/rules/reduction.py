"""Reductions: symmetric functions of all entries along axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.discover import splitting
from isthmus.discover.labels import Labels
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.ordering import choice_of
from isthmus.discover.rules.registry import rule

_TOLD = "tells positions along the axis on which these units lie"


def _axes(value: Labels, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return list(range(value.rank))
    return [dim] if isinstance(dim, int) else list(dim)


@rule("sum", "mean", "nansum", "nanmean", "amax", "amin", "any", "all", "prod", "logsumexp", "count_nonzero")
def reduced(ledger: Ledger, value: Labels, dim: Any = None, keepdim: bool = False, **_: Any) -> Labels:
    """Over the axes that ``dim`` names, or all."""
    return _over(ledger, value, _axes(value, dim), keepdim=keepdim)


def _over(ledger: Ledger, value: Labels, dims: Sequence[int], *, keepdim: bool) -> Labels:
    axes = [axis % value.rank for axis in dims] if value.rank else []
    splitting.ask_alone(ledger, value, axes)
    return ledger.reduce(value, axes, keepdim=keepdim)


@rule("aminmax")
def extremes(ledger: Ledger, value: Labels, *, dim: int | None = None, keepdim: bool = False) -> tuple[Labels, Labels]:
    """Both extremes."""
    result = reduced(ledger, value, dim, keepdim)
    return result, result


@rule("var", "std", "var_mean", "std_mean")
def spread(
    ledger: Ledger, value: Labels, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **_: Any
) -> Any:
    """Variances; with the mean where the operation returns both."""
    result = _over(ledger, value, _axes(value, None if isinstance(dim, bool) else dim), keepdim=keepdim)
    return (result, result) if ledger.outputs > 1 else result


@rule("norm", "linalg_vector_norm", "native_norm")
def norm(
    ledger: Ledger, value: Labels, order: Any = 2, dim: Any = None, keepdim: bool = False, *_: Any, **__: Any
) -> Labels:
    """Vector norms."""
    return _over(ledger, value, _axes(value, dim), keepdim=keepdim)


@rule("frobenius_norm")
def frobenius(ledger: Ledger, value: Labels, dim: Any = None, keepdim: bool = False, **_: Any) -> Labels:
    """Matrix norms that are vector norms."""
    return _over(ledger, value, _axes(value, dim), keepdim=keepdim)


@rule("max", "min", "median", "nanmedian", "mode", "kthvalue")
def extreme(ledger: Ledger, value: Labels, dim: Any = None, keepdim: bool = False, *rest: Any) -> Any:
    """The extreme value; along an axis also its position, which pins the axis."""
    if isinstance(dim, Labels):
        return ledger.meet(value, dim)
    if dim is None:
        return ledger.reduce(value, range(value.rank))
    told = ledger.used(1) and ledger.operation.startswith("aten.max")
    choice = choice_of(value, dim, ledger.shapes[1], lenient=ledger.lenient) if told else None
    if ledger.used(1) and choice is None:
        value = ledger.order(value, dim, _TOLD)
    result = ledger.reduce(value, [dim], keepdim=bool(keepdim))
    return result, result if choice is None else choice


@rule("argmax", "argmin")
def position(ledger: Ledger, value: Labels, dim: int | None = None, keepdim: bool = False) -> Labels:
    """Positions are told: order matters."""
    if dim is not None and (choice := choice_of(value, dim, ledger.shape, lenient=ledger.lenient)) is not None:
        return choice
    axes = range(value.rank) if dim is None else [dim]
    for axis in axes:
        value = ledger.order(value, axis, _TOLD)
    return ledger.reduce(value, axes, keepdim=keepdim)
