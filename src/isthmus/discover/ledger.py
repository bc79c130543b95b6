"""The ledger: everything that the operations of a network demand of its units.

A rule can say only three things about labels: these correspond (*tie*), these lie inside those (*nest*), these differ
from
their neighbours (*mark*). Each takes freedom away and none gives any, so a rule that says too much costs
completeness, and
only one that says too little can be wrong; that is what the proof is for.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from isthmus.core.symmetry import Obstacle
from isthmus.discover.labels import Labels, Layer, aligned, canonical, permuted, positional, squeezed

_MIX = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # odd 64-bit constants, as in splitmix64


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Labels made together: the positions of one tensor's axis, or the blocks that one operation made.

    Attributes:
        start, stop: the label numbers.
        tensor, dim: whose positions, if these are positions.
        positions: for a split axis several labels share a position; label start+k lies at ``positions[k]``.
        slices: for a split axis, (axis, position) of the slice in which label start+k lies.
        word: what the blocks are, for names ("heads").
    """

    start: int
    stop: int
    tensor: str | None = None
    dim: int = 0
    positions: np.ndarray | None = None
    slices: tuple[int, np.ndarray] | None = None
    word: str = ""
    site: str = ""


@dataclasses.dataclass(frozen=True)
class Split:
    """A request: positions along ``dim`` of a tensor are units of their own in each of ``parts`` parts of ``axis``."""

    tensor: str
    dim: int
    axis: int
    parts: int


class Ledger:
    """Collects what operations say while a graph is interpreted.

    Attributes:
        families: all labels by origin.
        ties, nests, marks: columns (label, label, relation), (inner, outer, relation), (label, key).
        obstacles: what was pinned, and why.
        splits: axes whose positions must be units of their own in each slice of another axis; known before a run.
        wanted: splits that this run found to be needed.
        routed: starts of families whose units an input chose.
        around: for a family of positions in each slice, by its start: the labels of the slices.
    """

    def __init__(self, splits: frozenset[Split] = frozenset()) -> None:
        self.families: list[Family] = []
        self.count = 0
        self.ties: list[np.ndarray] = []
        self.nests: list[np.ndarray] = []
        self.marks: list[np.ndarray] = []
        self.obstacles: list[Obstacle] = []
        self.splits = splits
        self.wanted: set[Split] = set()
        self.routed: set[int] = set()
        self.around: dict[int, Tensor] = {}
        self.relation = 0
        self.operation = ""
        self.where = ""
        self.word = ""
        self.shapes: list[tuple[int, ...]] = []
        self.several = False
        self.read: list[Tensor] = []
        self.unread: list[Tensor] = []
        self.readers: frozenset[int] | None = None
        self.execute: Callable[..., Tensor] | None = None

    def unmarked(self) -> Ledger:
        """The same demands without what tells neighbours apart: units that are tied, exchangeable or not."""
        other = copy.copy(self)
        other.marks, other.families = [], list(self.families)
        return other

    # -- the operation that is being interpreted
    # ------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the operation's first output."""
        return self.shapes[0]

    @property
    def outputs(self) -> int:
        """How many outputs the operation has."""
        return len(self.shapes)

    def used(self, output: int) -> bool:
        """Whether anything reads one of several outputs."""
        return self.readers is None or output in self.readers

    def first_of(self, value: Labels) -> Labels | tuple[Labels, ...]:
        """A value as the first of the operation's outputs; the others must not be read."""
        if self.outputs < 2:
            return value
        rest = [Labels(shape, (positional(shape),)) for shape in self.shapes[1:]]
        if self.readers is None or any(reader > 0 for reader in self.readers):
            self.pin(value, "hands out statistics about its units")
        return (value, *rest)

    def run(self, ids: Tensor, *arguments: object, **keywords: object) -> Tensor:
        """The operation itself, on label numbers."""
        assert self.execute is not None
        return self.execute(ids, *arguments, **keywords)

    # -- labels ------------------------------------------------------------------------------------------------------

    def atoms(self, tensor: str, shape: Sequence[int]) -> Labels:
        """One label for each position of each axis of a tensor (for each slice, where the axis is split)."""
        layers = []
        inside: dict[int, int] = {}
        whole: dict[int, Tensor] = {}
        for dim, size in enumerate(shape):
            if size < 2:
                continue
            split = next((s for s in self.splits if s.tensor == tensor and s.dim == dim), None)
            layout = [1] * len(shape)
            layout[dim] = size
            if split is None:
                whole[dim] = ids = self._new(size, tensor=tensor, dim=dim, positions=np.arange(size))
                layers.append(Layer(ids.reshape(layout), distinct=True))
                continue
            each = shape[split.axis] // split.parts
            ids = self._new(
                size * split.parts,
                tensor=tensor,
                dim=dim,
                positions=np.tile(np.arange(size), split.parts),
                slices=(split.axis, np.repeat(np.arange(split.parts), size) * each),
            )
            if each == 1:
                inside[int(ids[0])] = split.axis
            layout[split.axis] = shape[split.axis]
            table = ids.reshape(split.parts, size).repeat_interleave(each, dim=0)
            layers.append(Layer((table if split.axis < dim else table.T).reshape(layout)))
        self.around.update({start: whole[axis] for start, axis in inside.items() if axis in whole})
        labels = Labels(tuple(shape), tuple(layers), source=tensor)
        if any(s.tensor == tensor for s in self.splits):
            labels = dataclasses.replace(labels, layers=self.settle(labels.layers, labels.shape))
        return labels

    def blocks(self, number: int) -> Tensor:
        """New labels for blocks."""
        return self._new(number, word=self.word, site=self.operation)

    def _new(self, number: int, **origin: object) -> Tensor:
        self.families.append(Family(self.count, self.count + number, **origin))  # type: ignore[arg-type]
        self.count += number
        return torch.arange(self.count - number, self.count)

    def family(self, label: int) -> Family:
        """The family of a label."""
        starts = [family.start for family in self.families]
        return self.families[int(np.searchsorted(starts, label, side="right")) - 1]

    def origins(self, labels: Tensor) -> Tensor:
        """The number of the family of each label."""
        starts = torch.tensor([family.start for family in self.families])
        return torch.searchsorted(starts, labels, right=True) - 1

    # -- what rules may say ------------------------------------------------------------------------------------------

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Labels that must move alike."""
        self.ties.append(_columns(one, other, self._next()))

    def nest(self, inner: Tensor, outer: Tensor) -> None:
        """Labels that must stay inside others."""
        self.nests.append(_columns(inner, outer, self._next()))

    def mark(self, labels: Tensor, keys: Tensor) -> None:
        """Labels with different keys may not be exchanged for each other."""
        relation = self._next()
        keys = mixed(mixed(keys.reshape(-1)) + relation)
        self.marks.append(np.stack([labels.reshape(-1).numpy(), keys.numpy()]))

    def pin(self, value: Labels, reason: str = "") -> None:
        """No label of a value may move at all; a reason makes it an obstacle."""
        for layer in value.movable:
            names = layer.ids.unique()
            self.mark(names, names)
            if reason:
                self._obstacle(names, reason)

    def pin_unread(self) -> None:
        """What this example computes and does not read (rows of position tables) a longer one may read: it stays."""
        if not self.unread:
            return
        lost = torch.zeros(self.count, dtype=torch.bool)
        lost[torch.cat(self.unread)] = True
        lost[torch.cat(self.read)] = False
        if len(unread := lost.nonzero().reshape(-1)):
            self.mark(unread, unread)

    def _obstacle(self, names: Tensor, reason: str) -> None:
        families = [self.families[k] for k in self.origins(names).unique().tolist()]
        tensors = tuple(sorted({f.tensor for f in families if f.tensor is not None}))
        self.obstacles.append(Obstacle(self.operation, reason, tensors, self.where))

    def _next(self) -> int:
        self.relation += 1
        return self.relation

    # -- the two ways in which values meet ---------------------------------------------------------------------------

    def meet(self, *values: Labels) -> Labels:
        """Labels of an elementwise function of several values: entries brought together must move together."""
        shape = torch.broadcast_shapes(*[value.shape for value in values])
        layers: tuple[Layer, ...] = ()
        spread = [aligned(value, shape) for value in values]
        self._want_splits_as(spread)
        for value in spread:
            layers = self._join(layers, value.layers)
        return Labels(tuple(shape), layers)

    def settle(self, layers: Sequence[Layer], shape: Sequence[int]) -> tuple[Layer, ...]:
        """Layers of one value after entries were chosen: relations between the layers may have become visible."""
        result: tuple[Layer, ...] = ()
        for layer in layers:
            result = self._join(result, (layer,))
        return result

    def _join(self, old: tuple[Layer, ...], new: tuple[Layer, ...]) -> tuple[Layer, ...]:
        kept = list(old)
        for layer in new:
            keep = True
            for other in list(kept):
                keep_other, keep_layer = self._relate(other, layer)
                keep = keep and keep_layer
                if not keep_other:
                    kept.remove(other)
            if keep:
                kept.append(layer)
        return tuple(kept)

    def _relate(self, one: Layer, other: Layer) -> tuple[bool, bool]:
        """Record what the meeting of two layers demands; return which of the two are still needed."""
        if one.pinned and other.pinned:
            return _absorb(one, other)
        shared = one.axes & other.axes
        alike = one.pinned == other.pinned and one.ids.shape == other.ids.shape
        if alike and (one.ids is other.ids or torch.equal(one.ids, other.ids)):
            return True, False
        if not shared:
            return True, True
        if one.pinned or other.pinned:
            moving, place = (other, one) if one.pinned else (one, other)
            needed = self._mark_by_place(moving, place)
            return (True, needed) if one.pinned else (needed, True)
        return self._correspond(one, other)

    def _mark_by_place(self, moving: Layer, place: Layer) -> bool:
        """Labels that lie at different places differ; return whether they still say more than their places."""
        alone = sorted(place.axes - moving.axes)
        content = place.ids if not alone else mixed(place.ids).sum(dim=alone, keepdim=True)
        if (slots := self.slots(moving)) is not None:
            # Which unit the input brought to which slot says nothing about the units; only places inside them do.
            content = mixed(content).sum(dim=[axis for axis in slots if content.shape[axis] > 1], keepdim=True)
        left, right, names, places = _pairs(moving, Layer(content, pinned=True))
        if len(left) == len(names) * len(places):
            return True
        keys = torch.zeros(len(names), dtype=torch.int64).index_add_(0, left, mixed(right + 1))
        self.mark(names, keys)
        if slots is not None:
            return True
        determined = moving.axes <= place.axes and (place.distinct or len(left) == len(places))
        return not determined or len(keys.unique()) < len(keys)

    def _correspond(self, one: Layer, other: Layer) -> tuple[bool, bool]:
        if one.distinct and other.distinct and one.ids.shape == other.ids.shape:
            self.tie(one.ids, other.ids)
            return True, False
        left, right, ones, others = _pairs(one, other)
        pairs, n, m = len(left), len(ones), len(others)
        if pairs == n * m:
            return True, True
        if pairs == n == m:
            self.tie(ones[left], others[right])
            return True, False
        if pairs == n:
            if self._rigid(ones[left], right):
                self.tie(ones[left], others[right])
                return False, True
            self.nest(ones[left], others[right])
            return True, False
        if pairs == m:
            if self._rigid(others[right], left):
                self.tie(others[right], ones[left])
                return True, False
            self.nest(others[right], ones[left])
            return False, True
        self._correspond_in_blocks(left, right, ones, others)
        return True, True

    def _rigid(self, inner: Tensor, outer: Tensor) -> bool:
        """Whether the labels inside each outer label are all of different origin, so that none can be exchanged."""
        origin = self.origins(inner)
        code = outer * (len(self.families) + 1) + origin
        return len(code.unique()) == len(code)

    def _correspond_in_blocks(self, left: Tensor, right: Tensor, ones: Tensor, others: Tensor) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n, m = len(ones), len(others)
        graph = coo_array((np.ones(len(left), dtype=np.int8), (left.numpy(), n + right.numpy())), shape=(n + m, n + m))
        number, part = connected_components(graph, directed=False)
        a = np.bincount(part[:n], minlength=number)
        b = np.bincount(part[n:], minlength=number)
        if int((a * b).sum()) != len(left):
            for names in (ones, others):
                self.mark(names, names)
                self._obstacle(names, "brings units together in an order that no exchange of whole units keeps")
            return
        blocks = self.blocks(number)
        self.nest(ones, blocks[torch.from_numpy(part[:n]).long()])
        self.nest(others, blocks[torch.from_numpy(part[n:]).long()])

    # -- reductions --------------------------------------------------------------------------------------------------

    def reduce(self, value: Labels, axes: Sequence[int], *, keepdim: bool = False) -> Labels:
        """Labels of a symmetric function (sum, mean, maximum) of all entries along some axes."""
        axes = sorted({axis % value.rank for axis in axes}) if value.rank else []
        layers = []
        for layer in value.layers:
            if (reduced := self._reduce_layer(layer, axes)) is not None:
                layers.append(reduced)
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
        result = Labels(shape, _deduplicated(layers))
        return result if keepdim else dropped(result, axes)

    def _reduce_layer(self, layer: Layer, axes: Sequence[int]) -> Layer | None:
        gone = [axis for axis in axes if layer.ids.shape[axis] > 1]
        kept = layer.axes - set(axes)
        if not gone:
            return layer
        if not kept:
            return None
        if (slots := self.slots(layer)) is not None:
            return self._reduce_routed(layer, gone, slots)
        layout = [1 if axis in gone else size for axis, size in enumerate(layer.ids.shape)]
        if layer.pinned and layer.distinct:
            return positional(layout)
        content = mixed(layer.ids).sum(dim=gone, keepdim=True)
        block = torch.unique(content, return_inverse=True)[1]
        if layer.pinned:
            return squeezed(block, pinned=True)
        names, index = torch.unique(layer.ids, return_inverse=True)
        code, counts = torch.unique(index * (int(block.max()) + 1) + block, return_counts=True)
        if len(code) != len(names):
            self.mark(names, names)
            self._obstacle(names, "sums over windows that overlap")
            return positional(layout)
        number = int(block.max()) + 1
        owner = code % number
        times = counts // torch.bincount(block.reshape(-1), minlength=number)[owner]
        if len(times.unique()) > 1:
            self.mark(names, times)
        blocks = self.blocks(number)
        self.nest(names, blocks[owner])
        return squeezed(blocks[block])

    # -- units that the input chooses --------------------------------------------------------------------------------

    def route(self, table: Labels, axis: int, chosen: Labels) -> bool:
        """A table is read along an axis at the units that an input chose: its positions there are these units.

        Return whether the positions may be exchanged; otherwise they are pinned.
        """
        assert chosen.refers is not None
        assert chosen.constant is not None
        seen = len(chosen.constant.unique())
        for layer in table.movable:
            if layer.ids.shape[axis] == 1:
                continue
            family = self.family(int(layer.ids.min()))
            whole = int(layer.ids.max()) < family.stop and table.shape[axis] == len(chosen.refers) == seen
            if not whole and axis in (self.slots(layer) or ()):
                continue  # slots that units were brought to before, in another order
            if whole and layer.axes == {axis}:
                self.tie(layer.ids.reshape(-1), chosen.refers)
            elif whole and family.start in self.around:
                self.tie(self.around[family.start], chosen.refers)
            else:
                self.pin(chosen_units(chosen), "says which units are read, of which some are never read")
                return False
            self.routed.add(family.start)
        return True

    def slots(self, layer: Layer) -> list[int] | None:
        """The axes along which a layer's labels differ only by what an input chose; None if it chose none of them."""
        if not self.routed or layer.pinned:
            return None
        family = self.family(int(layer.ids.min()))
        if family.start not in self.routed or int(layer.ids.max()) >= family.stop:
            return None
        if family.slices is None:
            return sorted(layer.axes)
        assert family.positions is not None
        inside = torch.from_numpy(family.positions)[layer.ids - family.start]
        return [axis for axis in sorted(layer.axes) if squeezed(inside, axes=[axis]).ids.shape[axis] == 1] or None

    def _reduce_routed(self, layer: Layer, gone: Sequence[int], slots: Sequence[int]) -> Layer | None:
        if layer.axes == set(slots):
            return None if self.family(int(layer.ids.min())).slices is None else self._mixed_up(layer, gone)
        if layer.axes - set(slots) <= set(gone) and not set(gone) & set(slots):
            return None  # the units around these are said by a layer of their own
        return self._mixed_up(layer, gone)

    def _mixed_up(self, layer: Layer, gone: Sequence[int]) -> Layer:
        names = layer.ids.unique()
        self.mark(names, names)
        self._obstacle(names, "sums over units of different experts")
        return positional([1 if axis in gone else size for axis, size in enumerate(layer.ids.shape)])

    def normalise(self, value: Labels, axes: Sequence[int]) -> Labels:
        """Labels of a function that treats all entries along some axes alike and keeps the shape (softmax, norms)."""
        self.reduce(value, axes)
        return value

    def order(self, value: Labels, axis: int, reason: str = "") -> Labels:
        """Labels of a value whose places along an axis matter (sequence, kernel): units along it are pinned."""
        axis %= value.rank
        if value.shape[axis] < 2:
            return value
        if reason and any(layer.ids.shape[axis] > 1 for layer in value.movable):
            for layer in value.movable:
                if layer.ids.shape[axis] > 1:
                    self._obstacle(layer.ids.unique(), reason)
        return self.meet(value, Labels(value.shape, (positional(value.shape, [axis]),)))

    def opaque(self, values: Sequence[Labels], shape: Sequence[int], reason: str = "") -> Labels:
        """Labels after an operation about which nothing is known: whatever reached it is pinned."""
        for value in values:
            self.pin(value, reason)
        return Labels(tuple(shape), (positional(shape),) if np.prod(shape, dtype=np.int64) > 1 else ())

    def chosen(self, before: Labels, after: Labels) -> Labels:
        """Labels after entries were taken from a value: those taken more often, or not at all, are marked."""
        for old, new in zip(_movable_in_order(before), _movable_in_order(after), strict=False):
            names, occurring = torch.unique(old.ids, return_counts=True)
            found, counts = torch.unique(new.ids, return_counts=True)
            if self.slots(old) is not None:
                # An input brings some units to more slots than others; only the share that was taken counts.
                shares = counts / occurring[torch.searchsorted(names, found)]
                counts = torch.unique(shares, return_inverse=True)[1] + 1
            times = torch.zeros(len(names), dtype=torch.int64)
            times[torch.searchsorted(names, found)] = counts
            if len(times.unique()) > 1:
                self.mark(names, times)
                self.unread.append(names[times == 0])
            self.read.append(found)
        if len(after.layers) > 1:
            return dataclasses.replace(after, layers=self.settle(after.layers, after.shape))
        return after

    # -- contractions ------------------------------------------------------------------------------------------------

    def contract(self, equation: str, *values: Labels) -> Labels:
        """Labels of an ``einsum``: entries that are multiplied meet, and what the result does not name is summed."""
        inputs, _, output = equation.replace(" ", "").partition("->")
        terms = inputs.split(",")
        letters = output + "".join(dict.fromkeys(c for c in inputs if c not in output + ","))
        placed = [_placed(value, term, letters) for value, term in zip(values, terms, strict=True)]
        self._want_splits(placed, len(output))
        product = self.meet(*placed)
        return self.reduce(product, range(len(output), len(letters)))

    def _want_splits(self, values: Sequence[Labels], kept: int) -> None:
        """A batch of weight matrices: each has rows and columns of its own, which whole-axis labels cannot say."""
        for value in values:
            others = [other for other in values if other is not value]
            for axis in range(value.rank):
                if not value.varies(axis):
                    continue
                batch = axis < kept and any(other.varies(axis) for other in others) and not self._routes([value], axis)
                for layer in value.movable:
                    if layer.ids.shape[axis] > 1:
                        continue
                    finer = any(
                        axis in there.axes and layer.axes <= there.axes for other in others for there in other.movable
                    )
                    routed = layer.axes - set(range(kept)) and axis < kept and self._routes(others, axis)
                    if batch or finer or routed:
                        self._want_split(value, layer, axis, inner_only=not (batch or routed))

    def _want_splits_as(self, values: Sequence[Labels]) -> None:
        """What meets units of slices (the biases of all experts in one matrix) must say which slice is meant too."""
        if not self.splits:
            return
        for value in values:
            for there in value.movable:
                if len(there.axes) < 2 or self.family(int(there.ids.min())).slices is None:
                    continue
                for other in values:
                    for layer in other.movable:
                        if layer.axes < there.axes:
                            for axis in there.axes - layer.axes:
                                self._want_split(other, layer, axis, inner_only=True)

    def _routes(self, values: Sequence[Labels], axis: int) -> bool:
        """Whether an axis of some value holds units that an input chose."""
        return any(
            axis in (self.slots(layer) or ()) for value in values for layer in value.movable if axis in layer.axes
        )

    def want_slices(self, table: Labels, axis: int, dim: int) -> None:
        """The positions of a table along ``dim`` are units of their own in each of its slices along ``axis``."""
        for layer in table.movable:
            if layer.ids.shape[dim] > 1 and layer.ids.shape[axis] == 1:
                self._want_split(table, layer, axis, inner_only=False)

    def sliced(self, value: Labels, axis: int) -> bool:
        """Whether units along an axis come from a table whose slices have, or shall have, units of their own."""
        tables = {split.tensor for split in self.splits | self.wanted}
        return any(
            layer.ids.shape[axis] > 1 and self.family(int(layer.ids.min())).tensor in tables for layer in value.movable
        )

    def _want_split(self, value: Labels, layer: Layer, axis: int, *, inner_only: bool) -> None:
        family = self.family(int(layer.ids.min()))
        if family.tensor is None or family.slices is not None or int(layer.ids.max()) >= family.stop:
            return
        for other in value.movable:
            if other.ids.shape[axis] == 1 or other.ids is layer.ids:
                continue
            owner = self.family(int(other.ids.min()))
            if owner.tensor != family.tensor or owner.dim == family.dim or int(other.ids.max()) >= owner.stop:
                continue
            # Of two axes that could each be split by the other, the later one is: heads come before their channels.
            if inner_only and owner.dim > family.dim:
                continue
            parts = owner.stop - owner.start if owner.start in self.routed else value.shape[axis]
            if owner.slices is None and owner.stop - owner.start >= parts:
                self.wanted.add(Split(family.tensor, family.dim, owner.dim, parts))


def chosen_units(chosen: Labels) -> Labels:
    """The units that an input may choose, as a value of their own."""
    assert chosen.refers is not None
    return Labels(tuple(chosen.refers.shape), (Layer(chosen.refers),))


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


def _columns(one: Tensor, other: Tensor, relation: int) -> np.ndarray:
    first, second = one.reshape(-1).numpy(), other.reshape(-1).numpy()
    return np.stack([first, second, np.full(len(first), relation)])


def _pairs(one: Layer, other: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pairs of labels that meet, as indices into the different labels of each side, and these labels."""
    ones, left = torch.unique(one.ids, return_inverse=True)
    others, right = torch.unique(other.ids, return_inverse=True)
    code = torch.unique(left * len(others) + right)
    return code // len(others), code % len(others), ones, others


def _absorb(one: Layer, other: Layer) -> tuple[bool, bool]:
    """Of two pinned layers, drop the one that the other determines."""
    if one.distinct and other.axes <= one.axes:
        return True, False
    if other.distinct and one.axes <= other.axes:
        return False, True
    if one.ids.shape == other.ids.shape and torch.equal(canonical(one.ids), canonical(other.ids)):
        return True, False
    return True, True


def _deduplicated(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    kept: list[Layer] = []
    for layer in layers:
        if layer.pinned and any(k.pinned and _absorb(k, layer) == (True, False) for k in kept):
            continue
        kept.append(layer)
    return tuple(kept)


def _movable_in_order(value: Labels) -> tuple[Layer, ...]:
    return tuple(layer for layer in value.layers if not layer.pinned)


def _placed(value: Labels, term: str, letters: str) -> Labels:
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
