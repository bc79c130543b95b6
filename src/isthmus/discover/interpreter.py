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
from torch.utils import _pytree as pytree

from isthmus.core.errors import SymmetryError
from isthmus.discover import choosing
from isthmus.discover.exporting import functional, place_of
from isthmus.discover.foreseen import foreseen
from isthmus.discover.graphs import (
    LARGEST_CONSTANT,
    alive,
    held,
    held_by,
    inputs_of,
    measured,
    mutates,
    name_of,
    nested_graph,
    number,
    outputs_of,
    pointwise,
    readers_of,
    shapes_of,
    writes_into_views,
)
from isthmus.discover.identities import loosened
from isthmus.discover.labels import Labels, constant, fixed
from isthmus.discover.ledger import Ledger
from isthmus.discover.parts import taken_apart
from isthmus.discover.plainer import straighten
from isthmus.discover.rules import CHOOSING, RULES, Rule
from isthmus.discover.rules.elementwise import elementwise
from isthmus.discover.settled import settled


def interpretable(program: ExportedProgram) -> ExportedProgram:
    """The program itself, or its functional form where it writes into views or holds graphs inside graphs."""
    return straighten(functional(program) if writes_into_views(program.graph, settled(program)) else program)


def interpret(program: ExportedProgram, rules: Mapping[str, Rule]) -> Ledger:
    """The ledger of everything that a graph demands of its units."""
    splits = foreseen(program)
    known = constants_of(program)
    while True:
        ledger = Ledger(splits)
        Interpreter(program, ledger, {**RULES, **rules}, known).run()
        if ledger.wanted <= splits:
            return ledger
        splits |= ledger.wanted


def constants_of(program: ExportedProgram) -> dict[fx.Node, Any]:
    """The values of nodes that no input and no weight reaches, where they are written in place."""
    return {node: _constants(value) for node, value in settled(program).items()}


_UNEXPECTED = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, RuntimeError)


class Interpreter:
    """One walk through a graph."""

    def __init__(
        self, program: ExportedProgram, ledger: Ledger, rules: Mapping[str, Rule], known: Mapping[fx.Node, Any]
    ) -> None:
        self.program = program
        self.ledger = ledger
        self.rules = rules
        self.known = known
        self.values: dict[fx.Node, Any] = {}
        self.inputs = inputs_of(program)
        self.inside: fx.Node | None = None  # the operation whose parts these are

    def run(self) -> None:
        """Interpret every node; pin what the network hands out."""
        last = alive(self.program.graph)
        for node in self.program.graph.nodes:
            if node not in last:
                continue
            if node in self.known:
                self.values[node] = self.known[node]
            elif node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                self.ledger.operation, self.ledger.where = "output", ""
                kept = outputs_of(self.program, node)
                for value in _labels_in([self.values.get(part) for part in kept]):
                    self.ledger.pin(value)
                self.ledger.pin_unread()
            for used in node.all_input_nodes:
                if used in self.values and used in last and last[used] is node:
                    self.values[used] = None

    def _placeholder(self, node: fx.Node) -> Any:
        kind, name = self.inputs.get(node.name, (None, None))
        example = node.meta.get("val")
        if not isinstance(example, Tensor):
            return example
        shape = tuple(int(size) for size in example.shape)
        if kind in (InputKind.PARAMETER, InputKind.BUFFER) and name in self.program.state_dict:
            stored = self.program.state_dict[name]
            # Integers of one byte are rounded weights; others are tables of places and masks.
            if kind == InputKind.PARAMETER or stored.dtype == torch.int8 or not _whole(stored):
                return self.ledger.atoms(str(name), shape)
            return held(stored)
        if kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            stored = self.program.constants.get(str(name))
            return held(stored) if isinstance(stored, Tensor) else fixed(shape)
        return fixed(shape)

    def _attribute(self, node: fx.Node) -> Any:
        return held_by(self.program.graph_module, str(node.target))

    def _call(self, node: fx.Node) -> Any:
        arguments: Any = fx.map_arg(node.args, lambda n: self.values[n])
        keywords = fx.map_arg(node.kwargs, lambda n: self.values[n])
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        if isinstance(size := node.meta.get("val"), torch.SymInt):
            return number(size)
        name = name_of(node)
        if (inner := nested_graph(node, arguments)) is not None:
            return self._nested(*inner)
        ledger = self.ledger
        ledger.operation, ledger.word = name_of(self.inside or node), ""
        ledger.where = place_of(self.inside or node)
        ledger.shapes = shapes_of(node)
        ledger.readers = readers_of(node)
        ledger.alone = all(len(used.users) == 1 for used in node.all_input_nodes)
        chosen = [value for value in _labels_in([*arguments, *keywords.values()]) if value.refers is not None]
        looked_up = bool(chosen) and name in CHOOSING and not choosing.looked_up_in_constants(name, arguments)
        if not looked_up and (folded := self._folded(node, arguments, keywords)) is not None:
            return self._still_chosen(name, folded, arguments, chosen)
        if not ledger.shapes:
            return None
        if name not in CHOOSING:
            for value in chosen:
                ledger.stop(value, "takes units that an input chose by their numbers")
        result = self._apply(node, name, arguments, keywords)
        if mutates(node) and node.args and isinstance(node.args[0], fx.Node):
            self.values[node.args[0]] = result
        return result

    def _still_chosen(self, name: str, folded: Any, arguments: Sequence[Any], chosen: Sequence[Labels]) -> Any:
        """What is computed from the numbers of chosen units still depends on which units they are."""
        if not chosen:
            return folded
        if any(not torch.equal(value.refers, chosen[0].refers) for value in chosen[1:]):  # type: ignore[arg-type]
            for value in chosen:
                self.ledger.stop(value, "takes units that an input chose by their numbers")
            return folded
        parts = folded if isinstance(folded, (tuple, list)) else (folded,)
        told = choosing.told_by(name, arguments, chosen, len(parts))
        made = tuple(
            dataclasses.replace(part, refers=chosen[0].refers, told=what)
            for part, what in zip(parts, told, strict=True)
        )
        return made if isinstance(folded, (tuple, list)) else made[0]

    def _nested(self, module: fx.GraphModule, given: Sequence[Any], *, inside: fx.Node | None = None) -> Any:
        """A graph inside the graph (a part that runs under another gradient or precision mode, or one operation's)."""
        inner = Interpreter(self.program, self.ledger, self.rules, self.known)
        inner.inside = inside if inside is not None else self.inside
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        inner.values = dict(zip(placeholders, given, strict=True))
        for node in module.graph.nodes:
            if node.op == "get_attr":
                inner.values[node] = held_by(module, str(node.target))
            elif node.op == "call_function":
                inner.values[node] = inner._call(node)
            elif node.op == "output":
                return fx.map_arg(node.args[0], lambda n: inner.values[n])
        return None

    def _apply(self, node: fx.Node, name: str, arguments: Any, keywords: Any) -> Any:
        ledger = self.ledger
        ledger.execute = _executable(node)
        rule = self.rules.get(name) or self.rules.get(name.rstrip("_"))
        if rule is None and pointwise(node):
            rule = elementwise
        reason = "has no rule; give one in rules="
        if rule is not None:
            arguments, keywords = pytree.tree_map(self._loosened, (arguments, keywords))
            try:
                return _fitted(rule(ledger, *arguments, **keywords), ledger.shapes)
            except SymmetryError:
                raise
            except _UNEXPECTED as problem:
                # A form of the operation that its rule does not expect costs freedom, never correctness.
                reason = f"is used in a form that its rule does not know ({type(problem).__name__}: {problem})"
        if not self.inside and (inner := taken_apart(node)) is not None:
            return self._in_parts(node, inner, arguments, keywords)
        return self._unknown(_labels_in([*arguments, *keywords.values()]), reason)

    def _loosened(self, argument: Any) -> Any:
        return loosened(self.ledger, argument) if isinstance(argument, Labels) else argument

    def _in_parts(self, node: fx.Node, inner: fx.GraphModule, arguments: Any, keywords: Any) -> Any:
        """An operation without a rule, as the simpler operations that it is made of."""
        ledger = self.ledger
        shapes, several, where = ledger.shapes, ledger.several, ledger.where
        result = self._nested(inner, _labels_in([arguments, list(keywords.values())]), inside=node)
        ledger.shapes, ledger.several, ledger.where = shapes, several, where
        result = tuple(result) if isinstance(result, (tuple, list)) else result
        return _fitted(result, shapes)

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
        if torch.Tag.nondeterministic_seeded in node.target.tags or measured(node):
            return None
        if any(math.prod(shape) > LARGEST_CONSTANT for shape in self.ledger.shapes) or not self.ledger.shapes:
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


def _whole(stored: Tensor) -> bool:
    return not (stored.is_floating_point() or stored.is_complex())


def _real(argument: Any) -> Any:
    if isinstance(argument, Labels):
        return argument.constant
    if isinstance(argument, (list, tuple)):
        return type(argument)(_real(part) for part in argument)
    return argument


def _constants(value: Any) -> Any:
    return constant(value) if isinstance(value, Tensor) else type(value)(_constants(part) for part in value)


def _executable(node: fx.Node) -> Any:
    return node.target


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
