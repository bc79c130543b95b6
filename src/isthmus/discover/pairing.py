"""One part of a graph beside another: whether they do the same with tensors of their own, and where they come together.

The parts grow from one tensor each: what makes a node's other inputs belongs to its part, and so does whatever reads a
node, until a value is reached that both parts enter alike: a sum, a concatenation, or one step of a running sum.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from isthmus.discover.graphs import alive, inputs_of, name_of, shapes_of

#: Arguments that say which position of a shared value a part reads or writes; parts may differ in these alone.
_PLACES = {
    "select": (2,), "slice": (2, 3), "narrow": (2,), "select_copy": (2,), "slice_copy": (2, 3), "narrow_copy": (2,),
    "eq": (1,), "ne": (1,), "select_scatter": (3,), "slice_scatter": (3, 4),
}  # fmt: skip
_SIDES = frozenset({"add", "mul", "maximum", "minimum", "logaddexp", "logical_or", "logical_and", "bitwise_or"})
_LISTS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack"})
_FORMS = frozenset({"view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "to", "_to_copy", "clone", "contiguous"})
#: Operations that take what is there so far and put a part's own contribution to it.
_STEPS = _SIDES | {
    "index_add", "index_put", "index_copy", "scatter", "scatter_add", "where", "masked_scatter", "select_scatter",
    "slice_scatter", "index",
}  # fmt: skip


_ON_THE_WAY = _STEPS | _FORMS


def word(node: fx.Node) -> str:
    """An operation's name without its namespace and without the mark of a write in place."""
    return name_of(node).rpartition(".")[2].rstrip("_")


def leaves(node: fx.Node) -> list[Any]:
    """All arguments of a node in order, out of their lists; of a copy what it overwrites says nothing but a form."""
    if name_of(node) in ("aten.copy", "aten.copy_"):
        return list(node.args[1:2])
    return pytree.tree_leaves((node.args, node.kwargs), is_leaf=lambda part: isinstance(part, slice))


class Outline:
    """A graph's nodes with what tells them apart when tensors' names and read positions are left out.

    Attributes:
        nodes: those on which an output depends, in order.
        colour: alike for nodes that are made alike from the same inputs.
        place: a node's number.
        readers: who reads a node, in order.
        tensors: placeholders of parameters and floating-point buffers, and their names.
    """

    def __init__(self, program: ExportedProgram) -> None:
        last = alive(program.graph)
        self.nodes = [node for node in program.graph.nodes if node in last]
        self.place = {node: number for number, node in enumerate(self.nodes)}
        self.readers: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for used in node.all_input_nodes:
                self.readers[used].append(node)
        self.tensors: dict[fx.Node, str] = {}
        self.colour: dict[fx.Node, int] = {}
        inputs = inputs_of(program)
        for node in self.nodes:
            self.colour[node] = self._coloured(program, node, inputs.get(node.name, (None, None)))

    def _coloured(self, program: ExportedProgram, node: fx.Node, said: tuple[InputKind | None, str | None]) -> int:
        kind, name = said
        if node.op == "placeholder":
            stored = program.state_dict.get(str(name)) if kind in (InputKind.PARAMETER, InputKind.BUFFER) else None
            if isinstance(stored, Tensor):
                if stored.is_floating_point() or stored.is_complex():
                    self.tensors[node] = str(name)
                return hash((kind, tuple(stored.shape), stored.dtype))
            held = program.constants.get(str(name))
            return _of_constant(held) if isinstance(held, Tensor) else hash(("input", node.name))
        if node.op == "get_attr":
            held = program.graph_module
            for part in str(node.target).split("."):
                held = getattr(held, part, None)
            code = held.code if isinstance(held, fx.GraphModule) else str(node.target)
            return _of_constant(held) if isinstance(held, Tensor) else hash(("held", code))
        relaxed = relaxed_places(node)
        parts = [
            self.colour[leaf] if isinstance(leaf, fx.Node) else 0 if number in relaxed else repr(leaf)
            for number, leaf in enumerate(leaves(node))
        ]
        return hash((node.op, name_of(node), tuple(map(tuple, shapes_of(node))), tuple(parts)))

    def between(self, early: fx.Node, late: fx.Node, *, steps: bool = False) -> bool:
        """Whether one of two nodes depends on the other; if ``steps``, through steps of a running sum alone."""
        if self.place[early] > self.place[late]:
            early, late = late, early
        first, waiting, seen = self.place[early], [late], {late}
        while waiting:
            for used in waiting.pop().all_input_nodes:
                if used is early:
                    return True
                if self.place[used] > first and used not in seen and (not steps or word(used) in _ON_THE_WAY):
                    seen.add(used)
                    waiting.append(used)
        return False


def _of_constant(held: Tensor) -> int:
    """Constants of integers may say which position is read, so only their form counts."""
    if held.is_floating_point() and held.device.type != "meta" and held.numel() <= 1 << 16:
        return hash(("constant", tuple(held.shape), held.dtype, held.detach().cpu().double().numpy().tobytes()))
    return hash(("constant", tuple(held.shape), held.dtype))


def relaxed_places(node: fx.Node) -> Sequence[int]:
    """Which of a node's arguments say what position it reads."""
    if node.target is operator.getitem:
        source = node.args[0]
        several = isinstance(source, fx.Node) and word(source) in _PARTING
        return (1,) if several else ()
    return _PLACES.get(word(node), ()) if isinstance(node.target, torch._ops.OpOverload) else ()


_PARTING = frozenset({
    "split", "split_with_sizes", "chunk", "unbind", "tensor_split", "unsafe_split", "unsafe_chunk", "split_copy",
    "unbind_copy", "split_with_sizes_copy", "unsafe_split_with_sizes",
})  # fmt: skip


class Pairing:
    """A search for the part that does with another tensor what one part does with one.

    Attributes:
        to: each node of the first part and its counterpart; only those that differ.
        reads: nodes of the first part that read another position than their counterparts do.
        joins: nodes that both parts enter: sums, concatenations.
        steps: nodes by which the first part enters a running sum.
    """

    def __init__(self, outline: Outline, one: fx.Node, other: fx.Node) -> None:
        self.outline = outline
        self.to: dict[fx.Node, fx.Node] = {}
        self.back: dict[fx.Node, fx.Node] = {}
        self.reads: list[fx.Node] = []
        self.joins: list[fx.Node] = []
        self.steps: dict[fx.Node, fx.Node] = {}
        self._waiting: deque[fx.Node] = deque()
        self.holds = self._pair(one, other) and self._spread()

    def _spread(self) -> bool:
        while self._waiting:
            node = self._waiting.popleft()
            if node.op == "call_function" and not self._inputs(node, self.to[node]):
                return False
            if not self._readers(node, self.to[node]):
                return False
        return not self.to.keys() & self.back.keys()

    def _pair(self, one: Any, other: Any) -> bool:
        if one is other:
            return one not in self.to and one not in self.back
        if one in self.to or other in self.back:
            return self.to.get(one) is other
        if self.outline.colour[one] != self.outline.colour[other]:
            return False
        self.to[one], self.back[other] = other, one
        self._waiting.append(one)
        return True

    def _inputs(self, one: fx.Node, other: fx.Node) -> bool:
        """What two nodes are made from must be alike or the same."""
        differ = False
        for left, right in zip(leaves(one), leaves(other), strict=True):
            if isinstance(left, fx.Node):
                if not self._pair(left, right):
                    return False
                differ |= left is not right and left not in self.outline.tensors and _is_constant(left)
            elif repr(left) != repr(right):
                differ = True
        if differ:
            self.reads.append(one)
        return True

    def _readers(self, one: fx.Node, other: fx.Node) -> bool:
        """Whoever reads one must have a counterpart that reads the other, or read both alike."""
        left, right = self.outline.readers[one], self.outline.readers[other]
        both = [reader for reader in left if reader in right]
        if not all(self._joined(reader, one, other) for reader in both):
            return False
        left = [reader for reader in left if reader not in both]
        right = [reader for reader in right if reader not in both]
        if len(left) != len(right):
            return False
        for reader in left:
            match = next((peer for peer in right if self._counterpart(reader, peer, one, other)), None)
            if match is None:
                return False
            right.remove(match)
        return True

    def _counterpart(self, reader: fx.Node, peer: fx.Node, one: fx.Node, other: fx.Node) -> bool:
        if reader in self.steps or reader in self.to:
            return peer in (self.steps.get(reader), self.to.get(reader))
        if name_of(reader) != name_of(peer) or reader.op != "call_function":
            return False
        if self.outline.colour[reader] == self.outline.colour[peer]:
            return _places(reader, one) == _places(peer, other) and self._pair(reader, peer)
        return word(reader) in _STEPS and self._step(reader, peer, one, other)

    def _step(self, reader: fx.Node, peer: fx.Node, one: fx.Node, other: fx.Node) -> bool:
        """Whether two nodes are steps of one running sum: alike but for what was there before."""
        left, right = leaves(reader), leaves(peer)
        if len(left) != len(right):
            return False
        if word(reader) in _SIDES and _places(reader, one) != _places(peer, other):
            right = [right[1], right[0], *right[2:]]
        relaxed = relaxed_places(reader)
        pairs, before = [], 0
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            if isinstance(a, fx.Node) != isinstance(b, fx.Node):
                before += 1  # a sum that begins with a number
            elif not isinstance(a, fx.Node):
                if repr(a) != repr(b) and number not in relaxed:
                    return False
            elif (a is one and b is other) or self.to.get(a) is b:
                continue
            elif self.outline.colour[a] == self.outline.colour[b] and a is not b and not self._there(a, b):
                pairs.append((a, b))
            else:
                before += 1
        if not before or not self.outline.between(reader, peer, steps=True):
            return False
        self.steps[reader] = peer
        return all(self._pair(a, b) for a, b in pairs)

    def _there(self, one: fx.Node, other: fx.Node) -> bool:
        """Whether of two values one is made from the other, as what was there before a step is."""
        return self.outline.between(one, other)

    def _joined(self, reader: fx.Node, one: fx.Node, other: fx.Node) -> bool:
        if reader.op != "call_function":
            return False
        name = word(reader)
        self.joins.append(reader)
        mine, theirs = _places(reader, one), _places(reader, other)
        if name in _LISTS:
            return len(mine) == len(theirs)
        return name in _SIDES and sorted(mine + theirs) == [0, 1]


def _is_constant(node: fx.Node) -> bool:
    return node.op in ("get_attr", "placeholder")


def _places(reader: fx.Node, node: fx.Node) -> list[int]:
    return [number for number, leaf in enumerate(leaves(reader)) if leaf is node]


def buckets(outline: Outline) -> list[list[fx.Node]]:
    """Tensors that are used alike, as far as their first readers see; those that stand alone are left out."""
    found: dict[tuple[object, ...], list[fx.Node]] = {}
    for node in outline.tensors:
        uses = sorted((outline.colour[reader], *_places(reader, node)) for reader in outline.readers[node])
        found.setdefault((outline.colour[node], *uses), []).append(node)
    return [nodes for nodes in found.values() if len(nodes) > 1]


__all__ = ["Outline", "Pairing", "buckets", "leaves", "relaxed_places", "word"]
