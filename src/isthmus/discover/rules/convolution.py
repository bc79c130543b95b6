"""Convolutions: channels contract in groups, space and kernel places stay where they are."""

from __future__ import annotations

import math
from typing import Any

from isthmus.discover.families import Split
from isthmus.discover.labels import Labels, Layer, canonical, mixed, permuted, positional, reshaped, squeezed
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
    return _spread(ledger, (value, weight, bias), groups, (stride, padding), transposed=False)


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
    return _spread(ledger, (value, weight, bias), groups, (stride, padding), transposed=True)


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
    return _spread(ledger, (value, weight, bias), groups, (stride, padding), transposed=transposed)


def _spread(
    ledger: Ledger,
    tensors: tuple[Labels, Labels, Labels | None],
    groups: int,
    steps: tuple[Any, Any],
    *,
    transposed: bool,
) -> Labels:
    """Axes along which a kernel has one place only are as good as further examples: units may lie along them.

    Those along which it covers all places at once are as good as further channels.
    """
    value, weight, bias = _covered(ledger, tensors, steps, transposed=transposed)
    tensors = (value, weight, bias)
    shape, space = tuple(ledger.shape), weight.rank - 2
    first = value.rank - space
    free = [
        axis
        for axis in range(space)
        if weight.shape[2 + axis] == 1
        and value.shape[first + axis] == shape[first + axis]
        and (_step(steps[0], axis), _step(steps[1], axis)) == (1, 0)
        and any(layer.ids.shape[first + axis] > 1 for layer in value.movable)
    ]
    if not free or value.rank != weight.rank:
        return _convolve(ledger, tensors, shape, groups, transposed=transposed)
    rest = [axis for axis in range(space) if axis not in free]
    order = [0, *(2 + axis for axis in free), 1, *(2 + axis for axis in rest)]
    turned = permuted(value, order)
    examples = 1 + len(free)
    merged = reshaped(turned, (math.prod(turned.shape[:examples]), *turned.shape[examples:]))
    kernel = reshaped(weight, (*weight.shape[:2], *(weight.shape[2 + axis] for axis in rest)))
    out = (merged.shape[0], shape[1], *(shape[2 + axis] for axis in rest))
    made = _convolve(ledger, (merged, kernel, bias), out, groups, transposed=transposed)
    made = reshaped(made, (*turned.shape[:examples], *out[1:]))
    return permuted(made, [order.index(axis) for axis in range(value.rank)])


def _covered(
    ledger: Ledger, tensors: tuple[Labels, Labels, Labels | None], steps: tuple[Any, Any], *, transposed: bool
) -> tuple[Labels, Labels, Labels | None]:
    """A convolution's tensors, with axes that a kernel covers whole and that hold units moved among the channels.

    One place is left where such an axis was.
    """
    value, weight, bias = tensors
    if transposed or value.rank != weight.rank:
        return tensors
    covered = [
        axis
        for axis in range(2, value.rank)
        if weight.shape[axis] == value.shape[axis] > 1
        and _step(steps[1], axis - 2) in (0, "valid")
        and any(layer.ids.shape[axis] > 1 for layer in value.movable)
    ]
    if not covered:
        return tensors
    rest = [axis for axis in range(2, value.rank) if axis not in covered]
    made = []
    for part in (value, weight):
        turned = permuted(part, [0, 1, *covered, *rest])
        channels = math.prod(turned.shape[1 : 2 + len(covered)])
        left = [1 if axis in covered else part.shape[axis] for axis in range(2, part.rank)]
        made.append(reshaped(turned, (part.shape[0], channels, *left)))
    return made[0], made[1], bias


def _step(steps: Any, axis: int) -> Any:
    """One of several strides or paddings; one number stands for all axes."""
    if not isinstance(steps, (list, tuple)):
        return steps
    return steps[axis if len(steps) > 1 else -1]


def _convolve(
    ledger: Ledger,
    tensors: tuple[Labels, Labels, Labels | None],
    shape: tuple[int, ...],
    groups: int,
    *,
    transposed: bool,
) -> Labels:
    ledger.word = "groups"
    value, weight, bias = tensors
    space = weight.rank - 2
    batched = value.rank == weight.rank
    places = _examples(value, space) if batched else ()
    value = _channels_only(ledger, value, space)
    weight = _kernel_free(ledger, weight)
    sizes = (value.shape[0],) if batched else (1,)
    channels = value.shape[-1]
    value = reshaped(value, (*sizes, groups, channels // groups))
    _ask_split(ledger, weight, groups, axis=0, dim=1)
    if transposed:
        weight = reshaped(weight, (groups, channels // groups, weight.shape[1]))
        result = ledger.contract("bgi,gio->bgo", value, weight)
    else:
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
    own = list(range(2, 2 + space)) if batched else list(range(1, 1 + space))
    if places is None:
        own = [0, *own]
    return ledger.meet(full, Labels(shape, (positional(shape, own), *(places or ()))))


def _examples(value: Labels, space: int) -> tuple[Layer, ...] | None:
    """What tells examples apart where units lie along their axis too (heads beside them); None if none do."""
    if not any(layer.ids.shape[0] > 1 for layer in value.movable):
        return None
    rest = list(range(1, value.rank))
    pinned = [layer for layer in value.layers if layer.pinned and layer.ids.shape[0] > 1]
    return tuple(squeezed(canonical(mixed(p.ids).sum(dim=rest, keepdim=True)), pinned=True) for p in pinned)


def _channels_only(ledger: Ledger, value: Labels, space: int) -> Labels:
    """Batch and channel axes; units that lie along space are pinned, as neighbours matter there."""
    for axis in range(value.rank - space, value.rank):
        if any(layer.ids.shape[axis] > 1 for layer in value.movable):
            value = ledger.order(value, axis, "a convolution runs along the axis on which these units lie")
    # Places are told apart anew after the convolution; here only their mixing with channels matters.
    layers = [layer for layer in value.layers if not layer.pinned or layer.ids.shape[value.rank - space - 1] > 1]
    return ledger.reduce(Labels(value.shape, tuple(layers)), list(range(value.rank - space, value.rank)))


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
    if not any(other.distinct and other.ids.shape[axis] == weight.shape[axis] for other in weight.movable):
        return  # a kernel for each example has no output channels of its own in each group
    if family.tensor is not None and family.slices is None and int(layer.ids.max()) < family.stop:
        ledger.wanted.add(Split(family.tensor, family.dim, _axis_of(ledger, weight, axis, family.tensor), groups))


def _axis_of(ledger: Ledger, weight: Labels, axis: int, tensor: str) -> int:
    for layer in weight.movable:
        if layer.ids.shape[axis] > 1:
            family = ledger.family(int(layer.ids.min()))
            if family.tensor == tensor:
                return family.dim
    return axis
