"""Memory that is written in place and that no input and no weight reaches: attention masks filled region by region.

What it holds once the last write is done is computed at once, on real memory, so that views are views. The graph is
then walked as it is; only writes into what depends on the network need the graph's functional form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from isthmus.discover.graphs import (
    LARGEST_CONSTANT,
    filled_with,
    held_by,
    inputs_of,
    measured,
    mutates,
    same_memory,
    shapes_of,
)


def settled(program: ExportedProgram) -> dict[fx.Node, Any]:
    """What lies in memory that is written in place, for every node that may be a view of it.

    Only memory that nothing reads before the last write has one value to tell, so other memory is left out.
    """
    place = {node: number for number, node in enumerate(program.graph.nodes)}
    result: dict[fx.Node, Any] = {}
    seen: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.op != "call_function" or not mutates(node) or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        if node in seen:
            continue
        memory = same_memory(node.args[0])
        seen |= memory
        found = _Constants(program, place).of(memory)
        last = max(place[one] for one in memory if mutates(one))
        if found is None or any(
            place[user] < last for one in memory for user in one.users if user not in found and user not in memory
        ):
            continue
        result |= {one: found[one] for one in memory}
    return result


class _Constants:
    """Computes nodes that depend on no input and no weight, in the graph's order."""

    def __init__(self, program: ExportedProgram, place: Mapping[fx.Node, int]) -> None:
        self.program, self.place = program, place
        self.inputs = inputs_of(program)

    def of(self, memory: set[fx.Node]) -> dict[fx.Node, Any] | None:
        """The values of nodes and of all they are made from; None if an input or a weight is among these."""
        if any(node.op != "call_function" for node in memory):
            return None
        needed, waiting = set(memory), list(memory)
        while waiting:
            node = waiting.pop()
            if not self._computable(node):
                return None
            fresh = set(self._sources(node)) - needed
            needed |= fresh
            waiting += fresh
        values: dict[fx.Node, Any] = {}
        try:
            for node in sorted(needed, key=self.place.__getitem__):
                values[node] = self._value(node, values)
        except (RuntimeError, TypeError, NotImplementedError, ValueError, IndexError):
            return None
        return values

    def _sources(self, node: fx.Node) -> Sequence[fx.Node]:
        return () if filled_with(node) is not None else node.all_input_nodes

    def _computable(self, node: fx.Node) -> bool:
        if node.op == "get_attr":
            return True
        if node.op == "placeholder":
            return self._stored(node) is not None
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            return False
        if torch.Tag.nondeterministic_seeded in node.target.tags or measured(node) or "empty" in node.target.name():
            return False
        shapes = shapes_of(node)
        return bool(shapes) and all(math.prod(shape) <= LARGEST_CONSTANT for shape in shapes)

    def _stored(self, node: fx.Node) -> Tensor | None:
        """A constant that the graph is given; buffers of numbers may be of the network's own making."""
        kind, name = self.inputs.get(node.name, (None, None))
        stored = self.program.constants.get(str(name)) if kind == InputKind.CONSTANT_TENSOR else None
        usable = isinstance(stored, Tensor) and stored.device.type != "meta" and stored.numel() <= LARGEST_CONSTANT
        return stored.detach().cpu() if usable else None  # type: ignore[union-attr]

    def _value(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        if node.op == "get_attr":
            stored = held_by(self.program.graph_module, str(node.target)).constant
            if stored is None:
                raise ValueError("a constant must be small enough to be computed with")
            return stored
        if node.op == "placeholder":
            return self._stored(node)
        if (number := filled_with(node)) is not None:
            return torch.full(shapes_of(node)[0], number, dtype=node.meta["val"].dtype)
        arguments = fx.map_arg(node.args, values.__getitem__)
        keywords = dict(fx.map_arg(node.kwargs, values.__getitem__))
        if "device" in keywords:
            keywords["device"] = torch.device("cpu")
        return node.target(*arguments, **keywords)  # type: ignore[operator]
