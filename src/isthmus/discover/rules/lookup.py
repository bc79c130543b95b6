"""Lookups: rows of tables, entries by index, scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from isthmus.discover.labels import Labels, Layer, aligned, constant, permuted, positional
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.movement import literal
from isthmus.discover.rules.registry import rule

_ROWS = "is read at positions that depend on the input"
_EXPERTS = "is an expert's matrix, chosen by the input"


@rule("embedding")
def embedding(ledger: Ledger, table: Labels, index: Labels, *_: Any, **__: Any) -> Labels:
    """Rows of a table: which row is asked for is given from outside, so rows stay, and columns are handed on."""
    return _rows(ledger, table, 0, index)


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(ledger: Ledger, table: Labels, index: Labels, *_: Any, **__: Any) -> Any:
    """Sums of rows."""
    rows = ledger.reduce(ledger.order(table, 0), [0])
    shape = ledger.shape
    result = Labels(shape, (*aligned(rows, shape).layers, positional(shape, [0])))
    return ledger.first_of(result)


def _rows(ledger: Ledger, table: Labels, dim: int, index: Labels) -> Labels:
    """``table`` read along ``dim`` at ``index`` (any shape), whose axes take the place of ``dim``."""
    ledger.pin(index, "chooses which rows are read")
    table = ledger.order(table, dim, _ROWS)
    rest = ledger.reduce(table, [dim], keepdim=True)
    shape = (*table.shape[:dim], *index.shape, *table.shape[dim + 1 :])
    layers = [_opened(layer, dim, index.rank) for layer in rest.layers]
    axes = [dim + axis for axis in range(index.rank) if index.shape[axis] > 1]
    if axes:
        layers.append(positional(shape, axes))
    # What else told rows apart (a pinned pattern over rows and columns) may differ between rows.
    for layer in table.layers:
        if layer.pinned and layer.ids.shape[dim] > 1 and len(layer.axes) > 1:
            layers.append(
                positional(shape, [axis + (index.rank - 1) * (axis > dim) for axis in layer.axes if axis != dim])
            )
    return Labels(shape, ledger.settle(layers, shape))


def _opened(layer: Layer, dim: int, rank: int) -> Layer:
    shape = layer.ids.shape
    return Layer(layer.ids.reshape(*shape[:dim], *(1,) * rank, *shape[dim + 1 :]), layer.pinned, layer.distinct)


@rule("index_select")
def index_select(ledger: Ledger, value: Labels, dim: int, index: Labels) -> Labels:
    """Positions along an axis."""
    if index.constant is not None:
        return literal(ledger, value, lambda ids: ids.index_select(dim, index.constant))
    return _rows(ledger, value, dim % value.rank, index)


@rule("index", "_unsafe_index")
def index(ledger: Ledger, value: Labels, indices: Sequence[Labels | None]) -> Labels:
    """x[i, j, …]."""
    given = [i for i in indices if i is not None]
    if all(i.constant is not None for i in given) and not (len(given) == 1 and _uneven(given[0])):
        real = tuple(slice(None) if i is None else i.constant for i in indices)
        return literal(ledger, value, lambda ids: ids[real])
    if any(i.constant is not None and i.constant.dtype == torch.bool for i in given):
        return ledger.opaque([value, *given], ledger.shape, _ROWS)
    axes = [axis for axis, i in enumerate(indices) if i is not None]
    if len(axes) == 1:
        return _rows(ledger, value, axes[0], given[0])
    if axes != list(range(axes[0], axes[-1] + 1)):
        return ledger.opaque([value, *given], ledger.shape, _ROWS)
    return _joint_rows(ledger, value, axes, given)


def _uneven(index: Labels) -> bool:
    """Whether a fixed index reads some rows more often than others, as tables of relative positions do."""
    picked = index.constant
    if picked is None or picked.dtype == torch.bool or picked.dim() == 0:
        return False
    return len(picked.unique(return_counts=True)[1].unique()) > 1


def _joint_rows(ledger: Ledger, value: Labels, axes: list[int], given: list[Labels]) -> Labels:
    for i in given:
        ledger.pin(i, "chooses which entries are read")
    for axis in axes:
        value = ledger.order(value, axis, _ROWS)
    rest = ledger.reduce(value, axes)
    common = torch.broadcast_shapes(*[i.shape for i in given])
    shape = ledger.shape
    layers = [
        Layer(
            layer.ids.reshape(*layer.ids.shape[: axes[0]], *(1,) * len(common), *layer.ids.shape[axes[0] :]),
            layer.pinned,
            layer.distinct,
        )
        for layer in rest.layers
    ]
    layers.append(positional(shape, [axes[0] + k for k in range(len(common))]))
    return Labels(shape, ledger.settle(layers, shape))


@rule("gather", "take_along_dim")
def gather(ledger: Ledger, value: Labels, dim: int, index: Labels, **_: Any) -> Labels:
    """Entries along an axis at an index that varies over all axes."""
    if index.constant is not None and index.constant.shape == torch.Size(ledger.shape):
        picked = index.constant
        return literal(ledger, value, lambda ids: ids.contiguous().gather(dim, picked))
    dim %= value.rank
    value = ledger.order(value, dim, _ROWS)
    rest = ledger.reduce(value, [dim], keepdim=True)
    rest = Labels(tuple(ledger.shape), rest.layers)
    met = ledger.meet(rest, Labels(tuple(ledger.shape), tuple(index.layers)))
    return ledger.order(met, dim)


@rule("take")
def take(ledger: Ledger, value: Labels, index: Labels) -> Labels:
    """Entries of a flattened value."""
    return ledger.opaque([value, index], ledger.shape, _ROWS)


@rule("transformers.grouped_mm_fallback", "_grouped_mm")
def grouped_mm(
    ledger: Ledger,
    rows: Labels,
    tables: Labels,
    ends: Labels | None = None,
    bias: Labels | None = None,
    *_: Any,
    **__: Any,
) -> Labels:
    """Rows sorted by expert, each times its own expert's matrix; ``ends`` says where each expert's rows end.

    Which row meets which expert is up to the input. Labels stand for one assignment, in turn, in which rows of one
    number always meet one expert; the experts themselves stay.
    """
    number = tables.shape[0] if tables.rank == 3 else 0
    if rows.rank != 2 or tables.rank != 3 or ends is None or bias is not None or rows.shape[0] < number:
        why = "has more experts than rows: a longer example frees them" if rows.shape[0] < number else _EXPERTS
        return ledger.opaque([v for v in (rows, tables, ends, bias) if v is not None], ledger.shape, why)
    ledger.pin(ends, "says which rows go to which expert")
    ledger.want_slices(tables, 0, 1 if ledger.sliced(rows, 1) else 2)
    tables = ledger.order(tables, 0, _EXPERTS)
    turn = torch.arange(rows.shape[0]) % number
    met = literal(ledger, tables, lambda ids: ids.index_select(0, turn))
    return ledger.contract("az,azb->ab", rows, met)


@rule("one_hot")
def one_hot(ledger: Ledger, value: Labels, *_: Any) -> Labels:
    """Integers as unit vectors: the new axis is in order."""
    ledger.pin(value, "chooses a class")
    return Labels(tuple(ledger.shape), (positional(ledger.shape),))


@rule("bucketize", "searchsorted")
def bucket(ledger: Ledger, *values: Any, **__: Any) -> Labels:
    """Places among sorted boundaries."""
    return ledger.opaque([v for v in values if isinstance(v, Labels)], ledger.shape, "sorts values into intervals")


@rule("constant_of")
def constant_of(ledger: Ledger, value: torch.Tensor) -> Labels:
    """A tensor as it is."""
    return constant(value)


@rule(
    "select_scatter",
    "slice_scatter",
    "scatter",
    "scatter_add",
    "index_add",
    "index_put",
    "index_copy",
    "scatter_reduce",
)
def scattered(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> Labels:
    """Entries written into a value along axes whose places matter; units along other axes meet as they lie."""
    others = [a for a in [*arguments, *keywords.values()] if isinstance(a, Labels)]
    nested = [
        a for argument in arguments if isinstance(argument, (list, tuple)) for a in argument if isinstance(a, Labels)
    ]
    if ledger.operation.startswith(("aten.slice_scatter", "aten.select_scatter")):
        return _written_over(ledger, value, *arguments, **keywords)
    return ledger.opaque([value, *others, *nested], ledger.shape, "writes entries at given positions")


def _written_over(ledger: Ledger, value: Labels, source: Labels, dim: int = 0, *place: Any, **named: Any) -> Labels:
    """A slice of a value replaced by another value."""
    from isthmus.discover.labels import reshaped
    from isthmus.discover.rules.movement import cat, narrowed

    dim %= value.rank
    if ledger.operation.startswith("aten.select_scatter"):
        first = int(place[0] if place else named["index"]) % value.shape[dim]
        last, step = first + 1, 1
        source = reshaped(source, (*value.shape[:dim], 1, *value.shape[dim + 1 :]))
    else:
        start, end, step = [*place, *(None,) * (3 - len(place))]
        start, end, step = named.get("start", start), named.get("end", end), named.get("step", step) or 1
        first, last, step = slice(start, end, step).indices(value.shape[dim])
    if step != 1:
        return ledger.opaque([value, source], ledger.shape, "writes entries at given positions")
    parts = [
        narrowed(ledger, value, dim, 0, first),
        source,
        narrowed(ledger, value, dim, last, value.shape[dim]),
    ]
    parts = [part for part in parts if part.shape[dim]]
    return permuted(cat(ledger, parts, dim), range(value.rank))
