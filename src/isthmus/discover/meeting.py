"""The two ways in which layers of labels meet: at every place of a value, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isthmus.discover import choosing
from isthmus.discover.labels import Layer, canonical, mixed

if TYPE_CHECKING:
    from isthmus.discover.ledger import Ledger


def joined(ledger: Ledger, old: tuple[Layer, ...], new: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers of a value that meets another: demands are recorded, layers that say nothing new go."""
    kept = list(old)
    for layer in new:
        keep = True
        for other in list(kept):
            keep_other, keep_layer = _relate(ledger, other, layer)
            keep = keep and keep_layer
            if not keep_other:
                kept.remove(other)
        if keep:
            kept.append(layer)
    return tuple(kept)


def _relate(ledger: Ledger, one: Layer, other: Layer) -> tuple[bool, bool]:
    """Record what the meeting of two layers demands; return which of the two are still needed."""
    if one.pinned and other.pinned:
        return absorbed(one, other)
    shared = one.axes & other.axes
    alike = one.pinned == other.pinned and one.ids.shape == other.ids.shape
    if alike and (one.ids is other.ids or torch.equal(one.ids, other.ids)):
        return True, False
    if not shared:
        return True, True
    if one.pinned or other.pinned:
        moving, place = (other, one) if one.pinned else (one, other)
        needed = _mark_by_place(ledger, moving, place)
        return (True, needed) if one.pinned else (needed, True)
    return _correspond(ledger, one, other)


def _mark_by_place(ledger: Ledger, moving: Layer, place: Layer) -> bool:
    """Labels that lie at different places differ; return whether they still say more than their places."""
    alone = sorted(place.axes - moving.axes)
    content = place.ids if not alone else mixed(place.ids).sum(dim=alone, keepdim=True)
    if (slots := choosing.slots(ledger, moving)) is not None:
        # Which unit the input brought to which slot says nothing about the units; only places inside them do.
        content = mixed(content).sum(dim=[axis for axis in slots if content.shape[axis] > 1], keepdim=True)
    left, right, names, places = _pairs(moving, Layer(content, pinned=True))
    if len(left) == len(names) * len(places):
        return True
    keys = torch.zeros(len(names), dtype=torch.int64).index_add_(0, left, mixed(right + 1))
    ledger.mark(names, keys)
    if slots is not None:
        return True
    determined = moving.axes <= place.axes and (place.distinct or len(left) == len(places))
    return not determined or len(keys.unique()) < len(keys)


def _correspond(ledger: Ledger, one: Layer, other: Layer) -> tuple[bool, bool]:
    if one.distinct and other.distinct and one.ids.shape == other.ids.shape:
        ledger.tie(one.ids, other.ids)
        return True, False
    left, right, ones, others = _pairs(one, other)
    if not ledger.still:
        return _correspond_in_pairs(ledger, left, right, ones, others)
    stood = torch.tensor(ledger.still)
    here, there = torch.isin(ones[left], stood), torch.isin(others[right], stood)
    if not bool((here | there).any()):
        return _correspond_in_pairs(ledger, left, right, ones, others)
    # A filler is no unit: whoever meets it is told from those that do not, and demands nothing else of them.
    for names, mine, beside in ((ones, left, there), (others, right, here)):
        ledger.mark(names, _kinds_of_partners(mine, beside, len(names)))
    met = ~(here | there)
    if not bool(met.any()):
        return True, True
    first, left = torch.unique(left[met], return_inverse=True)
    second, right = torch.unique(right[met], return_inverse=True)
    keep, keep_other = _correspond_in_pairs(ledger, left, right, ones[first], others[second])
    return keep or bool((there & ~here).any()), keep_other or bool((here & ~there).any())


def _kinds_of_partners(mine: Tensor, beside: Tensor, number: int) -> Tensor:
    """For each label whether it meets units (1), fillers (2) or both (3)."""
    units = torch.zeros(number, dtype=torch.int64).index_fill_(0, mine[~beside], 1)
    return units + torch.zeros(number, dtype=torch.int64).index_fill_(0, mine[beside], 2)


def _correspond_in_pairs(
    ledger: Ledger, left: Tensor, right: Tensor, ones: Tensor, others: Tensor
) -> tuple[bool, bool]:
    pairs, n, m = len(left), len(ones), len(others)
    if pairs == n * m:
        return True, True
    if pairs == n == m:
        ledger.tie(ones[left], others[right])
        return True, False
    if pairs == n:
        if _rigid(ledger, ones[left], right):
            ledger.tie(ones[left], others[right])
            return False, True
        ledger.nest(ones[left], others[right])
        return True, False
    if pairs == m:
        if _rigid(ledger, others[right], left):
            ledger.tie(others[right], ones[left])
            return True, False
        ledger.nest(others[right], ones[left])
        return False, True
    _correspond_in_blocks(ledger, left, right, ones, others)
    return True, True


def _rigid(ledger: Ledger, inner: Tensor, outer: Tensor) -> bool:
    """Whether the labels inside each outer label are all of different origin, so that none can be exchanged."""
    origin = ledger.origins(inner)
    code = outer * (len(ledger.families) + 1) + origin
    return len(code.unique()) == len(code)


def _correspond_in_blocks(ledger: Ledger, left: Tensor, right: Tensor, ones: Tensor, others: Tensor) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, m = len(ones), len(others)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left.numpy(), n + right.numpy())), shape=(n + m, n + m))
    number, part = connected_components(graph, directed=False)
    a = np.bincount(part[:n], minlength=number)
    b = np.bincount(part[n:], minlength=number)
    if int((a * b).sum()) != len(left):
        for names in (ones, others):
            ledger.mark(names, names)
            ledger.obstacle(names, "brings units together in an order that no exchange of whole units keeps")
        return
    blocks = ledger.blocks(number)
    ledger.nest(ones, blocks[torch.from_numpy(part[:n]).long()])
    ledger.nest(others, blocks[torch.from_numpy(part[n:]).long()])


def _pairs(one: Layer, other: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pairs of labels that meet, as indices into the different labels of each side, and these labels."""
    ones, left = torch.unique(one.ids, return_inverse=True)
    others, right = torch.unique(other.ids, return_inverse=True)
    code = torch.unique(left * len(others) + right)
    return code // len(others), code % len(others), ones, others


def absorbed(one: Layer, other: Layer) -> tuple[bool, bool]:
    """Of two pinned layers, drop the one that the other determines."""
    if one.distinct and other.axes <= one.axes:
        return True, False
    if other.distinct and one.axes <= other.axes:
        return False, True
    if one.ids.shape == other.ids.shape and torch.equal(canonical(one.ids), canonical(other.ids)):
        return True, False
    return True, True


def deduplicated(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Pinned layers that others determine left out."""
    kept: list[Layer] = []
    for layer in layers:
        if layer.pinned and any(k.pinned and absorbed(k, layer) == (True, False) for k in kept):
            continue
        kept.append(layer)
    return tuple(kept)
