"""What nodes of an exported graph say about themselves: names, shapes, who reads them, what they write to."""

from __future__ import annotations

import operator
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from isthmus.discover.labels import Labels, constant, fixed

LARGEST_CONSTANT = 1 << 24  # entries; larger tables are pinned without being computed
_MODES = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
_ALIASES = frozenset({"getitem", "contiguous", "reshape", "flatten", "to", "type_as", "dropout", "detach", "view_as"})
_FILLED = {"new_zeros": 0, "zeros_like": 0, "new_ones": 1, "ones_like": 1}  # the tensor they are given says its type
_SOME = 5  # stands for a number of places that depends on values


def held_by(module: torch.nn.Module, path: str) -> Any:
    """What a module holds under a dotted name."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return held(found) if isinstance(found, Tensor) else found


def held(stored: Tensor) -> Labels:
    """A tensor that the network holds and never learns."""
    if stored.device.type == "meta" or stored.numel() > LARGEST_CONSTANT:
        return fixed(tuple(stored.shape))
    return constant(stored.detach().cpu())


def inputs_of(program: ExportedProgram) -> dict[str, tuple[InputKind, str | None]]:
    """For each placeholder what it stands for, and its state-dict name."""
    specs = program.graph_signature.input_specs
    return {spec.arg.name: (spec.kind, spec.target) for spec in specs if hasattr(spec.arg, "name")}


def outputs_of(program: ExportedProgram, node: fx.Node) -> list[fx.Node]:
    """The nodes that the network hands out."""
    from torch.export.graph_signature import OutputKind

    user = {
        spec.arg.name
        for spec in program.graph_signature.output_specs
        if spec.kind == OutputKind.USER_OUTPUT and hasattr(spec.arg, "name")
    }
    return [part for part in node.all_input_nodes if part.name in user]


def alive(graph: fx.Graph) -> dict[fx.Node, fx.Node | None]:
    """Nodes on which an output depends, each with its last reader; writes in place count as reads."""
    last: dict[fx.Node, fx.Node | None] = {}
    for node in reversed(graph.nodes):
        mutating = node.op == "call_function" and mutates(node)
        written = node.args[0] if mutating and node.args and isinstance(node.args[0], fx.Node) else None
        if node.op == "output" or node in last or (written is not None and written in last):
            last.setdefault(node, None)
            for used in node.all_input_nodes:
                if used not in last:
                    last[used] = node
            if written is not None:
                last[written] = last.get(written) or node
    return last


def shapes_of(node: fx.Node) -> list[tuple[int, ...]]:
    """The shapes of a node's outputs."""
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return [tuple(number(size) for size in part.shape) for part in values if isinstance(part, Tensor)]


def number(size: Any) -> int:
    """A size; one that depends on values (how many tokens came to an expert) is taken to be the same small number.

    Labels along such an axis only tell places apart, and how many places there are changes nothing about units.
    """
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, _SOME)))


def measured(node: fx.Node) -> bool:
    """Whether a size of a node's output depends on values."""
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(not isinstance(size, int) for part in values if isinstance(part, Tensor) for size in part.shape)


def readers_of(node: fx.Node) -> frozenset[int] | None:
    """Which of several outputs are read; None if that cannot be said."""
    if not isinstance(node.meta.get("val"), (list, tuple)):
        return None
    readers = set()
    for user in node.users:
        if user.target is not operator.getitem:
            return None
        if user.users:
            readers.add(int(user.args[1]))  # type: ignore[arg-type]
    return frozenset(readers)


def name_of(node: fx.Node) -> str:
    """The operation as ``namespace.operation``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"
    return getattr(target, "__name__", str(target))


def mutates(node: fx.Node) -> bool:
    """Whether a node writes to its first argument."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def pointwise(node: fx.Node) -> bool:
    """Whether a node is a function of the entries at one place."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target in (operator.add, operator.mul, operator.sub, operator.truediv, operator.pow, operator.neg)
    if torch.Tag.pointwise in target.tags:
        return True
    # A write in place is tagged less often than the operation itself.
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[-1].rstrip("_"), None)
    if packet is None or not target._schema.is_mutable:
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())


def writes_into_views(graph: fx.Graph, known: Container[fx.Node] = ()) -> bool:
    """Whether something is written in place into memory that is read later under another name.

    What is read later under the written value's own name, or as the write's result, is known to be new; ``known`` holds
    further nodes whose values are known.
    """
    place = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            if target.name() not in _MODES:
                return True
            continue
        if node in known or not mutates(node) or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        written = node.args[0]
        memory = same_memory(written)
        if any(one.op != "call_function" for one in memory):
            return True
        others = [user for one in memory - {written, node} for user in one.users if user is not node]
        if any(place[user] > place[node] for user in others):
            return True
    return False


def same_memory(node: fx.Node) -> set[fx.Node]:
    """Every node whose value may lie in the memory of this one's: what it is a view of, and all views of that."""
    while (shares_memory(node) or mutates(node)) and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    found, waiting = {node}, [node]
    while waiting:
        last = waiting.pop()
        views = {user for user in last.users if (shares_memory(user) or mutates(user)) and user.args[:1] == (last,)}
        waiting += views - found
        found |= views
    return found


def shares_memory(node: fx.Node) -> bool:
    """Whether a node's output may be a view of its input."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target is operator.getitem and shares_memory(node.args[0])  # type: ignore[arg-type]
    if any(output.alias_info is not None and not output.alias_info.is_write for output in target._schema.returns):
        return True
    name = target._schema.name.split("::")[-1]
    return name in _ALIASES or name.startswith(("split", "chunk", "unbind", "tensor_split"))


def nested_graph(node: fx.Node, arguments: Sequence[Any]) -> tuple[fx.GraphModule, Sequence[Any]] | None:
    """The graph and its arguments, if a node runs a graph inside the graph."""
    target = node.target
    if not isinstance(target, torch._ops.HigherOrderOperator) or target.name() not in _MODES:
        return None
    place = next((k for k, argument in enumerate(arguments) if isinstance(argument, fx.GraphModule)), None)
    return None if place is None else (arguments[place], arguments[place + 1 :])


def filled_with(node: fx.Node) -> float | int | bool | None:
    """The number with which a node fills a tensor that is only like another one in type."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not isinstance(node.meta.get("val"), Tensor):
        return None
    name = target._schema.name.split("::")[-1]
    if name in ("new_full", "full_like"):
        number = node.args[2 if name == "new_full" else 1] if len(node.args) > 1 else None
        return number if isinstance(number, (int, float)) else None
    return _FILLED.get(name)
