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
from isthmus.discover import choosing, meeting, reducing, splitting
from isthmus.discover.families import Family, Split
from isthmus.discover.labels import Labels, Layer, aligned, mixed, placed, positional


class Ledger:
    """Collects what operations say while a graph is interpreted.

    Attributes:
        families: all labels by origin.
        ties, nests, marks: columns (label, label, relation), (inner, outer, relation), (label, key).
        obstacles: what was pinned, and why.
        splits: axes whose positions must be units of their own in each slice of another axis; known before a run.
        wanted: splits that this run found to be needed.
        routed: starts of families whose units an input chose.
        still: labels of entries that belong to no unit (zeros beside units).
        around: for a family of positions in each slice, by its start: the labels of the slices.
        lenient: follow choices of units that this example is too short to show.
    """

    def __init__(self, splits: frozenset[Split] = frozenset(), *, lenient: bool = False) -> None:
        self.lenient = lenient
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
        self.still: list[int] = []
        self.relation = 0
        self.operation = ""
        self.where = ""
        self.word = ""
        self.shapes: list[tuple[int, ...]] = []
        self.several = False
        self.read: list[Tensor] = []
        self.unread: list[Tensor] = []
        self.readers: frozenset[int] | None = None
        self.alone = False
        self.execute: Callable[..., Tensor] | None = None

    def unmarked(self) -> Ledger:
        """The same demands without what tells neighbours apart: units that are tied, exchangeable or not."""
        other = copy.copy(self)
        other.marks, other.families = [], list(self.families)
        return other

    # -- the operation that is being interpreted ---------------------------------------------------------------------

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
            split = splitting.chosen(self.splits, tensor, dim)
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

    def part(self, value: Labels, tensor: str, axis: int, start: int) -> Labels:
        """A run of positions along an axis of a tensor that is only ever read in parts.

        The other axes' positions are units of their own in each part.
        """
        layers = []
        for layer in value.layers:
            if layer.pinned or layer.ids.shape[axis] > 1:
                layers.append(layer)
                continue
            old = layer.ids.reshape(-1)
            family = self.family(int(old[0]))
            positions = np.arange(len(old))
            slices = (axis, np.full(len(old), start))
            width = value.shape[axis]
            new = self._new(len(old), tensor=tensor, dim=family.dim, positions=positions, slices=slices, width=width)
            self.mark(old, old)
            layers.append(Layer(new.reshape(layer.ids.shape), distinct=True))
        return dataclasses.replace(value, layers=tuple(layers))

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
            if choosing.invariant(self, layer):
                continue
            names = layer.ids.unique()
            self.mark(names, names)
            if reason:
                self.obstacle(names, reason)

    def pin_unread(self) -> None:
        """What this example computes and does not read (rows of position tables) a longer one may read: it stays."""
        if not self.unread:
            return
        lost = torch.zeros(self.count, dtype=torch.bool)
        lost[torch.cat(self.unread)] = True
        lost[torch.cat(self.read)] = False
        if len(unread := lost.nonzero().reshape(-1)):
            self.mark(unread, unread)

    def obstacle(self, names: Tensor, reason: str) -> None:
        """Name what was pinned, and why."""
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
        splitting.ask_as(self, spread)
        for value in spread:
            layers = meeting.joined(self, layers, value.layers)
        return Labels(tuple(shape), layers)

    def settle(self, layers: Sequence[Layer], shape: Sequence[int]) -> tuple[Layer, ...]:
        """Layers of one value after entries were chosen: relations between the layers may have become visible."""
        result: tuple[Layer, ...] = ()
        for layer in layers:
            result = meeting.joined(self, result, (layer,))
        return result

    def reduce(self, value: Labels, axes: Sequence[int], *, keepdim: bool = False) -> Labels:
        """Labels of a symmetric function (sum, mean, maximum) of all entries along some axes."""
        return reducing.reduce(self, value, axes, keepdim=keepdim)

    # -- units that the input chooses --------------------------------------------------------------------------------

    def route(self, table: Labels, axis: int, chosen: Labels) -> bool:
        """A table is read along an axis at the units that an input chose: its positions there are these units.

        Return whether the positions may be exchanged; otherwise they are pinned.
        """
        return choosing.route(self, table, axis, chosen)

    def stop(self, chosen: Labels, reason: str) -> None:
        """The units that an input may choose may not move."""
        assert chosen.refers is not None
        self.mark(chosen.refers, chosen.refers)
        self.obstacle(chosen.refers, reason)

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
                    self.obstacle(layer.ids.unique(), reason)
        return self.meet(value, Labels(value.shape, (positional(value.shape, [axis]),)))

    def opaque(self, values: Sequence[Labels], shape: Sequence[int], reason: str = "") -> Labels:
        """Labels after an operation about which nothing is known: whatever reached it is pinned."""
        for value in values:
            self.pin(value, reason)
        return Labels(tuple(shape), (positional(shape),) if np.prod(shape, dtype=np.int64) > 1 else ())

    def chosen(self, before: Labels, after: Labels) -> Labels:
        """Labels after entries were taken from a value: those taken more often, or not at all, are marked."""
        return reducing.chosen(self, before, after)

    def contract(self, equation: str, *values: Labels) -> Labels:
        """Labels of an ``einsum``: entries that are multiplied meet, and what the result does not name is summed."""
        inputs, _, output = equation.replace(" ", "").partition("->")
        terms = inputs.split(",")
        letters = output + "".join(dict.fromkeys(c for c in inputs if c not in output + ","))
        laid = [placed(value, term, letters) for value, term in zip(values, terms, strict=True)]
        splitting.ask(self, laid, len(output))
        product = self.meet(*laid)
        return self.reduce(product, range(len(output), len(letters)))


def _columns(one: Tensor, other: Tensor, relation: int) -> np.ndarray:
    first, second = one.reshape(-1).numpy(), other.reshape(-1).numpy()
    return np.stack([first, second, np.full(len(first), relation)])
