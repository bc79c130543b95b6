"""Which positions of shared tensors belong to which of several equal parts: a router's rows, a projection's columns.

The graph is interpreted once more. Now positions at which parts enter a concatenation get labels of their own, and
what was tied before any part began is kept apart from what was tied anywhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from isthmus.discover.branches import Branches
from isthmus.discover.classes import Classes
from isthmus.discover.families import Family, Split
from isthmus.discover.graphs import shapes_of
from isthmus.discover.interpreter import Interpreter, constants_of
from isthmus.discover.labels import Labels, Layer
from isthmus.discover.ledger import Ledger
from isthmus.discover.pairing import leaves, word
from isthmus.discover.rules import RULES, Rule

_LISTS = frozenset({"cat", "concat", "concatenate", "stack"})
_SCATTERS = frozenset({"select_scatter", "slice_scatter"})


class Tracing(Interpreter):
    """An interpretation that remembers values at some nodes, and which demands came from which node.

    Attributes:
        entries: nodes whose outputs get labels of their own along an axis.
        watched: nodes whose values are kept, in ``seen``.
        seen, entered: values, and the labels given.
        since: nodes, and how many ties and nests there were before each.
    """

    def __init__(
        self,
        program: ExportedProgram,
        ledger: Ledger,
        rules: Mapping[str, Rule],
        *,
        entries: Mapping[fx.Node, int],
        watched: set[fx.Node],
    ) -> None:
        super().__init__(program, ledger, rules, constants_of(program))
        self.entries, self.watched = entries, watched
        self.seen: dict[fx.Node, Any] = {}
        self.entered: dict[fx.Node, Tensor] = {}
        self.since: list[tuple[fx.Node, int, int]] = []

    def _placeholder(self, node: fx.Node) -> Any:
        return self._noted(node, super()._placeholder(node))

    def _attribute(self, node: fx.Node) -> Any:
        return self._noted(node, super()._attribute(node))

    def _call(self, node: fx.Node) -> Any:
        self.since.append((node, len(self.ledger.ties), len(self.ledger.nests)))
        result = super()._call(node)
        if node in self.entries and isinstance(result, Labels):
            axis = self.entries[node]
            labels = self.entered[node] = self.ledger.blocks(result.shape[axis])
            layout = [1] * result.rank
            layout[axis] = len(labels)
            own = Layer(labels.reshape(layout), distinct=True)
            # Which part is where would say all that the labels say, and so hide them.
            rest = [layer for layer in result.layers if not (layer.pinned and axis in layer.axes)]
            result = dataclasses.replace(result, layers=(own, *rest), constant=None)
        return self._noted(node, result)

    def _noted(self, node: fx.Node, value: Any) -> Any:
        if node in self.watched:
            self.seen[node] = value
        return value


class Trace:
    """What one further interpretation says about the parts of a graph."""

    def __init__(
        self,
        program: ExportedProgram,
        every: Sequence[Branches],
        *,
        splits: frozenset[Split],
        rules: Mapping[str, Rule],
    ) -> None:
        entries: dict[fx.Node, int] = {}
        watched: set[fx.Node] = set()
        for branches in every:
            entries |= _entries(branches)
            watched |= {one for row in branches.reads for node in row for one in _sources(node)}
        self.ledger = Ledger(splits, lenient=True)
        self._run = Tracing(program, self.ledger, {**RULES, **rules}, entries=entries, watched=watched)
        self._run.run()
        self._starts = np.array([family.start for family in self.ledger.families])
        self._everywhere = Classes(self.ledger.count, self.ledger.ties, self.ledger.nests)

    def before(self, branches: Branches) -> Classes:
        """Classes of labels by what is demanded before any part begins."""
        inside = branches.nodes
        ledger, run = self.ledger, self._run.since
        ties, nests = [], []
        for number, (node, *start) in enumerate(run):
            if node in inside or any(used in inside for used in node.all_input_nodes):
                inside.add(node)
                continue
            stop = run[number + 1][1:] if number + 1 < len(run) else (len(ledger.ties), len(ledger.nests))
            ties += ledger.ties[start[0] : stop[0]]
            nests += ledger.nests[start[1] : stop[1]]
        return Classes(ledger.count, ties, nests)

    @property
    def everywhere(self) -> Classes:
        """Classes of labels by all demands."""
        return self._everywhere

    def families(self, labels: np.ndarray) -> list[Family]:
        """Where labels come from."""
        numbers = np.searchsorted(self._starts, labels, side="right") - 1
        return [self.ledger.families[number] for number in numbers.tolist()]

    def outside(self, own: set[str]) -> np.ndarray:
        """The labels of positions in tensors that are no part's own."""
        chosen = [one for one in self.ledger.families if one.tensor is not None and one.tensor not in own]
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(one.start, one.stop) for one in chosen)])

    def read(self, nodes: Sequence[fx.Node]) -> list[np.ndarray] | None:
        """The labels that corresponding nodes of the parts read; None if that cannot be said."""
        found = [labels for node in nodes if (labels := self._labels_read(node)) is not None]
        return found if len(found) == len(nodes) and len({len(labels) for labels in found}) == 1 else None

    def entered(self, branches: Branches) -> list[list[np.ndarray]]:
        """For each place where the parts come together in order: the labels of each part's positions."""
        result = []
        for node, places in _written(branches).items():
            labels = self._run.entered.get(node)
            if labels is not None:
                result.append([labels[torch.tensor(where)].numpy() for where in places])
        return result

    def _labels_read(self, node: fx.Node) -> np.ndarray | None:
        name = word(node)
        values = [self._run.seen.get(source) for source in _sources(node)]
        value = values[0] if values else None
        if not isinstance(value, Labels):
            return None
        if name in ("eq", "ne"):
            number = _number(node.args[1], values)
            usable = value.refers is not None and number is not None and 0 <= number < len(value.refers)
            return value.refers[number : number + 1].numpy() if usable else None  # type: ignore[index]
        place = _place(node, value, values)
        if place is None:
            return None
        axis, positions = place
        layers = [layer for layer in value.movable if layer.ids.shape[axis] > 1]
        return np.concatenate(
            [np.zeros(0, dtype=np.int64)]
            + [layer.ids.index_select(axis, torch.tensor(positions)).reshape(-1).numpy() for layer in layers]
        )


def _sources(node: fx.Node) -> list[fx.Node]:
    """What a reading node reads: for a part of a split value, the value before it was split."""
    first: Any = node.args[0]
    if word(node) == "getitem" and isinstance(first, fx.Node):
        first = first.args[0]
    rest = [leaf for leaf in leaves(node)[1:] if isinstance(leaf, fx.Node)]
    return [first, *rest] if isinstance(first, fx.Node) else rest


def _number(argument: Any, values: Sequence[Any]) -> int | None:
    if isinstance(argument, int):
        return argument
    held = values[1].constant if len(values) > 1 and isinstance(values[1], Labels) else None
    return int(held) if held is not None and held.numel() == 1 else None


def _place(node: fx.Node, value: Labels, values: Sequence[Any]) -> tuple[int, list[int]] | None:
    """The axis and the positions that a node reads."""
    name = word(node)
    arguments: list[Any] = list(node.args)
    if name.startswith("select"):
        axis = int(arguments[1]) % value.rank
        return axis, [int(arguments[2]) % value.shape[axis]]
    if name.startswith("slice"):
        axis = int(arguments[1] if len(arguments) > 1 else 0) % value.rank
        return axis, list(range(value.shape[axis]))[slice(*[*arguments[2:5]])]
    if name.startswith("narrow"):
        axis = int(arguments[1]) % value.rank
        return axis, list(range(value.shape[axis]))[int(arguments[2]) :][: int(arguments[3])]
    if name == "getitem":
        source: fx.Node = arguments[0]
        given: Sequence[Any] = source.args[1:] if word(source).startswith("unbind") else source.args[2:]
        dim: Any = given[0] if given else source.kwargs.get("dim", 0)
        axis = int(dim) % value.rank
        if word(source).startswith("unbind"):
            return axis, [int(arguments[1])]
        sizes = [shape[axis] for shape in shapes_of(source)]
        start = sum(sizes[: int(arguments[1])])
        return axis, list(range(start, start + sizes[int(arguments[1])]))
    held = [one.constant for one in values[1:] if isinstance(one, Labels) and one.constant is not None]
    if name in ("index", "index_select", "embedding") and len(held) == 1:
        axis = 0
        if name == "index_select":
            axis = int(arguments[1]) % value.rank
        if name == "index":
            axis = next(number for number, one in enumerate(arguments[1]) if one is not None)
        return axis, held[0].reshape(-1).tolist()
    return None


def _entries(branches: Branches) -> dict[fx.Node, int]:
    return {node: _axis(node) for node in _written(branches)}


def _axis(node: fx.Node) -> int:
    given: Sequence[Any] = node.args[2:3] if word(node) in _SCATTERS else node.args[1:2]
    dim: Any = given[0] if given else node.kwargs.get("dim", 0)
    return int(dim) % len(shapes_of(node)[0])


def _written(branches: Branches) -> dict[fx.Node, list[list[int]]]:
    """Nodes that parts enter in order, and for each part its positions along the axis."""
    result: dict[fx.Node, list[list[int]]] = {}
    for node in branches.joins:
        if word(node) in _LISTS:
            members: dict[fx.Node, list[int]] = {}
            start, axis = 0, _axis(node)
            parts: Any = node.args[0]
            for part in parts:
                width = 1 if word(node) == "stack" else shapes_of(part)[0][axis]
                members.setdefault(part, []).extend(range(start, start + width))
                start += width
            first = [part for part in members if part in branches.pairings[0].to]
            rows = [branches.counterparts(part) for part in first]
            if all(part in members for row in rows for part in row):
                result[node] = [
                    [place for row in rows for place in members[row[unit]]] for unit in range(branches.number)
                ]
    for row in branches.steps:
        if word(row[0]) in _SCATTERS:
            last = max(row, key=branches.outline.place.__getitem__)
            axis, size = _axis(last), shapes_of(last)[0][_axis(last)]
            result[last] = [_scattered(node, size) for node in row]
    return {node: places for node, places in result.items() if math.prod(map(len, places))}


def _scattered(node: fx.Node, size: int) -> list[int]:
    arguments: list[Any] = list(node.args)
    if word(node) == "select_scatter":
        return [int(arguments[3]) % size]
    return list(range(size))[slice(*arguments[3:6])]
