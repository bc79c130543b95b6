"""Values put side by side: concatenation, stacks, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.discover import splitting
from isthmus.discover.labels import Labels, Layer, reshaped, squeezed
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.movement import literal, narrowed, still
from isthmus.discover.rules.registry import rule


@rule("cat", "concat", "concatenate")
def cat(ledger: Ledger, values: Sequence[Labels], dim: int = 0) -> Labels:
    """Values one after the other along an axis."""
    values = [value for value in values if value.shape != (0,)]
    if len(values) == 1:
        return values[0]
    dim %= values[0].rank
    shape = list(values[0].shape)
    shape[dim] = sum(value.shape[dim] for value in values)
    splitting.ask_as(ledger, values)
    layers = [*_joined_movable(ledger, values, dim), *_joined_pinned(values, dim, shape)]
    return Labels(tuple(shape), ledger.settle(layers, shape))


def _joined_movable(ledger: Ledger, values: Sequence[Labels], dim: int) -> list[Layer]:
    """Movable layers in corresponding order, with something in place of those that a value does not have."""
    result = []
    for row in _rows(values, dim):
        present = [layer for layer in row if layer is not None]
        even = [value for value, layer in zip(values, row, strict=True) if layer is None]
        filler = _filler(ledger, present[0], even, dim) if even else present[0].ids
        alike = all(layer.ids.shape[dim] == 1 and torch.equal(layer.ids, present[0].ids) for layer in present)
        if alike and filler is present[0].ids:
            result.append(present[0])
            continue
        axes = frozenset().union(*[layer.axes for layer in present])
        pieces = [
            _written(filler if layer is None else layer.ids, value.shape, axes | {dim})
            for value, layer in zip(values, row, strict=True)
        ]
        result.append(squeezed(torch.cat(pieces, dim)))
    return result


def _rows(values: Sequence[Labels], dim: int) -> Iterator[list[Layer | None]]:
    """Layers of all values that belong together: those along the same axes, apart from the joined one.

    A value that lies in one unit as a whole says so on its own.
    """
    keyed = [[(not layer.axes, tuple(sorted(layer.axes - {dim})), layer) for layer in v.movable] for v in values]
    for key in sorted({one[:2] for row in keyed for one in row}):
        orders = [[layer for *own, layer in row if tuple(own) == key] for row in keyed]
        for number in range(max(len(order) for order in orders)):
            yield [order[number] if number < len(order) else None for order in orders]


def _filler(ledger: Ledger, layer: Layer, values: Sequence[Labels], dim: int) -> Tensor:
    """Labels for values that have no such units: one that stands still.

    Where all their entries are alike (zeros that pad time or space), the units' own are as good, or the blocks' that
    the units lie in.
    """
    around = layer.axes - {dim}
    if around and not any(value.varies(axis) for value in values for axis in around):
        if layer.ids.shape[dim] == 1:
            return layer.ids
        whole = ledger.reduce(Labels(tuple(layer.ids.shape), (layer,)), [dim], keepdim=True)
        if len(whole.movable) == 1 and whole.movable[0].axes == around:
            return whole.movable[0].ids
    return still(ledger).reshape((1,) * layer.ids.dim())


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
