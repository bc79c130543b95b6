"""The two ways in which layers of labels meet: at every place of a value, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isthmus.discover import choosing
from isthmus.discover.arranging import independent, together
from isthmus.discover.labels import Layer, canonical, mixed, positional

if TYPE_CHECKING:
    from isthmus.discover.ledger import Ledger


def joined(ledger: Ledger, old: tuple[Layer, ...], new: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers of a value that meets another: demands are recorded, layers that say nothing new go."""
    kept, waiting = list(old), list(new)
    while waiting:
        layer = waiting.pop(0)
        keep = True
        for other in list(kept):
            met = _relate(ledger, other, layer)
            if met is None:  # they stand still, and are places from now on
                kept.remove(other)
                keep = False
                waiting.append(together(other, layer))
                break
            keep = keep and met[1]
            if not met[0]:
                kept.remove(other)
        if keep:
            kept.append(layer)
    return tuple(kept)


def _relate(ledger: Ledger, one: Layer, other: Layer) -> tuple[bool, bool] | None:
    """Record what the meeting of two layers demands; return which of the two are still needed.

    None if neither can be said without the other: nothing that they hold can be exchanged.
    """
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
        if needed is None:
            return None
        return (True, needed) if one.pinned else (needed, True)
    return _correspond(ledger, one, other)


def _mark_by_place(ledger: Ledger, moving: Layer, place: Layer) -> bool | None:
    """Labels that lie at different places differ; return whether they still say more than their places."""
    alone = sorted(place.axes - moving.axes)
    content = place.ids if not alone else mixed(place.ids).sum(dim=alone, keepdim=True)
    if (slots := choosing.slots(ledger, moving)) is not None:
        # Which unit the input brought to which slot says nothing about the units; only places inside them do.
        content = mixed(content).sum(dim=[axis for axis in slots if content.shape[axis] > 1], keepdim=True)
    left, right, names, places = _pairs(moving, Layer(content, pinned=True))
    keys = torch.zeros(len(names), dtype=torch.int64).index_add_(0, left, mixed(right + 1))
    if slots is None and not _in_order(ledger, moving, place, keys):
        _stop(ledger, names)
        return None
    if len(left) == len(names) * len(places):
        return True
    ledger.mark(names, keys)
    if slots is not None:
        return True
    determined = moving.axes <= place.axes and (place.distinct or len(left) == len(places))
    return not determined or len(keys.unique()) < len(keys)


def _in_order(ledger: Ledger, moving: Layer, place: Layer, keys: Tensor) -> bool:
    """Whether labels that lie at the same places do so independently of what else tells the places apart."""
    groups = torch.unique(keys, return_inverse=True)[1]
    if int(groups.max()) + 1 == len(keys):
        return True  # all stand still
    if place.distinct:
        if moving.axes <= place.axes:
            return True
        shared = moving.axes & place.axes
        place = positional([n if axis in shared else 1 for axis, n in enumerate(place.ids.shape)])
    stood = torch.tensor(ledger.still, dtype=torch.int64)
    return independent(moving, place, groups[torch.unique(moving.ids, return_inverse=True)[1]], stood)


def _stop(ledger: Ledger, *several: Tensor) -> None:
    """Labels that meet in an order that no exchange of whole units keeps stand still."""
    for names in several:
        ledger.mark(names, names)
        ledger.obstacle(names, "brings units together in an order that no exchange of whole units keeps")


def _correspond(ledger: Ledger, one: Layer, other: Layer) -> tuple[bool, bool] | None:
    if one.distinct and other.distinct and one.ids.shape == other.ids.shape:
        ledger.tie(one.ids, other.ids)
        return True, False
    left, right, ones, others = _pairs(one, other)
    stood = torch.tensor(ledger.still, dtype=torch.int64)
    here, there = torch.isin(ones[left], stood), torch.isin(others[right], stood)
    if not bool((here | there).any()):
        return _correspond_in_pairs(ledger, (one, other), left, right, ones, others)
    # A filler is no unit: whoever meets it is told from those that do not, and demands nothing else of them.
    for names, mine, beside in ((ones, left, there), (others, right, here)):
        ledger.mark(names, _kinds_of_partners(mine, beside, len(names)))
    met = ~(here | there)
    if not bool(met.any()):
        return True, True
    first, left = torch.unique(left[met], return_inverse=True)
    second, right = torch.unique(right[met], return_inverse=True)
    both = _correspond_in_pairs(ledger, (one, other), left, right, ones[first], others[second])
    return both and (both[0] or bool((there & ~here).any()), both[1] or bool((here & ~there).any()))


def _kinds_of_partners(mine: Tensor, beside: Tensor, number: int) -> Tensor:
    """For each label whether it meets units (1), fillers (2) or both (3)."""
    units = torch.zeros(number, dtype=torch.int64).index_fill_(0, mine[~beside], 1)
    return units + torch.zeros(number, dtype=torch.int64).index_fill_(0, mine[beside], 2)


def _correspond_in_pairs(  # noqa: PLR0917
    ledger: Ledger, layers: tuple[Layer, Layer], left: Tensor, right: Tensor, ones: Tensor, others: Tensor
) -> tuple[bool, bool] | None:
    pairs, n, m = len(left), len(ones), len(others)
    if pairs == n == m > 1:
        ledger.tie(ones[left], others[right])
        return True, False
    if pairs == n < n * m:
        if _rigid(ledger, ones[left], right):
            ledger.tie(ones[left], others[right])
            return False, True
        ledger.nest(ones[left], others[right])
        return True, False
    if pairs == m < n * m:
        if _rigid(ledger, others[right], left):
            ledger.tie(others[right], ones[left])
            return True, False
        ledger.nest(others[right], ones[left])
        return False, True
    return _correspond_in_blocks(ledger, layers, left, right, ones, others)


def _rigid(ledger: Ledger, inner: Tensor, outer: Tensor) -> bool:
    """Whether the labels inside each outer label are all of different origin, so that none can be exchanged."""
    origin = ledger.origins(inner)
    code = outer * (len(ledger.families) + 1) + origin
    return len(code.unique()) == len(code)


def _correspond_in_blocks(  # noqa: PLR0917
    ledger: Ledger, layers: tuple[Layer, Layer], left: Tensor, right: Tensor, ones: Tensor, others: Tensor
) -> tuple[bool, bool] | None:
    """Whoever meets anyone of a block meets all of it; one block of all says nothing."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, m = len(ones), len(others)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left.numpy(), n + right.numpy())), shape=(n + m, n + m))
    number, part = connected_components(graph, directed=False)
    a = np.bincount(part[:n], minlength=number)
    b = np.bincount(part[n:], minlength=number)
    block = torch.from_numpy(part[:n]).long()
    one, other = layers
    place = torch.searchsorted(ones, one.ids.contiguous()).clamp(max=n - 1)  # fillers have none, and do not count
    stood = torch.tensor(ledger.still, dtype=torch.int64)
    if int((a * b).sum()) != len(left) or not independent(one, other, block[place], stood):
        _stop(ledger, ones, others)
        return None
    if number > 1:
        blocks = ledger.blocks(number)
        ledger.nest(ones, blocks[block])
        ledger.nest(others, blocks[torch.from_numpy(part[n:]).long()])
    return True, True


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
