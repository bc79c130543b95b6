"""Entries written or added at places: scatters, rows put back, slices replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from isthmus.discover.labels import Labels, Layer, aligned, fixed, permuted, positional, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.joining import cat
from isthmus.discover.rules.movement import narrowed
from isthmus.discover.rules.registry import rule

_WRITTEN = "is written at positions that depend on the input"


@rule("select_scatter", "slice_scatter")
def written_over(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> Labels:
    """A slice of a value replaced."""
    return _written_over(ledger, value, *arguments, **keywords)


@rule("index_add", "index_copy", "index_reduce", choosing=True)
def added_at(ledger: Ledger, value: Labels, dim: int, index: Labels, source: Labels, *_: Any, **__: Any) -> Labels:
    """Rows of a source put in or added at places along an axis that matter; units along other axes meet as they lie.

    Where the places come from what an input chose (rows sorted by expert), each row still goes back to its own place.
    """
    dim %= value.rank
    if index.refers is not None and index.told != "places":
        ledger.stop(index, _WRITTEN)
        index = fixed(index.shape)
    if ledger.operation.startswith("aten.index_add"):  # a sum: the order in which entries come does not matter
        layout = (*(1,) * dim, *index.shape, *(1,) * (source.rank - dim - 1))
        source = ledger.meet(source, reshaped(index, layout)) if source.rank else source
        value = ledger.order(value, dim, _WRITTEN)
    else:
        ledger.pin(index, "says where entries are written")
        value, source = (ledger.order(part, dim, _WRITTEN) for part in (value, source))
    parts = [ledger.reduce(part, [dim], keepdim=True) for part in (value, source)]
    shape = tuple(ledger.shape)
    rest = ledger.meet(*[Labels((*shape[:dim], 1, *shape[dim + 1 :]), part.layers) for part in parts])
    return ledger.meet(Labels(shape, rest.layers), Labels(shape, (positional(shape, [dim]),)))


@rule("scatter", "scatter_add", "scatter_reduce", choosing=True)
def scattered(
    ledger: Ledger, value: Labels, dim: int, index: Labels, source: Any = None, *_: Any, **named: Any
) -> Labels:
    """Entries written at places along an axis; those along other axes meet as they lie."""
    dim %= value.rank
    shape = tuple(ledger.shape)
    source = source if isinstance(source, Labels) else named.get("src", named.get("value"))
    given = [part for part in (value, source) if isinstance(part, Labels)]
    if index.refers is not None and index.told != "numbers":
        ledger.stop(index, _WRITTEN)
        index = fixed(index.shape)
    whole = all(index.shape[axis] == shape[axis] for axis in range(len(shape)) if axis != dim)
    if not whole:
        if index.refers is not None:
            ledger.stop(index, _WRITTEN)
        return ledger.opaque([*given, index], shape, _WRITTEN)
    narrow = (*shape[:dim], 1, *shape[dim + 1 :])
    if index.refers is not None and shape[dim] == len(index.refers) and _of_units_alone(value, dim):
        layout = [1] * len(shape)
        layout[dim] = -1
        axis = Layer(index.refers.reshape(layout), distinct=True)
        ledger.meet(value, Labels(shape, (axis,)))  # what is kept where nothing is written is the same units'
        parts = [ledger.reduce(value, [dim], keepdim=True)]
        given = given[1:]
    else:
        if index.refers is not None:
            ledger.stop(index, _WRITTEN)
        axis, parts = positional(shape, [dim]), []
    parts += [ledger.reduce(ledger.order(part, dim, _WRITTEN), [dim], keepdim=True) for part in [*given, index]]
    rest = ledger.meet(*[Labels(narrow, part.layers) for part in parts])
    return ledger.meet(Labels(shape, rest.layers), Labels(shape, (axis,)))


def _of_units_alone(value: Labels, dim: int) -> bool:
    """Whether entries along an axis differ only by which unit they are."""
    along = [layer for layer in value.layers if layer.ids.shape[dim] > 1]
    return all(not layer.pinned and layer.axes == {dim} for layer in along)


@rule("index_put")
def put(ledger: Ledger, value: Labels, indices: Sequence[Labels | None], source: Labels, *_: Any, **__: Any) -> Labels:
    """Entries written at given positions along the first axes; units along other axes meet as they lie."""
    given = [i for i in indices if i is not None]
    shape = value.shape
    axes = _first_axes(indices, shape, source)
    if axes is None:
        return ledger.opaque([value, source, *given], ledger.shape, _WRITTEN)
    for i in given:
        ledger.pin(i, "says where entries are written")
    for axis in range(axes):
        value = ledger.order(value, axis, _WRITTEN)
    rest = [ledger.reduce(value, range(axes))]
    left = source.rank - (len(shape) - axes)
    for axis in range(max(0, left)):
        source = ledger.order(source, axis, _WRITTEN)
    rest.append(ledger.reduce(source, range(left)) if left > 0 else source)
    met = ledger.meet(*[aligned(part, shape[axes:]) for part in rest])
    layers = tuple(dataclasses.replace(layer, ids=layer.ids[(None,) * axes]) for layer in met.layers)
    return ledger.meet(Labels(shape, layers), Labels(shape, (positional(shape, range(axes)),)))


def _first_axes(indices: Sequence[Labels | None], shape: Sequence[int], source: Labels) -> int | None:
    """How many of the first axes an index takes up, if it is one kind of index on these only."""
    given = [i for i in indices if i is not None]
    if any(i is None for i in indices[: len(given)]):
        return None
    if len(given) > 1 or given[0].rank < 2:
        return len(given)
    # A mask takes up as many axes as it has; integers take up one.
    return given[0].rank if given[0].shape == tuple(shape[: given[0].rank]) and source.rank < len(shape) else None


def _written_over(ledger: Ledger, value: Labels, source: Labels, dim: int = 0, *place: Any, **named: Any) -> Labels:
    """A slice of a value replaced by another value."""
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
