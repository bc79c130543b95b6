"""The abstract interpretation: labels instead of numbers through every operation of an exported graph."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from isthmus.core.errors import SymmetryError
from isthmus.discover.exporting import functional, place_of
from isthmus.discover.labels import Labels, constant, fixed
from isthmus.discover.ledger import Ledger, Split, chosen_units
from isthmus.discover.rules import CHOOSING, RULES, Rule
from isthmus.discover.rules.elementwise import elementwise

_SOME = 5  # stands for a number of places that depends on values
_LARGEST_CONSTANT = 1 << 24  # entries; larger tables are pinned without being computed


def interpretable(program: ExportedProgram) -> ExportedProgram:
    """The program itself, or its functional form where it writes into views or holds graphs inside graphs."""
    return functional(program) if _writes_into_views(program.graph) else program


def interpret(program: ExportedProgram, rules: Mapping[str, Rule]) -> Ledger:
    """The ledger of everything that a graph demands of its units."""
    splits: frozenset[Split] = frozenset()
    while True:
        ledger = Ledger(splits)
        Interpreter(program, ledger, {**RULES, **rules}).run()
        if ledger.wanted <= splits:
            return ledger
        splits |= ledger.wanted


class Interpreter:
    """One walk through a graph."""

    def __init__(self, program: ExportedProgram, ledger: Ledger, rules: Mapping[str, Rule]) -> None:
        self.program = program
        self.ledger = ledger
        self.rules = rules
        self.values: dict[fx.Node, Any] = {}
        self.inputs = _inputs(program)

    def run(self) -> None:
        """Interpret every node; pin what the network hands out."""
        alive = _alive(self.program.graph)
        for node in self.program.graph.nodes:
            if node not in alive:
                continue
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                self.ledger.operation, self.ledger.where = "output", ""
                kept = _outputs(self.program, node)
                for value in _labels_in([self.values.get(part) for part in kept]):
                    self.ledger.pin(value)
                self.ledger.pin_unread()
            for used in node.all_input_nodes:
                if used in self.values and used in alive and alive[used] is node:
                    self.values[used] = None

    def _placeholder(self, node: fx.Node) -> Any:
        kind, name = self.inputs.get(node.name, (None, None))
        example = node.meta.get("val")
        if not isinstance(example, Tensor):
            return example
        shape = tuple(int(size) for size in example.shape)
        if kind in (InputKind.PARAMETER, InputKind.BUFFER) and name in self.program.state_dict:
            stored = self.program.state_dict[name]
            if kind == InputKind.PARAMETER or stored.is_floating_point() or stored.is_complex():
                return self.ledger.atoms(str(name), shape)
            return _held(stored)
        if kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            stored = self.program.constants.get(str(name))
            return _held(stored) if isinstance(stored, Tensor) else fixed(shape)
        return fixed(shape)

    def _attribute(self, node: fx.Node) -> Any:
        return _held_by(self.program.graph_module, str(node.target))

    def _call(self, node: fx.Node) -> Any:
        arguments: Any = fx.map_arg(node.args, lambda n: self.values[n])
        keywords = fx.map_arg(node.kwargs, lambda n: self.values[n])
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        if isinstance(size := node.meta.get("val"), torch.SymInt):
            return number(size)
        name = _name(node)
        if (inner := nested_graph(node, arguments)) is not None:
            return self._nested(*inner)
        ledger = self.ledger
        ledger.operation, ledger.where, ledger.word = name, place_of(node), ""
        ledger.shapes = _shapes(node)
        ledger.readers = _readers(node)
        chosen = [value for value in _labels_in([*arguments, *keywords.values()]) if value.refers is not None]
        if not (chosen and name in CHOOSING) and (folded := self._folded(node, arguments, keywords)) is not None:
            return self._still_chosen(folded, chosen)
        if not ledger.shapes:
            return None
        if name not in CHOOSING:
            for value in chosen:
                ledger.pin(chosen_units(value), "takes units that an input chose by their numbers")
        result = self._apply(node, name, arguments, keywords)
        if _mutates(node) and node.args and isinstance(node.args[0], fx.Node):
            self.values[node.args[0]] = result
        return result

    def _still_chosen(self, folded: Any, chosen: Sequence[Labels]) -> Any:
        """What is computed from the numbers of chosen units still depends on which units they are."""
        if not chosen:
            return folded
        if any(not torch.equal(value.refers, chosen[0].refers) for value in chosen[1:]):  # type: ignore[arg-type]
            for value in chosen:
                self.ledger.pin(chosen_units(value), "takes units that an input chose by their numbers")
            return folded
        parts = folded if isinstance(folded, (tuple, list)) else (folded,)
        made = tuple(dataclasses.replace(part, refers=chosen[0].refers) for part in parts)
        return made if isinstance(folded, (tuple, list)) else made[0]

    def _nested(self, module: fx.GraphModule, given: Sequence[Any]) -> Any:
        """A graph inside the graph (a part that runs under another gradient or precision mode)."""
        inner = Interpreter(self.program, self.ledger, self.rules)
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        inner.values = dict(zip(placeholders, given, strict=True))
        for node in module.graph.nodes:
            if node.op == "get_attr":
                inner.values[node] = _held_by(module, str(node.target))
            elif node.op == "call_function":
                inner.values[node] = inner._call(node)
            elif node.op == "output":
                return fx.map_arg(node.args[0], lambda n: inner.values[n])
        return None

    def _apply(self, node: fx.Node, name: str, arguments: Any, keywords: Any) -> Any:
        ledger = self.ledger
        ledger.execute = _executable(node)
        rule = self.rules.get(name) or self.rules.get(name.rstrip("_"))
        if rule is None and _pointwise(node):
            rule = elementwise
        given = _labels_in([*arguments, *keywords.values()])
        if rule is None:
            return self._unknown(given, "has no rule; give one in rules=")
        try:
            return _fitted(rule(ledger, *arguments, **keywords), ledger.shapes)
        except SymmetryError:
            raise
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, RuntimeError) as problem:
            # A form of the operation that its rule does not expect costs freedom, never correctness.
            return self._unknown(
                given, f"is used in a form that its rule does not know ({type(problem).__name__}: {problem})"
            )

    def _unknown(self, given: Sequence[Labels], reason: str) -> Any:
        ledger = self.ledger
        results = [ledger.opaque(given if k == 0 else (), shape, reason) for k, shape in enumerate(ledger.shapes)]
        return results[0] if len(results) == 1 and not ledger.several else tuple(results)

    def _folded(self, node: fx.Node, arguments: Any, keywords: Any) -> Any:
        """The value of an operation on constants only."""
        self.ledger.several = not isinstance(node.meta.get("val"), Tensor)
        given = _labels_in([*arguments, *keywords.values()])
        if any(value.constant is None for value in given) or not isinstance(node.target, torch._ops.OpOverload):
            return None
        if torch.Tag.nondeterministic_seeded in node.target.tags or _measured(node):
            return None
        if any(math.prod(shape) > _LARGEST_CONSTANT for shape in self.ledger.shapes) or not self.ledger.shapes:
            return None
        try:
            real = [_real(argument) for argument in arguments]
            named = {key: _real(value) for key, value in keywords.items()}
            if "device" in named:
                named["device"] = torch.device("cpu")
            result = node.target(*real, **named)
        except (RuntimeError, TypeError, NotImplementedError, ValueError, IndexError):
            return None
        if isinstance(result, Tensor):
            return constant(result)
        if isinstance(result, (tuple, list)) and all(isinstance(part, Tensor) for part in result):
            return type(result)(constant(part) for part in result)
        return None


_MODES = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def nested_graph(node: fx.Node, arguments: Sequence[Any]) -> tuple[fx.GraphModule, Sequence[Any]] | None:
    """The graph and its arguments, if a node runs a graph inside the graph."""
    target = node.target
    if not isinstance(target, torch._ops.HigherOrderOperator) or target.name() not in _MODES:
        return None
    place = next((k for k, argument in enumerate(arguments) if isinstance(argument, fx.GraphModule)), None)
    return None if place is None else (arguments[place], arguments[place + 1 :])


def _held_by(module: torch.nn.Module, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return _held(found) if isinstance(found, Tensor) else found


def _held(stored: Tensor) -> Labels:
    """A tensor that the network holds and never learns."""
    if stored.device.type == "meta" or stored.numel() > _LARGEST_CONSTANT:
        return fixed(tuple(stored.shape))
    return constant(stored.detach().cpu())


def _real(argument: Any) -> Any:
    if isinstance(argument, Labels):
        return argument.constant
    if isinstance(argument, (list, tuple)):
        return type(argument)(_real(part) for part in argument)
    return argument


def _inputs(program: ExportedProgram) -> dict[str, tuple[InputKind, str | None]]:
    specs = program.graph_signature.input_specs
    return {spec.arg.name: (spec.kind, spec.target) for spec in specs if hasattr(spec.arg, "name")}


def _outputs(program: ExportedProgram, node: fx.Node) -> list[fx.Node]:
    from torch.export.graph_signature import OutputKind

    user = {
        spec.arg.name
        for spec in program.graph_signature.output_specs
        if spec.kind == OutputKind.USER_OUTPUT and hasattr(spec.arg, "name")
    }
    return [part for part in node.all_input_nodes if part.name in user]


def _alive(graph: fx.Graph) -> dict[fx.Node, fx.Node | None]:
    """Nodes on which an output depends, each with its last reader; writes in place count as reads."""
    last: dict[fx.Node, fx.Node | None] = {}
    for node in reversed(graph.nodes):
        mutating = node.op == "call_function" and _mutates(node)
        written = node.args[0] if mutating and node.args and isinstance(node.args[0], fx.Node) else None
        if node.op == "output" or node in last or (written is not None and written in last):
            last.setdefault(node, None)
            for used in node.all_input_nodes:
                if used not in last:
                    last[used] = node
            if written is not None:
                last[written] = last.get(written) or node
    return last


def _shapes(node: fx.Node) -> list[tuple[int, ...]]:
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


def _measured(node: fx.Node) -> bool:
    """Whether a size of a node's output depends on values."""
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(not isinstance(size, int) for part in values if isinstance(part, Tensor) for size in part.shape)


def _readers(node: fx.Node) -> frozenset[int] | None:
    if not isinstance(node.meta.get("val"), (list, tuple)):
        return None
    readers = set()
    for user in node.users:
        if user.target is not operator.getitem:
            return None
        if user.users:
            readers.add(int(user.args[1]))  # type: ignore[arg-type]
    return frozenset(readers)


def _name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"
    return getattr(target, "__name__", str(target))


def _mutates(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _pointwise(node: fx.Node) -> bool:
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


def _executable(node: fx.Node) -> Any:
    return node.target


def _writes_into_views(graph: fx.Graph) -> bool:
    """Whether something is written in place into a value that shares memory with another one still in use."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            if target.name() not in _MODES:
                return True
            continue
        if not _mutates(node) or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        written = node.args[0]
        if written.op != "call_function" or _shares_memory(written):
            return True
        if any(_shares_memory(user) for user in written.users if user is not node):
            return True
    return False


_ALIASES = frozenset({"getitem", "contiguous", "reshape", "flatten", "to", "type_as", "dropout", "detach", "view_as"})


def _shares_memory(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target is operator.getitem and _shares_memory(node.args[0])  # type: ignore[arg-type]
    if any(output.alias_info is not None and not output.alias_info.is_write for output in target._schema.returns):
        return True
    name = target._schema.name.split("::")[-1]
    return name in _ALIASES or name.startswith(("split", "chunk", "unbind", "tensor_split"))


def _labels_in(arguments: Any) -> list[Labels]:
    found = []
    for argument in arguments:
        if isinstance(argument, Labels):
            found.append(argument)
        elif isinstance(argument, (list, tuple)):
            found += _labels_in(argument)
    return found


def _fitted(result: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
    """The result, checked against the shapes that the graph says; a rule that makes another shape is a mistake."""
    values = _labels_in(result if isinstance(result, (list, tuple)) else [result])
    for value, shape in zip(values, shapes, strict=False):
        if tuple(value.shape) != tuple(shape):
            raise AssertionError(f"a rule made {value.shape} where the graph has {shape}")
    if isinstance(result, Labels) and result.source is not None:
        return dataclasses.replace(result, source=None)
    return result
