"""Labels: the abstract value that flows through an exported graph in place of numbers.

A tensor's labels say how its entries move when units are exchanged. Each *layer* holds one integer for every entry; an
entry's labels in all layers together say which entry it is. A layer is stored with size 1 along every axis on which
it does
not depend, so the labels of a large activation stay small, and data movement is run on them as it is.

Movable layers hold label numbers of the ledger (positions of a parameter's axis, or blocks of them). Pinned layers
only tell
entries apart (batch, space, constants): nothing ever exchanges them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

_COMPARED = 1 << 20  # entries of constants of several axes; of larger ones no rows are looked for that are alike
_MIX = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # odd 64-bit constants, as in splitmix64


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One integer for each entry of a value.

    Attributes:
        ids: size 1 along the axes on which the layer does not depend.
        pinned: the integers are places that never move.
        distinct: no integer occurs twice in ``ids``.
    """

    ids: Tensor
    pinned: bool = False
    distinct: bool = False

    @property
    def axes(self) -> frozenset[int]:
        """The axes on which the layer depends."""
        return frozenset(axis for axis, size in enumerate(self.ids.shape) if size > 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one tensor.

    Attributes:
        shape: the tensor's shape.
        layers: what tells its entries apart; entries alike in all layers hold the same number.
        constant: the tensor itself where it depends on no input and no weight.
        source: the state-dict name, if the value is a whole tensor of the network.
        refers: for integers that say which units an input chose (the experts of a router): the labels of these units,
            by number. ``constant`` then holds one choice that stands for all.
        told: what such integers are: ``numbers`` of units; ``places`` at which something lies after it was sorted by
            these numbers; or ``reckoned`` from numbers, as counts are.
    """

    shape: tuple[int, ...]
    layers: tuple[Layer, ...] = ()
    constant: Tensor | None = None
    source: str | None = None
    refers: Tensor | None = None
    told: Literal["numbers", "places", "reckoned"] = "numbers"

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def movable(self) -> tuple[Layer, ...]:
        """The layers whose labels may be exchanged."""
        return tuple(layer for layer in self.layers if not layer.pinned)

    def varies(self, axis: int) -> bool:
        """Whether entries along an axis differ."""
        return any(layer.ids.shape[axis] > 1 for layer in self.layers)


def positional(shape: Sequence[int], axes: Sequence[int] | None = None) -> Layer:
    """A pinned layer that tells all entries along some axes (all axes) apart."""
    chosen = set(range(len(shape)) if axes is None else axes)
    compact = [size if axis in chosen else 1 for axis, size in enumerate(shape)]
    return Layer(torch.arange(math.prod(compact)).reshape(compact), pinned=True, distinct=True)


def fixed(shape: Sequence[int]) -> Labels:
    """A value whose entries all differ and never move: an input of the network."""
    return Labels(tuple(shape), (positional(shape),) if math.prod(shape) > 1 else ())


def constant(value: Tensor) -> Labels:
    """A tensor that depends on no weight: pinned along the axes on which it varies; equal slices are one place."""
    shape = tuple(value.shape)
    if value.numel() <= 1:
        return Labels(shape, (), value)
    axes = [axis for axis, size in enumerate(shape) if size > 1 and not _even(value, axis)]
    if not axes:
        return Labels(shape, (), value)
    if len(axes) == 1:
        line = value.movedim(axes[0], 0).reshape(shape[axes[0]], -1)[:, 0]
        ids = torch.unique(line, return_inverse=True)[1]
        layout = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        return Labels(shape, (Layer(ids.reshape(layout), True, len(ids.unique()) == len(ids)),), value)
    if value.numel() > _COMPARED:
        return Labels(shape, (positional(shape, axes),), value)
    numbers = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    alike = [torch.unique(numbers, dim=axis, return_inverse=True)[1] for axis in axes]
    if all(len(ids.unique()) == len(ids) for ids in alike):
        return Labels(shape, (positional(shape, axes),), value)
    layers = []
    for axis, ids in zip(axes, alike, strict=True):
        layout = [size if one == axis else 1 for one, size in enumerate(shape)]
        layers.append(Layer(ids.reshape(layout), True, len(ids.unique()) == len(ids)))
    return Labels(shape, tuple(layers), value)


def reshaped(labels: Labels, shape: Sequence[int]) -> Labels:
    """The labels after ``reshape``: only axes that are merged or split and matter to a layer are written out."""
    shape = tuple(shape)
    if shape == labels.shape:
        return labels
    blocks = _blocks(labels.shape, shape)
    layers = tuple(_reshape_layer(layer, labels.shape, shape, blocks) for layer in labels.layers)
    return Labels(shape, layers)


def permuted(labels: Labels, order: Sequence[int]) -> Labels:
    """The labels after ``permute``."""
    order = [axis % labels.rank for axis in order]
    layers = tuple(dataclasses.replace(layer, ids=layer.ids.permute(order)) for layer in labels.layers)
    return Labels(tuple(labels.shape[axis] for axis in order), layers)


def aligned(labels: Labels, shape: Sequence[int]) -> Labels:
    """The labels after ``expand`` by the broadcasting rules: new axes come first, and nothing depends on them."""
    shape = tuple(shape)
    missing = len(shape) - labels.rank
    shape = tuple(labels.shape[axis - missing] if size == -1 else size for axis, size in enumerate(shape))
    layers = tuple(
        dataclasses.replace(layer, ids=layer.ids.reshape((1,) * missing + tuple(layer.ids.shape)))
        for layer in labels.layers
    )
    return Labels(shape, layers)


def moved(labels: Labels, move: Callable[[Tensor], Tensor]) -> Labels:
    """The labels after any data movement, run on the written-out labels."""
    shape = (
        tuple(move(torch.empty(labels.shape, dtype=torch.int8, device="meta").expand(labels.shape)).shape)
        if (not labels.layers)
        else None
    )
    layers = []
    for layer in labels.layers:
        ids = move(layer.ids.expand(labels.shape))
        shape = tuple(ids.shape)
        layers.append(squeezed(ids, pinned=layer.pinned))
    assert shape is not None
    return Labels(shape, tuple(layer for layer in layers if layer.ids.numel() > 1 or not layer.pinned))


def squeezed(ids: Tensor, *, pinned: bool = False, axes: Sequence[int] | None = None) -> Layer:
    """A layer stored with size 1 along every axis on which it does not depend."""
    for axis in range(ids.dim()) if axes is None else axes:
        if ids.shape[axis] > 1 and _even(ids, axis):
            ids = ids.narrow(axis, 0, 1)
    ids = ids.contiguous()
    return Layer(ids, pinned, ids.numel() == ids.unique().numel() if pinned else False)


def canonical(ids: Tensor) -> Tensor:
    """Integers renamed 0, 1, … by value; equal patterns of equality have equal canonical forms up to order."""
    return torch.unique(ids, return_inverse=True)[1]


def numbered(ids: Tensor) -> Tensor:
    """Integers renamed 0, 1, … in the order in which they first occur."""
    values, index = torch.unique(ids, return_inverse=True)
    flat = index.reshape(-1)
    first = torch.full((len(values),), len(flat)).scatter_reduce(0, flat, torch.arange(len(flat)), "amin")
    place = torch.empty_like(first)
    place[first.argsort()] = torch.arange(len(values))
    return place[index]


def _even(values: Tensor, axis: int) -> bool:
    first = values.narrow(axis, 0, 1)
    if values.shape[axis] > 1 and not torch.equal(values.narrow(axis, 1, 1), first):
        return False
    return bool((values == first).all())


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Pair runs of axes of equal product: what a reshape merges or splits together."""
    if 0 in before or 0 in after:
        return [(list(range(len(before))), list(range(len(after))))]
    blocks = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [], []
        one = other = 1
        while True:
            if one <= other and i < len(before) and (one < other or not left):
                one *= before[i]
                left.append(i)
                i += 1
            elif j < len(after) and (other < one or not right):
                other *= after[j]
                right.append(j)
                j += 1
            else:
                break
        blocks.append((left, right))
    return blocks


def _reshape_layer(
    layer: Layer, before: tuple[int, ...], after: tuple[int, ...], blocks: list[tuple[list[int], list[int]]]
) -> Layer:
    written = list(layer.ids.shape)
    result = [1] * len(after)
    touched = []
    for left, right in blocks:
        if any(layer.ids.shape[axis] > 1 for axis in left):
            for axis in left:
                written[axis] = before[axis]
            for axis in right:
                result[axis] = after[axis]
            touched.append(right)
    ids = layer.ids.expand(written).reshape(result)
    if layer.distinct and ids.numel() == layer.ids.numel():
        return Layer(ids, layer.pinned, True)
    return squeezed(ids, pinned=layer.pinned, axes=list(itertools.chain(*touched)))


def mixed(values: Tensor) -> Tensor:
    """A 64-bit hash of each integer; sums of hashes tell multisets apart."""
    values = values * _MIX[0]
    values = (values ^ (values >> 30)) * _MIX[1]
    values = (values ^ (values >> 27)) * _MIX[2]
    return values ^ (values >> 31)


def dropped(value: Labels, axes: Sequence[int]) -> Labels:
    """Labels without some axes of size 1."""
    kept = [axis for axis in range(value.rank) if axis not in set(axes)]
    layers = tuple(
        dataclasses.replace(layer, ids=layer.ids.reshape([layer.ids.shape[axis] for axis in kept]))
        for layer in value.layers
    )
    return Labels(tuple(value.shape[axis] for axis in kept), layers)


def placed(value: Labels, term: str, letters: str) -> Labels:
    """A value with its axes named by ``term`` laid out along all ``letters``."""
    order = sorted(range(len(term)), key=lambda axis: letters.index(term[axis]))
    value = permuted(value, order)
    present = {term[axis]: position for position, axis in enumerate(order)}
    shape = [value.shape[present[c]] if c in present else 1 for c in letters]
    layers = tuple(
        dataclasses.replace(
            layer, ids=layer.ids.reshape([layer.ids.shape[present[c]] if c in present else 1 for c in letters])
        )
        for layer in value.layers
    )
    return Labels(tuple(shape), layers)
