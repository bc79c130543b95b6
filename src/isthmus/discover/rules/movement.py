"""Data movement: run on the labels as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.discover.labels import Labels, Layer, aligned, dropped, moved, permuted, positional, reshaped, squeezed
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule


@rule(
    "view",
    "reshape",
    "_unsafe_view",
    "flatten",
    "unflatten",
    "view_as",
    "reshape_as",
    "_reshape_alias",
    "squeeze",
    "unsqueeze",
    "unsafe_view",
    "ravel",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "view_copy",
)
def reshape(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Labels:
    """Axes merged and split, entries in the same order."""
    return reshaped(value, ledger.shape)


@rule("permute")
def permute(ledger: Ledger, value: Labels, order: Sequence[int]) -> Labels:
    """Axes in another order."""
    return permuted(value, order)


@rule("transpose", "swapaxes", "swapdims")
def transpose(ledger: Ledger, value: Labels, one: int, other: int) -> Labels:
    """Two axes exchanged."""
    if not value.rank:
        return value
    order = list(range(value.rank))
    order[one], order[other] = order[other], order[one]
    return permuted(value, order)


@rule("movedim", "moveaxis")
def movedim(ledger: Ledger, value: Labels, source: Any, destination: Any) -> Labels:
    """Axes moved."""
    order = torch.empty(value.shape, device="meta")
    shape = list(range(2, 2 + value.rank))
    order = torch.empty(shape, device="meta").movedim(source, destination)
    return permuted(value, [size - 2 for size in order.shape])


@rule("expand", "broadcast_to", "expand_as", "expand_copy")
def expand(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Labels:
    """Copies along an axis; nothing depends on which copy."""
    return aligned(value, ledger.shape)


@rule("broadcast_tensors", "meshgrid")
def broadcast(ledger: Ledger, values: list[Labels], *_: Any, **keywords: Any) -> Any:
    """Several values expanded to one shape."""
    shape = torch.broadcast_shapes(*[value.shape for value in values])
    return tuple(aligned(value, shape) for value in values)


def narrowed(ledger: Ledger, value: Labels, dim: int, start: int, end: int, step: int = 1) -> Labels:  # noqa: PLR0917
    """Some positions along an axis."""
    dim %= value.rank
    length = len(range(start, end, step))
    shape = (*value.shape[:dim], length, *value.shape[dim + 1 :])
    if length == value.shape[dim]:
        return value
    layers = []
    for layer in value.layers:
        if layer.ids.shape[dim] == 1:
            layers.append(layer)
            continue
        ids = layer.ids.narrow(dim, start, end - start)
        ids = ids[(slice(None),) * dim + (slice(None, None, step),)]
        layers.append(Layer(ids, layer.pinned, layer.distinct))
    touched = any(layer.ids.shape[dim] > 1 for layer in value.layers)
    result = Labels(shape, tuple(layers))
    return ledger.chosen(value, result) if touched else result


@rule("slice", "slice_copy")
def sliced(  # noqa: PLR0917
    ledger: Ledger, value: Labels, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Labels:
    """x[start:end:step] along an axis."""
    first, last, step = slice(start, end, step).indices(value.shape[dim])
    return narrowed(ledger, value, dim, first, max(first, last), step)


@rule("narrow", "narrow_copy")
def narrow(ledger: Ledger, value: Labels, dim: int, start: int, length: int) -> Labels:
    """A run of positions along an axis."""
    start = start + value.shape[dim] if start < 0 else start
    return narrowed(ledger, value, dim, start, start + length)


@rule("select", "select_copy")
def select(ledger: Ledger, value: Labels, dim: int, index: int) -> Labels:
    """One position along an axis."""
    dim %= value.rank
    index %= value.shape[dim]
    return dropped(narrowed(ledger, value, dim, index, index + 1), [dim])


@rule(
    "split",
    "split_with_sizes",
    "split_copy",
    "split_with_sizes_copy",
    "chunk",
    "tensor_split",
    "unsafe_split",
    "unsafe_chunk",
    "unsafe_split_with_sizes",
    "hsplit",
    "vsplit",
)
def split(ledger: Ledger, value: Labels, _sizes: Any, dim: int = 0) -> list[Labels]:
    """An axis in runs."""
    parts, start = [], 0
    dim %= value.rank
    own = (
        value.source is not None
        and ledger.alone
        and value.rank > 1
        and not any(s.tensor == value.source for s in ledger.splits)
    )
    for shape in ledger.shapes:
        part = narrowed(ledger, value, dim, start, start + shape[dim])
        # Projections of queries, keys and values that are kept in one matrix may read different streams.
        parts.append(ledger.part(part, value.source, dim, start) if own and value.source else part)
        start += shape[dim]
    return parts


@rule("unbind", "unbind_copy")
def unbind(ledger: Ledger, value: Labels, dim: int = 0) -> list[Labels]:
    """Every position along an axis on its own."""
    return [select(ledger, value, dim, index) for index in range(value.shape[dim])]


def literal(ledger: Ledger, value: Labels, move: Any, *, choose: bool = True) -> Labels:
    """Any movement of entries, run on the labels."""
    if not value.layers:
        return Labels(ledger.shape)
    result = moved(value, move)
    return ledger.chosen(value, result) if choose else result


@rule("roll", "flip")
def rolled(ledger: Ledger, value: Labels, *arguments: Any) -> Labels:
    """Positions in another order along some axes."""
    if len(arguments) == 2 and not arguments[1]:
        return literal(ledger, value, lambda ids: ledger.run(ids, *arguments), choose=False)
    dims = list(arguments[-1])
    layers = []
    for layer in value.layers:
        ids = layer.ids
        for number, dim in enumerate(dims):
            if ids.shape[dim] > 1:
                ids = ids.flip(dim) if len(arguments) == 1 else ids.roll(arguments[0][number], dim)
        layers.append(Layer(ids, layer.pinned, layer.distinct))
    return Labels(value.shape, tuple(layers))


@rule("fliplr", "flipud", "rot90")
def rearranged(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> Labels:
    """The same entries in another order."""
    return literal(ledger, value, lambda ids: ledger.run(ids, *arguments, **keywords), choose=False)


@rule("repeat", "tile")
def repeat(ledger: Ledger, value: Labels, times: Sequence[int]) -> Labels:
    """Copies end to end; they are alike wherever nothing depends on the axis."""
    shape = (1,) * (len(times) - value.rank) + value.shape
    value = aligned(value, shape)
    axes = [axis for axis, count in enumerate(times) if count > 1 and value.varies(axis)]
    counts = [count if axis in axes else 1 for axis, count in enumerate(times)]
    layers = tuple(squeezed(layer.ids.repeat(_counts(layer, counts)), pinned=layer.pinned) for layer in value.layers)
    return Labels(ledger.shape, layers)


def _counts(layer: Layer, counts: Sequence[int]) -> list[int]:
    return [count if layer.ids.shape[axis] > 1 else 1 for axis, count in enumerate(counts)]


def repeated(ledger: Ledger, value: Labels, times: int, dim: int) -> Labels:
    """Each position along an axis several times in a row."""
    dim %= value.rank
    layers = tuple(
        layer
        if layer.ids.shape[dim] == 1
        else Layer(layer.ids.repeat_interleave(times, dim), layer.pinned, distinct=False)
        for layer in value.layers
    )
    return Labels((*value.shape[:dim], value.shape[dim] * times, *value.shape[dim + 1 :]), layers)


@rule("repeat_interleave")
def repeat_interleave(ledger: Ledger, value: Labels, times: Any, dim: int | None = None, **_: Any) -> Labels:
    """Each position several times in a row."""
    if isinstance(times, Labels):
        if times.constant is None:
            return ledger.opaque([value, times], ledger.shape, "repeats by numbers that depend on the input")
        counts = times.constant
        return literal(ledger, value, lambda ids: torch.repeat_interleave(ids, counts, dim))
    if dim is None:
        value, dim = reshaped(value, (math.prod(value.shape),)), 0
    return repeated(ledger, value, times, dim)


@rule(
    "unfold",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "as_strided",
    "unfold_copy",
    "movedim_copy",
)
def taken(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> Labels:
    """Entries chosen by a fixed pattern."""
    return literal(ledger, value, lambda ids: ledger.run(ids.contiguous(), *arguments, **keywords))


@rule("im2col")
def im2col(ledger: Ledger, value: Labels, *arguments: Any, **keywords: Any) -> Labels:
    """Windows as columns; exact in float64, as labels are far below 2**53. Padding reads a label that stands still."""
    none = still(ledger)

    def move(ids: Tensor) -> Tensor:
        columns = ledger.run((ids + 1).double(), *arguments, **keywords).long() - 1
        return torch.where(columns < 0, none, columns)

    return literal(ledger, value, move)


@rule("tril", "triu")
def triangle(ledger: Ledger, value: Labels, *_: Any) -> Labels:
    """Zeros on one side of the diagonal: places along both last axes matter."""
    shape = value.shape
    return ledger.meet(value, Labels(shape, (positional(shape, [len(shape) - 2, len(shape) - 1]),)))


def still(ledger: Ledger) -> Tensor:
    """One new label that nothing may exchange: the unit of entries that belong to no unit."""
    label = ledger.blocks(1)
    ledger.mark(label, label)
    ledger.still.append(int(label))
    return label
