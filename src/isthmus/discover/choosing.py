"""Units that an input chooses: experts that a router reads by number, codes that lie nearest.

One choice stands for all of them, so labels may differ from place to place only by what was chosen there. Such places
(*slots*) say nothing about the units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from isthmus.discover.labels import Labels, Layer, positional, squeezed

if TYPE_CHECKING:
    from isthmus.discover.ledger import Ledger


_Told = Literal["numbers", "places", "reckoned"]

#: Operations after which whole numbers are still the same numbers, elsewhere.
_KEEPING = frozenset({
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "ravel", "view_as", "reshape_as", "squeeze", "unsqueeze",
    "permute", "transpose", "swapaxes", "movedim", "t", "numpy_T", "expand", "expand_as", "broadcast_to", "repeat",
    "repeat_interleave", "slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind", "cat", "stack",
    "clone", "contiguous", "to", "_to_copy", "type_as", "detach", "detach_", "alias", "lift_fresh_copy", "flip", "roll",
})  # fmt: skip
_LOOKING_UP = frozenset({"index", "index_select", "gather", "take_along_dim"})


def looked_up_in_constants(name: str, arguments: Sequence[Any]) -> bool:
    """Whether an operation reads entries of what is itself known: numbers of units, or a table that nobody learns."""
    table = arguments[0] if arguments else None
    return name.rpartition(".")[2] in _LOOKING_UP and getattr(table, "constant", None) is not None


def told_by(name: str, arguments: Sequence[Any], chosen: Sequence[Labels], outputs: int) -> list[_Told]:
    """What the outputs of an operation tell that computes with numbers of chosen units, places or counts."""
    operation = name.rpartition(".")[2]
    kinds: set[_Told] = {value.told for value in chosen}
    rest: _Told = "places" if kinds == {"places"} else "reckoned"
    made: list[_Told] = [rest] * outputs
    if operation in _KEEPING and len(kinds) == 1:
        made = [kinds.pop()] * outputs
    elif operation in _LOOKING_UP and arguments[0].refers is not None:
        others = {value.told for value in chosen if value is not arguments[0]}
        kept: _Told = arguments[0].told if others <= {"places"} else rest
        made = [kept] * outputs
    elif operation in ("argsort", "sort"):
        made[-1] = "places"
    return made


def route(ledger: Ledger, table: Labels, axis: int, chosen: Labels) -> bool:
    """A table is read along an axis at the units that an input chose: its positions there are these units.

    Return whether the positions may be exchanged; otherwise they are pinned.
    """
    assert chosen.refers is not None
    assert chosen.constant is not None
    along = [layer for layer in table.layers if layer.ids.shape[axis] > 1]
    if chosen.told != "numbers" and any(not layer.pinned for layer in along):
        ledger.stop(chosen, "says which units are read by what is computed from other units' numbers")
        return False
    if chosen.told != "places" and any(layer.pinned for layer in along):
        ledger.stop(chosen, "says which of several places is read")
        return False
    seen = len(chosen.constant.unique())
    for layer in table.movable:
        if layer.ids.shape[axis] == 1:
            continue
        family = ledger.family(int(layer.ids.min()))
        whole = int(layer.ids.max()) < family.stop and table.shape[axis] == len(chosen.refers) == seen
        if not whole and axis in (slots(ledger, layer) or ()):
            continue  # slots that units were brought to before, in another order
        if whole and layer.axes == {axis}:
            ledger.tie(layer.ids.reshape(-1), chosen.refers)
        elif whole and family.start in ledger.around:
            ledger.tie(ledger.around[family.start], chosen.refers)
        else:
            ledger.stop(chosen, "says which units are read, of which some are never read")
            return False
        ledger.routed.add(family.start)
    return True


def slots(ledger: Ledger, layer: Layer) -> list[int] | None:
    """The axes along which a layer's labels differ only by what an input chose; None if it chose none of them."""
    if not ledger.routed or layer.pinned:
        return None
    family = ledger.family(int(layer.ids.min()))
    if family.start not in ledger.routed or int(layer.ids.max()) >= family.stop:
        return None
    if family.slices is None:
        return sorted(layer.axes)
    assert family.positions is not None
    inside = torch.from_numpy(family.positions)[layer.ids - family.start]
    return [axis for axis in sorted(layer.axes) if squeezed(inside, axes=[axis]).ids.shape[axis] == 1] or None


def invariant(ledger: Ledger, layer: Layer) -> bool:
    """Whether a layer only says which unit an input chose for a place.

    What is there is the same, wherever the unit is kept.
    """
    places = slots(ledger, layer)
    return places is not None and layer.axes == set(places) and ledger.family(int(layer.ids.min())).slices is None


def reduced(ledger: Ledger, layer: Layer, gone: Sequence[int], slots: Sequence[int]) -> Layer | None:
    """What is left of such a layer after a sum along some axes; the units around it have a layer of their own."""
    if layer.axes == set(slots):
        return None if invariant(ledger, layer) else _mixed_up(ledger, layer, gone)
    if layer.axes - set(slots) <= set(gone) and not set(gone) & set(slots):
        return None  # the units around these are said by a layer of their own
    return _mixed_up(ledger, layer, gone)


def _mixed_up(ledger: Ledger, layer: Layer, gone: Sequence[int]) -> Layer:
    names = layer.ids.unique()
    ledger.mark(names, names)
    ledger.obstacle(names, "sums over units of different experts")
    return positional([1 if axis in gone else size for axis, size in enumerate(layer.ids.shape)])
