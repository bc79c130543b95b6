"""Data movement: run on the labels as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.discover.labels import Labels, Layer, aligned, moved, permuted, positional, reshaped, squeezed
from isthmus.discover.ledger import Ledger, dropped
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
    for shape in ledger.shapes:
        parts.append(narrowed(ledger, value, dim, start, start + shape[dim]))
        start += shape[dim]
    return parts


@rule("unbind", "unbind_copy")
def unbind(ledger: Ledger, value: Labels, dim: int = 0) -> list[Labels]:
    """Every position along an axis on its own."""
    return [select(ledger, value, dim, index) for index in range(value.shape[dim])]


@rule("cat", "concat", "concatenate")
def cat(ledger: Ledger, values: Sequence[Labels], dim: int = 0) -> Labels:
    """Values one after the other along an axis."""
    values = [value for value in values if value.shape != (0,)]
    if len(values) == 1:
        return values[0]
    dim %= values[0].rank
    shape = list(values[0].shape)
    shape[dim] = sum(value.shape[dim] for value in values)
    layers = [*_joined_movable(ledger, values, dim), *_joined_pinned(values, dim, shape)]
    return Labels(tuple(shape), ledger.settle(layers, shape))


def _joined_movable(ledger: Ledger, values: Sequence[Labels], dim: int) -> list[Layer]:
    """Movable layers in corresponding order; where a value has none, one label that stands still."""
    orders = [sorted(value.movable, key=lambda layer: sorted(layer.axes - {dim})) for value in values]
    result = []
    for number in range(max((len(order) for order in orders), default=0)):
        row = [order[number] if number < len(order) else None for order in orders]
        present = [layer for layer in row if layer is not None]
        if len(present) == len(row) and all(
            layer.ids.shape[dim] == 1 and torch.equal(layer.ids, present[0].ids) for layer in present
        ):
            result.append(present[0])
            continue
        axes = frozenset().union(*[layer.axes for layer in present])
        pieces = []
        for value, layer in zip(values, row, strict=True):
            ids = still(ledger).reshape((1,) * value.rank) if layer is None else layer.ids
            pieces.append(_written(ids, value.shape, axes | {dim}))
        result.append(squeezed(torch.cat(pieces, dim)))
    return result


def _joined_pinned(values: Sequence[Labels], dim: int, shape: Sequence[int]) -> list[Layer]:
    """What tells places apart: which part, and the place within it."""
    pinned = [[layer for layer in value.layers if layer.pinned] for value in values]
    single = [layers[0] if len(layers) == 1 else None for layers in pinned]
    first = single[0]
    if first is not None and all(
        layer is not None and layer.distinct and layer.ids.shape == first.ids.shape and layer.ids.shape[dim] == 1
        for layer in single
    ):
        return [first, _parts(values, dim)]
    axes = frozenset().union(*[layer.axes for layers in pinned for layer in layers]) | {dim}
    pieces, offset = [], 0
    for value, layers in zip(values, pinned, strict=True):
        joint = torch.zeros((1,) * value.rank, dtype=torch.int64)
        for layer in layers:
            joint = torch.unique(joint * (int(layer.ids.max()) + 1) + layer.ids, return_inverse=True)[1]
        pieces.append(_written(joint, value.shape, axes) + offset)
        offset += int(joint.max()) + 1
    return [squeezed(torch.cat(pieces, dim), pinned=True)]


def _parts(values: Sequence[Labels], dim: int) -> Layer:
    sizes = [value.shape[dim] for value in values]
    ids = torch.repeat_interleave(torch.arange(len(values)), torch.tensor(sizes))
    layout = [1] * values[0].rank
    layout[dim] = len(ids)
    return Layer(ids.reshape(layout), True, len(ids) == len(values))


def _written(ids: Tensor, shape: Sequence[int], axes: frozenset[int]) -> Tensor:
    return ids.expand([size if axis in axes else ids.shape[axis] for axis, size in enumerate(shape)])


def still(ledger: Ledger) -> Tensor:
    """One new label that nothing may exchange: the unit of entries that belong to no unit."""
    label = ledger.blocks(1)
    ledger.mark(label, label)
    return label


@rule("stack")
def stack(ledger: Ledger, values: Sequence[Labels], dim: int = 0) -> Labels:
    """Values along a new axis."""
    rank = values[0].rank
    dim %= rank + 1
    shape = (*values[0].shape[:dim], 1, *values[0].shape[dim:])
    return cat(ledger, [reshaped(value, shape) for value in values], dim)


@rule("hstack")
def hstack(ledger: Ledger, values: Sequence[Labels]) -> Labels:
    """Along the second axis, or the only one."""
    return cat(ledger, values, 0 if values[0].rank == 1 else 1)


@rule("vstack")
def vstack(ledger: Ledger, values: Sequence[Labels]) -> Labels:
    """Along the first axis."""
    return cat(ledger, [v if v.rank > 1 else reshaped(v, (1, *v.shape)) for v in values], 0)


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
    "diagonal",
    "as_strided",
    "diagonal_copy",
    "unfold_copy",
    "diag",
    "diag_embed_copy",
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


@rule("constant_pad_nd", "pad")
def pad(ledger: Ledger, value: Labels, amounts: Sequence[int], *arguments: Any, **keywords: Any) -> Labels:
    """Positions added on the sides of the last axes."""
    mode = keywords.get("mode", arguments[0] if arguments and isinstance(arguments[0], str) else "constant")
    if mode != "constant":
        return _pad_by_copies(ledger, value, amounts, mode)
    result = value
    for number in range(len(amounts) // 2):
        dim = value.rank - 1 - number
        before, after = amounts[2 * number], amounts[2 * number + 1]
        if before < 0 or after < 0:
            start, end = max(0, -before), result.shape[dim] - max(0, -after)
            result, before, after = narrowed(ledger, result, dim, start, end), max(0, before), max(0, after)
        sides = [Labels((*result.shape[:dim], size, *result.shape[dim + 1 :])) for size in (before, after)]
        parts = [part for part in (sides[0], result, sides[1]) if part.shape[dim]]
        result = cat(ledger, parts, dim)
    return result


def _pad_by_copies(ledger: Ledger, value: Labels, amounts: Sequence[int], mode: str) -> Labels:
    def move(ids: Tensor) -> Tensor:
        for number in range(len(amounts) // 2):
            dim = ids.dim() - 1 - number
            before, after = amounts[2 * number], amounts[2 * number + 1]
            size = ids.shape[dim]
            at = torch.arange(-before, size + after)
            if mode == "circular":
                at = at % size
            elif mode == "replicate":
                at = at.clamp(0, size - 1)
            else:
                at = (size - 1) - (at.abs() - (size - 1)).abs()
            ids = ids.index_select(dim, at)
        return ids

    return literal(ledger, value, move)


@rule("tril", "triu")
def triangle(ledger: Ledger, value: Labels, *_: Any) -> Labels:
    """Zeros on one side of the diagonal: places along both last axes matter."""
    shape = value.shape
    return ledger.meet(value, Labels(shape, (positional(shape, [len(shape) - 2, len(shape) - 1]),)))


@rule("diag_embed")
def diag_embed(ledger: Ledger, value: Labels, *_: Any) -> Labels:
    """A vector on a diagonal."""
    return ledger.opaque([value], ledger.shape, "spreads units over a diagonal")
