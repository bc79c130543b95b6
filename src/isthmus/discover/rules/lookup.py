"""Lookups: rows of tables, entries by index, scatters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from isthmus.discover import splitting
from isthmus.discover.labels import Labels, Layer, aligned, constant, fixed, positional
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.movement import literal
from isthmus.discover.rules.registry import rule

_ROWS = "is read at positions that depend on the input"
_EXPERTS = "is an expert's matrix, chosen by the input"


@rule("embedding", choosing=True)
def embedding(ledger: Ledger, table: Labels, index: Labels, *_: Any, **__: Any) -> Labels:
    """Rows of a table: which row is asked for is given from outside, so rows stay, and columns are handed on."""
    if index.refers is not None and ledger.route(table, 0, index):
        return _picked(ledger, table, 0, index)
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
    table = ledger.order(table, dim, _ROWS)
    rest = ledger.reduce(table, [dim], keepdim=True)
    shape = (*table.shape[:dim], *index.shape, *table.shape[dim + 1 :])
    layers = [_opened(layer, dim, index.rank) for layer in rest.layers]
    # Rows stand still, so which one is read differs as the index does; units that say it (experts that choose tokens)
    # are taken along. Of units that an input chose the index shows one choice only.
    told = fixed(index.shape).layers if index.refers is not None else index.layers
    left, right = (1,) * dim, (1,) * (table.rank - dim - 1)
    layers += [dataclasses.replace(part, ids=part.ids.reshape(*left, *part.ids.shape, *right)) for part in told]
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


def _picked(ledger: Ledger, table: Labels, dim: int, index: Labels) -> Labels:
    """``table`` read along ``dim`` at units that the input chose."""
    picked = index.constant
    assert picked is not None
    at = (slice(None),) * dim + (picked.long(),)
    return literal(ledger, table, lambda ids: ids[at], choose=False)


@rule("index_select", choosing=True)
def index_select(ledger: Ledger, value: Labels, dim: int, index: Labels) -> Labels:
    """Positions along an axis."""
    dim %= value.rank
    if index.refers is not None and ledger.route(value, dim, index):
        return _picked(ledger, value, dim, index)
    picked = index.constant
    # How many rows there are may depend on values; then a stand-in for their number says nothing about which are read.
    if picked is not None and (not picked.numel() or int(picked.max()) < value.shape[dim]):
        return literal(ledger, value, lambda ids: ids.index_select(dim, picked))
    return _rows(ledger, value, dim, index)


@rule("index", "_unsafe_index", choosing=True)
def index(ledger: Ledger, value: Labels, indices: Sequence[Labels | None]) -> Labels:
    """x[i, j, …]."""
    given = [i for i in indices if i is not None]
    if len(given) == 1 and given[0].refers is not None and given[0].constant.dtype != torch.bool:  # type: ignore[union-attr]
        axis = next(axis for axis, i in enumerate(indices) if i is not None)
        if ledger.route(value, axis, given[0]):
            return _picked(ledger, value, axis, given[0])
    for i in given:
        if i.refers is not None:
            ledger.stop(i, _ROWS)
    # What an input chose stands for any choice: how many rows a mask of it takes is not known.
    indices = [fixed(i.shape) if i and i.refers is not None else i for i in indices]
    given = [i for i in indices if i is not None]
    if all(i.constant is not None for i in given) and not (len(given) == 1 and _uneven(given[0])):
        real = tuple(slice(None) if i is None else i.constant for i in indices)
        return literal(ledger, value, lambda ids: ids[real])
    axes = [axis for axis, i in enumerate(indices) if i is not None]
    if axes != list(range(axes[0], axes[-1] + 1)):
        return ledger.opaque([value, *given], ledger.shape, _ROWS)
    first = given[0]
    if len(axes) == 1 and ledger.shape == (*value.shape[: axes[0]], *first.shape, *value.shape[axes[0] + 1 :]):
        return _rows(ledger, value, axes[0], first)
    if len(axes) == 1 and len(ledger.shape) == value.rank - first.rank + 1:  # a mask: all its axes become one
        return _joint_rows(ledger, value, list(range(axes[0], axes[0] + first.rank)), given, 1)
    return _joint_rows(ledger, value, axes, given, max(i.rank for i in given))


def _uneven(index: Labels) -> bool:
    """Whether a fixed index reads some rows more often than others, as tables of relative positions do."""
    picked = index.constant
    if picked is None or picked.dtype == torch.bool or picked.dim() == 0:
        return False
    return len(picked.unique(return_counts=True)[1].unique()) > 1


def _joint_rows(ledger: Ledger, value: Labels, axes: list[int], given: list[Labels], new: int) -> Labels:
    """Entries read along several axes at once, which ``new`` axes take the place of."""
    for i in given:
        ledger.pin(i, "chooses which entries are read")
    for axis in axes:
        value = ledger.order(value, axis, _ROWS)
    rest = ledger.reduce(value, axes)
    shape = ledger.shape
    layers = [
        Layer(
            layer.ids.reshape(*layer.ids.shape[: axes[0]], *(1,) * new, *layer.ids.shape[axes[0] :]),
            layer.pinned,
            layer.distinct,
        )
        for layer in rest.layers
    ]
    layers.append(positional(shape, [axes[0] + k for k in range(new)]))
    return Labels(shape, ledger.settle(layers, shape))


@rule("gather", "take_along_dim", choosing=True)
def gather(ledger: Ledger, value: Labels, dim: int, index: Labels, **_: Any) -> Labels:
    """Entries along an axis at an index that varies over all axes."""
    if index.refers is not None and index.told != "numbers":
        ledger.stop(index, _ROWS)
        index = fixed(index.shape)
    if index.refers is not None:
        return _gathered(ledger, value, dim % value.rank, index)
    if index.constant is not None and index.constant.shape == torch.Size(ledger.shape):
        picked = index.constant
        return literal(ledger, value, lambda ids: ids.contiguous().gather(dim, picked))
    dim %= value.rank
    value = ledger.order(value, dim, _ROWS)
    rest = ledger.reduce(value, [dim], keepdim=True)
    rest = Labels(tuple(ledger.shape), rest.layers)
    met = ledger.meet(rest, Labels(tuple(ledger.shape), tuple(index.layers)))
    return ledger.order(met, dim)


def _gathered(ledger: Ledger, value: Labels, dim: int, index: Labels) -> Labels:
    """Entries at units that the input chose: those of the same units for whoever reads the same choice."""
    assert index.refers is not None
    along = [layer for layer in value.layers if layer.ids.shape[dim] > 1]
    if len(along) == 1 and along[0].axes == {dim} and not along[0].pinned and value.shape[dim] == len(index.refers):
        ledger.tie(along[0].ids.reshape(-1), index.refers)
    else:
        ledger.stop(index, _ROWS)
        value = ledger.order(value, dim, _ROWS)
    rest = ledger.reduce(value, [dim], keepdim=True)
    return ledger.order(Labels(tuple(ledger.shape), rest.layers), dim)


@rule("take")
def take(ledger: Ledger, value: Labels, index: Labels) -> Labels:
    """Entries of a flattened value."""
    return ledger.opaque([value, index], ledger.shape, _ROWS)


@rule("transformers.grouped_mm_fallback", "_grouped_mm", choosing=True)
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

    Which row meets which expert is up to the input. Labels stand for one assignment in which every expert has rows.
    """
    number = tables.shape[0] if tables.rank == 3 else 0
    if rows.rank != 2 or tables.rank != 3 or ends is None or bias is not None or rows.shape[0] < number:
        why = "has more experts than rows: a longer example frees them" if rows.shape[0] < number else _EXPERTS
        if ends is not None and ends.refers is not None:
            ledger.stop(ends, why)
        return ledger.opaque([v for v in (rows, tables, ends, bias) if v is not None], ledger.shape, why)
    splitting.want_slices(ledger, tables, 0, 1 if splitting.sliced(ledger, rows, 1) else 2)
    turn = torch.arange(rows.shape[0]) % number
    if ends.refers is not None:
        assert ends.constant is not None
        turn = torch.searchsorted(ends.constant.long().contiguous(), torch.arange(rows.shape[0]), right=True)
        free = ledger.route(tables, 0, dataclasses.replace(ends, constant=turn.clamp(max=number - 1), told="numbers"))
        turn = turn.clamp(max=number - 1)
    else:
        free = False
        ledger.pin(ends, "says which rows go to which expert")
    tables = tables if free else ledger.order(tables, 0, _EXPERTS)
    met = literal(ledger, tables, lambda ids: ids.index_select(0, turn), choose=not free)
    return ledger.contract("az,azb->ab", rows, met)


@rule("one_hot", choosing=True)
def one_hot(ledger: Ledger, value: Labels, *_: Any) -> Labels:
    """Integers as unit vectors: the new axis is in order, or that of the units that the input chose."""
    shape = tuple(ledger.shape)
    if value.refers is not None and shape[-1] == len(value.refers) and value.told == "numbers":
        places = positional(shape, range(len(shape) - 1))
        return Labels(shape, (places, Layer(value.refers.reshape(*(1,) * value.rank, -1), distinct=True)))
    if value.refers is not None:
        ledger.stop(value, "chooses a class")
    ledger.pin(value, "chooses a class")
    return Labels(shape, (positional(shape),))


@rule("bucketize", "searchsorted")
def bucket(ledger: Ledger, *values: Any, **__: Any) -> Labels:
    """Places among sorted boundaries."""
    return ledger.opaque([v for v in values if isinstance(v, Labels)], ledger.shape, "sorts values into intervals")


@rule("constant_of")
def constant_of(ledger: Ledger, value: torch.Tensor) -> Labels:
    """A tensor as it is."""
    return constant(value)


@rule("nonzero", "nonzero_numpy", "argwhere", "nonzero_static")
def places_of(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Any:
    """The places where something holds: given from outside, as far as units go."""
    ledger.pin(value, "tells at which places something holds")
    made = [fixed(shape) for shape in ledger.shapes]
    return made if ledger.several else made[0]


@rule("masked_select")
def masked_select(ledger: Ledger, value: Labels, mask: Labels) -> Labels:
    """Entries where a mask holds, in one row."""
    return ledger.opaque([value, mask], ledger.shape, _ROWS)
