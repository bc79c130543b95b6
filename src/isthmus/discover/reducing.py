"""Labels of symmetric functions along axes, and of entries that were taken from a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from isthmus.discover import choosing
from isthmus.discover.labels import Labels, Layer, dropped, mixed, numbered, positional, squeezed
from isthmus.discover.meeting import deduplicated

if TYPE_CHECKING:
    from isthmus.discover.ledger import Ledger


def reduce(ledger: Ledger, value: Labels, axes: Sequence[int], *, keepdim: bool = False) -> Labels:
    """Labels of a symmetric function (sum, mean, maximum) of all entries along some axes."""
    axes = sorted({axis % value.rank for axis in axes}) if value.rank else []
    layers = []
    for layer in value.layers:
        if (reduced := _reduce_layer(ledger, layer, axes)) is not None:
            layers.append(reduced)
            _mark_by_sums(ledger, layer, reduced, [other for other in value.layers if other.pinned], axes)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    result = Labels(shape, deduplicated(layers))
    return result if keepdim else dropped(result, axes)


def _reduce_layer(ledger: Ledger, layer: Layer, axes: Sequence[int]) -> Layer | None:
    gone = [axis for axis in axes if layer.ids.shape[axis] > 1]
    kept = layer.axes - set(axes)
    if not gone:
        return layer
    if not layer.pinned:
        ledger.read.append(layer.ids.reshape(-1))
    if not kept:
        return None
    if (slots := choosing.slots(ledger, layer)) is not None:
        return choosing.reduced(ledger, layer, gone, slots)
    layout = [1 if axis in gone else size for axis, size in enumerate(layer.ids.shape)]
    if layer.pinned and layer.distinct:
        return positional(layout)
    content = mixed(layer.ids).sum(dim=gone, keepdim=True)
    block = numbered(content)  # not in the order of their hashes: parts that correspond have theirs in the same order
    if layer.pinned:
        return squeezed(block, pinned=True)
    names, index = torch.unique(layer.ids, return_inverse=True)
    code, counts = torch.unique(index * (int(block.max()) + 1) + block, return_counts=True)
    filler = torch.isin(names, torch.tensor(ledger.still, dtype=names.dtype))
    if bool(filler.any()):  # entries of no unit lie in every window
        real = ~filler[code // (int(block.max()) + 1)]
        code, counts, names = code[real], counts[real], names[~filler]
    if len(code) != len(names):
        ledger.mark(names, names)
        ledger.obstacle(names, "sums over windows that overlap")
        return positional(layout)
    number = int(block.max()) + 1
    owner = code % number
    times = counts // torch.bincount(block.reshape(-1), minlength=number)[owner]
    if len(times.unique()) > 1:
        ledger.mark(names, times)
    blocks = ledger.blocks(number)
    ledger.nest(names, blocks[owner])
    if len(empty := blocks[~torch.isin(torch.arange(number), owner)]):
        ledger.mark(empty, torch.zeros_like(empty))
        ledger.still += empty.tolist()
    return squeezed(blocks[block])


def _mark_by_sums(ledger: Ledger, layer: Layer, reduced: Layer, places: Sequence[Layer], axes: Sequence[int]) -> None:
    """Labels that are summed at several places, with others each time, lie in each sum as what tells its entries apart.

    Where each label is summed once, the sums' own places say as much.
    """
    if layer.pinned or reduced is layer or reduced.pinned or len(reduced.ids.unique()) == reduced.ids.numel():
        return
    for place in places:
        if not place.axes & layer.axes & set(axes):
            continue
        alone = sorted(place.axes - layer.axes)
        content = mixed(place.ids).sum(dim=alone, keepdim=True) if alone else mixed(place.ids)
        content = content.expand(torch.broadcast_shapes(content.shape, layer.ids.shape))
        whole = mixed(content.sum(dim=list(axes), keepdim=True))
        names, index = torch.unique(layer.ids.expand(content.shape), return_inverse=True)
        keys = mixed(content + whole).reshape(-1)
        ledger.mark(names, torch.zeros_like(names).index_add_(0, index.reshape(-1), keys))


def chosen(ledger: Ledger, before: Labels, after: Labels) -> Labels:
    """Labels after entries were taken from a value: those taken more often, or not at all, are marked."""
    for old, new in zip(_movable_in_order(before), _movable_in_order(after), strict=False):
        names, occurring = torch.unique(old.ids, return_counts=True)
        found, counts = torch.unique(new.ids, return_counts=True)
        if choosing.slots(ledger, old) is not None:
            # An input brings some units to more slots than others; only the share that was taken counts.
            shares = counts / occurring[torch.searchsorted(names, found)]
            counts = torch.unique(shares, return_inverse=True)[1] + 1
        times = torch.zeros(len(names), dtype=torch.int64)
        times[torch.searchsorted(names, found)] = counts
        if len(times.unique()) > 1:
            ledger.mark(names, times)
            ledger.unread.append(names[times == 0])
        ledger.read.append(found)
    if len(after.layers) > 1:
        return dataclasses.replace(after, layers=ledger.settle(after.layers, after.shape))
    return after


def _movable_in_order(value: Labels) -> tuple[Layer, ...]:
    return tuple(layer for layer in value.layers if not layer.pinned)
