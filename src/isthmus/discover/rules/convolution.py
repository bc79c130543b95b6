"""Convolutions: channels contract in groups, space and kernel places stay where they are."""

from __future__ import annotations

from typing import Any

from isthmus.discover.families import Split
from isthmus.discover.labels import Labels, Layer, positional, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule


@rule("conv1d", "conv2d", "conv3d")
def convolution(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    weight: Labels,
    bias: Labels | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Labels:
    """Cross-correlation with weight (out, in / groups, *kernel)."""
    return _convolve(ledger, value, weight, bias, groups, transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    weight: Labels,
    bias: Labels | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Labels:
    """Its transpose, with weight (in, out / groups, *kernel)."""
    return _convolve(ledger, value, weight, bias, groups, transposed=True)


@rule("convolution", "_convolution")
def general_convolution(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    weight: Labels,
    bias: Labels | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> Labels:
    """Any of the above."""
    return _convolve(ledger, value, weight, bias, groups, transposed=transposed)


def _convolve(
    ledger: Ledger, value: Labels, weight: Labels, bias: Labels | None, groups: int, *, transposed: bool
) -> Labels:
    ledger.word = "groups"
    shape = ledger.shape
    space = weight.rank - 2
    batched = value.rank == weight.rank
    value, batch_free = _channels_only(ledger, value, space)
    weight = _kernel_free(ledger, weight)
    sizes = (value.shape[0],) if batched else (1,)
    channels = value.shape[-1]
    value = reshaped(value, (*sizes, groups, channels // groups))
    if transposed:
        _ask_split(ledger, weight, groups, axis=0, dim=1)
        weight = reshaped(weight, (groups, channels // groups, weight.shape[1]))
        result = ledger.contract("bgi,gio->bgo", value, weight)
    else:
        _ask_split(ledger, weight, groups, axis=0, dim=1)
        weight = reshaped(weight, (groups, weight.shape[0] // groups, weight.shape[1]))
        result = ledger.contract("bgi,goi->bgo", value, weight)
    result = reshaped(result, (*sizes, result.shape[1] * result.shape[2]))
    if bias is not None:
        result = ledger.meet(result, bias)
    layers = tuple(
        Layer(layer.ids.reshape(*layer.ids.shape, *(1,) * space), layer.pinned, layer.distinct)
        for layer in result.layers
    )
    full = Labels((*result.shape, *(1,) * space), layers)
    if not batched:
        full = reshaped(full, full.shape[1:])
    axes = [0, *range(2, 2 + space)] if batched else list(range(1, 1 + space))
    del batch_free
    return ledger.meet(full, Labels(tuple(shape), (positional(shape, axes),)))


def _channels_only(ledger: Ledger, value: Labels, space: int) -> tuple[Labels, bool]:
    """Batch and channel axes; units that lie along space are pinned, as neighbours matter there."""
    for axis in range(value.rank - space, value.rank):
        if any(layer.ids.shape[axis] > 1 for layer in value.movable):
            value = ledger.order(value, axis, "a convolution runs along the axis on which these units lie")
    layers = []
    for layer in value.layers:
        # Places are told apart anew after the convolution; here only their mixing with channels matters.
        if layer.pinned and layer.ids.shape[value.rank - space - 1] == 1:
            continue
        layers.append(layer)
    taken = Labels(value.shape, tuple(layers))
    spatial = list(range(value.rank - space, value.rank))
    reduced = ledger.reduce(taken, spatial)
    return reduced, True


def _kernel_free(ledger: Ledger, weight: Labels) -> Labels:
    """Output and input axes of a kernel; its places are in order."""
    for axis in range(2, weight.rank):
        weight = ledger.order(weight, axis)
    return ledger.reduce(weight, range(2, weight.rank)) if weight.rank > 2 else weight


def _ask_split(ledger: Ledger, weight: Labels, groups: int, *, axis: int, dim: int) -> None:
    """Each group of a grouped convolution has input channels of its own; their positions are units in each group."""
    if groups < 2 or weight.shape[dim] < 2:
        return
    layer = next((layer for layer in weight.movable if layer.ids.shape[dim] > 1), None)
    if layer is None or layer.ids.shape[axis] > 1:
        return
    family = ledger.family(int(layer.ids.min()))
    if family.tensor is not None and family.slices is None and int(layer.ids.max()) < family.stop:
        ledger.wanted.add(Split(family.tensor, family.dim, _axis_of(ledger, weight, axis, family.tensor), groups))


def _axis_of(ledger: Ledger, weight: Labels, axis: int, tensor: str) -> int:
    for layer in weight.movable:
        if layer.ids.shape[axis] > 1:
            family = ledger.family(int(layer.ids.min()))
            if family.tensor == tensor:
                return family.dim
    return axis
