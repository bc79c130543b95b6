"""Pooling, interpolation and other operations that mix places in space but not channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from isthmus.discover.labels import Labels, Layer, canonical, mixed, positional, reshaped, squeezed
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule


def spatial(ledger: Ledger, value: Labels, axes: int) -> Labels:
    """Each channel's places mixed along the last axes, to a new number of places."""
    shape = ledger.shape
    first = value.rank - axes
    for axis in range(first, value.rank):
        if any(layer.ids.shape[axis] > 1 for layer in value.movable):
            value = ledger.order(value, axis, "mixes neighbours along the axis on which these units lie")
    space = set(range(first, value.rank))
    # Channels whose places are units themselves (rows of a dense layer seen as an image) are units around these.
    layers: list[Layer] = list(ledger.reduce(Labels(value.shape, value.movable), sorted(space), keepdim=True).layers)
    batch: set[int] = set()
    spread = False
    for layer in value.layers:
        if not layer.pinned:
            continue
        if not layer.axes & space:
            layers.append(layer)
            continue
        spread = True
        if layer.distinct and not (layer.axes - space) & {
            axis for kept in layers for axis in kept.axes if not kept.pinned
        }:
            batch |= layer.axes - space
        else:
            layers.append(_content(layer, first))
    if spread:
        layers.append(positional(shape, sorted(batch | space)))
    layers = [layer for layer in layers if layer.ids.numel() > 1 or not layer.pinned]
    return Labels(tuple(shape), ledger.settle(layers, shape))


def _content(layer: Layer, first: int) -> Layer:
    """A pinned layer that tells rows apart by all their places in space, in order."""
    ids = layer.ids
    place = torch.arange(ids[(0,) * first].numel()).reshape(ids.shape[first:])
    content = mixed(mixed(ids) + place).sum(dim=tuple(range(first, ids.dim())), keepdim=True)
    return squeezed(canonical(content), pinned=True)


def _register(name: str, axes: int) -> None:
    @rule(name)
    def pooled(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Any:
        result = spatial(ledger, value, axes)
        return (result, result) if ledger.outputs > 1 else result


for _axes in (1, 2, 3):
    for _name in (
        "avg_pool{}d",
        "max_pool{}d",
        "max_pool{}d_with_indices",
        "adaptive_avg_pool{}d",
        "_adaptive_avg_pool{}d",
        "adaptive_max_pool{}d",
        "upsample_nearest{}d",
        "_upsample_nearest_exact{}d",
        "reflection_pad{}d",
        "replication_pad{}d",
        "fractional_max_pool{}d",
    ):
        _register(_name.format(_axes), _axes)
_register("upsample_linear1d", 1)
_register("upsample_bilinear2d", 2)
_register("_upsample_bilinear2d_aa", 2)
_register("upsample_bicubic2d", 2)
_register("_upsample_bicubic2d_aa", 2)
_register("upsample_trilinear3d", 3)


@rule("max_unpool2d", "max_unpool3d")
def unpooled(ledger: Ledger, value: Labels, places: Labels, *_: Any) -> Labels:
    """Each channel's entries back at the places in space that its own numbers say."""
    axes = 2 if ledger.operation.endswith("2d") else 3
    return spatial(ledger, ledger.meet(value, places), axes)


@rule("col2im")
def summed_windows(ledger: Ledger, value: Labels, _size: Any, kernel: Sequence[int], *_: Any) -> Labels:
    """Windows of each channel, one below the other in columns, added up where they overlap."""
    places = math.prod(kernel)
    *examples, rows, columns = value.shape
    return spatial(ledger, reshaped(value, (*examples, rows // places, places, columns)), 2)


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sample(ledger: Ledger, value: Labels, grid: Labels, *_: Any) -> Labels:
    """Places read off where a grid says; what made the grid's coordinates is pinned."""
    ledger.pin(grid, "gives the coordinates of a grid")
    return spatial(ledger, value, value.rank - 2)
