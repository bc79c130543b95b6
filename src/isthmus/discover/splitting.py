"""Requests for a second look: axes whose positions are units of their own in each slice of another axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isthmus.discover import choosing
from isthmus.discover.closure import components
from isthmus.discover.families import Family, Split
from isthmus.discover.labels import Labels, Layer, squeezed

if TYPE_CHECKING:
    from isthmus.discover.ledger import Ledger


def ask(ledger: Ledger, values: Sequence[Labels], kept: int) -> None:
    """A batch of weight matrices: each has rows and columns of its own, which whole-axis labels cannot say."""
    for value in values:
        others = [other for other in values if other is not value]
        for axis in range(value.rank):
            if not value.varies(axis):
                continue
            batch = axis < kept and any(other.varies(axis) for other in others) and not _routes(ledger, [value], axis)
            for layer in value.movable:
                if layer.ids.shape[axis] > 1:
                    continue
                finer = any(
                    axis in there.axes and layer.axes <= there.axes for other in others for there in other.movable
                )
                summed = layer.axes - set(range(kept))
                routed = summed and axis < kept and _routes(ledger, others, axis)
                own = batch and not (summed and _shared(ledger, others, axis, summed))
                if own or finer or routed:
                    _want_split(ledger, value, layer, axis, inner_only=not (own or routed))


def chosen(splits: frozenset[Split], tensor: str, dim: int) -> Split | None:
    """The split of an axis: of several that were asked for, the one by which further axes of the tensor are split."""
    asked = [split for split in splits if split.tensor == tensor and split.dim == dim]
    others = [split.axis for split in splits if split.tensor == tensor and split.dim != dim]
    return min(asked, key=lambda split: (-others.count(split.axis), split.axis, split.parts), default=None)


def units(ledger: Ledger, layer: Layer) -> Tensor:
    """The labels of a layer without those of entries that belong to no unit."""
    ids = layer.ids.reshape(-1)
    kept = ids[~torch.isin(ids, torch.tensor(ledger.still))] if ledger.still else ids
    return kept if len(kept) else ids


def _shared(ledger: Ledger, others: Sequence[Labels], axis: int, summed: frozenset[int]) -> bool:
    """Whether what lies along summed axes is one and the same for every slice along an axis: a stream, not tables."""
    met = [(other, layer) for other in others for layer in other.layers if layer.axes & summed]
    return bool(met) and not any(axis in layer.axes or _divisible(ledger, value, layer, axis) for value, layer in met)


def _divisible(ledger: Ledger, value: Labels, layer: Layer, axis: int) -> bool:
    """Whether a layer's labels and those along an axis are of one tensor, and so could be told apart by slices."""
    if layer.pinned:
        return False
    tensor = ledger.family(int(layer.ids.min())).tensor
    along = [other for other in value.movable if axis in other.axes]
    return tensor is None or any(ledger.family(int(other.ids.min())).tensor == tensor for other in along)


def ask_as(ledger: Ledger, values: Sequence[Labels]) -> None:
    """What meets units that lie along several axes (biases of all heads in one matrix) has units for each place too."""
    for value in values:
        for there in value.movable:
            if len(there.axes) < 2:
                continue
            inside = [(other, layer) for other in values for layer in other.movable if layer.axes < there.axes]
            if not inside or not _everywhere(ledger, there):
                continue
            for other, layer in inside:
                for axis in there.axes - layer.axes:
                    _want_split(ledger, other, layer, axis, inner_only=True)


def ask_alone(ledger: Ledger, value: Labels, gone: Sequence[int]) -> None:
    """What is summed over a table's units for each of its other units (states of each channel) has units in each."""
    for layer in value.movable:
        if not layer.axes or not layer.axes <= set(gone):
            continue
        for axis in range(value.rank):
            if axis not in gone and value.varies(axis):
                _want_split(ledger, value, layer, axis, inner_only=True)


def _everywhere(ledger: Ledger, layer: Layer) -> bool:
    """Whether a layer has units of its own at every place along its axes; some parts side by side have not."""
    if ledger.family(int(layer.ids.min())).slices is not None:
        return True
    return layer.distinct or len(layer.ids.unique()) == layer.ids.numel()


def _routes(ledger: Ledger, values: Sequence[Labels], axis: int) -> bool:
    """Whether an axis of some value holds units that an input chose."""
    return any(
        axis in (choosing.slots(ledger, layer) or ())
        for value in values
        for layer in value.movable
        if axis in layer.axes
    )


def want_slices(ledger: Ledger, table: Labels, axis: int, dim: int) -> None:
    """The positions of a table along ``dim`` are units of their own in each of its slices along ``axis``."""
    for layer in table.movable:
        if layer.ids.shape[dim] > 1 and layer.ids.shape[axis] == 1:
            _want_split(ledger, table, layer, axis, inner_only=False)


def sliced(ledger: Ledger, value: Labels, axis: int) -> bool:
    """Whether units along an axis come from a table whose slices have, or shall have, units of their own."""
    tables = {split.tensor for split in ledger.splits | ledger.wanted}
    return any(
        layer.ids.shape[axis] > 1 and ledger.family(int(layer.ids.min())).tensor in tables for layer in value.movable
    )


def _want_split(ledger: Ledger, value: Labels, layer: Layer, axis: int, *, inner_only: bool) -> None:
    ids = units(ledger, layer)
    family = ledger.family(int(ids.min()))
    if family.tensor is None or family.slices is not None or int(ids.max()) >= family.stop:
        return
    for other in value.movable:
        if other.ids.shape[axis] == 1 or other.ids is layer.ids:
            continue
        for owner in _owners(ledger, other, family) or _met_before(ledger, other, family, axis):
            # Units of slices say which slice they are in, and so stand for the axis that their own axis was split by.
            around = owner.dim if owner.slices is None else owner.slices[0]
            # Of two axes that could each be split by the other, the later one is: heads come before their channels.
            if around == family.dim or (inner_only and around > family.dim):
                continue
            parts = owner.stop - owner.start if owner.start in ledger.routed else value.shape[axis]
            count = owner.stop - owner.start if owner.slices is None else len(owner.cuts[0])
            if count == parts or (owner.slices is None and count > parts):
                ledger.wanted.add(Split(family.tensor, family.dim, around, parts))


def _owners(ledger: Ledger, layer: Layer, family: Family) -> list[Family]:
    """Whose positions a layer's labels are: the families of other axes of one tensor, wherever they occur."""
    found = [ledger.families[number] for number in ledger.origins(layer.ids.unique()).unique().tolist()]
    return [owner for owner in found if owner.tensor == family.tensor and owner.dim != family.dim]


def _met_before(ledger: Ledger, layer: Layer, family: Family, axis: int) -> list[Family]:
    """Positions of another axis of a family's tensor for which a layer's labels stand along an axis of a value.

    They do so if each of them was tied to one of these, or lies in the same unit as one, as far as is known by now.
    """
    others = [
        other
        for other in ledger.families
        if other.tensor == family.tensor and other.dim != family.dim and other.slices is None
    ]
    others = [other for other in others if other.stop - other.start == layer.ids.shape[axis]]
    if not others:
        return []
    relations = [np.zeros((2, 0), dtype=np.int64), *(one[:2] for one in (*ledger.ties, *ledger.nests))]
    part = torch.from_numpy(components(ledger.count, np.concatenate(relations, axis=1)))
    here = part[layer.ids]
    found = []
    for other in others:
        theirs = part[other.start : other.stop].unique()
        mine = squeezed(torch.searchsorted(theirs, here).clamp(max=len(theirs) - 1))
        apart = len(theirs) == other.stop - other.start and mine.axes == {axis}
        if (
            apart
            and torch.equal(theirs[mine.ids].reshape(-1).sort().values, theirs)
            and bool((theirs[mine.ids] == here).all())
        ):
            found.append(other)
    return found
