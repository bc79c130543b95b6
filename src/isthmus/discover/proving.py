"""Which form of the network the proof runs: the module itself, or its graph where the module rounds to float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from isthmus.core.errors import SymmetryError, first_line
from isthmus.core.symmetry import Proof, Symmetry
from isthmus.core.weights import Weights
from isthmus.discover.graphs import nested_graph
from isthmus.discover.verify import Call, module_call, prove, repeatable

_ROUNDING = frozenset({torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32})
_WIDER = {rounding: torch.complex128 if rounding.is_complex else torch.float64 for rounding in _ROUNDING}


def proof_of(
    symmetry: Symmetry,
    module: nn.Module,
    program: ExportedProgram,
    example: tuple[Any, ...],
    keywords: Mapping[str, Any],
    *,
    generator: torch.Generator,
    tolerance: float,
) -> Proof:
    """Prove a symmetry on the module itself in float64, or on its exported graph where the module rounds on its way."""
    originals = dict(module.state_dict(keep_vars=True))
    if any(tensor.device.type == "meta" for tensor in originals.values()):
        raise SymmetryError(
            "the proof must have numbers to compute with, but the module is on the meta device; pass verify=False, and "
            "prove a narrow copy of the same architecture"
        )
    originals = {name: tensor.detach() if not tensor.requires_grad else tensor for name, tensor in originals.items()}

    def run(call: Call, note: str) -> Proof:
        return prove(
            symmetry, call, example, keywords, originals=originals, generator=generator, tolerance=tolerance, note=note
        )

    call, note = call_of(module, program)
    try:
        return run(call, note)
    except (RuntimeError, TypeError) as problem:
        if note:
            raise
        reason = first_line(problem, 120)
        return run(graph_call(program), f"run as exported graph, because the module refuses float64: {reason}")


def call_of(module: nn.Module, program: ExportedProgram, *, gradients: bool = False) -> tuple[Call, str]:
    """How the network is run in float64, and what must be said about it."""
    if _rounds(program.graph):
        return graph_call(
            program, gradients=gradients
        ), "the module rounds to float32 on its way: its exported graph was run in float64"
    return module_call(module, gradients=gradients), ""


def _rounds(graph: fx.Graph) -> bool:
    """Whether some operation asks for a type that is narrower than float64."""
    return any(
        isinstance(argument, torch.dtype) and argument in _ROUNDING
        for node in graph.nodes
        if node.all_input_nodes and str(node.target).split(".")[1:2] != ["new_zeros"]
        for argument in [*node.args, *node.kwargs.values()]
    )


def graph_call(program: ExportedProgram, *, gradients: bool = False) -> Call:
    """Outputs of the exported graph, every floating-point number in it held in float64."""

    def call(weights: Weights, example: tuple[Any, ...], keywords: Mapping[str, Any]) -> list[Tensor]:
        leaves = list(pytree.tree_leaves((example, dict(keywords))))
        values = iter(leaves)
        arguments = []
        for spec in program.graph_signature.input_specs:
            if spec.target is not None and spec.target in weights:
                arguments.append(weights[spec.target])
            elif spec.target is not None and spec.target in program.constants:
                arguments.append(_wide(program.constants[spec.target]))
            else:
                arguments.append(next(values))
        with torch.set_grad_enabled(gradients), repeatable():
            output = _Wide(program.graph_module).run(*arguments)
        kinds = program.graph_signature.output_specs
        kept = [
            part
            for part, spec in zip(pytree.tree_leaves(output), kinds, strict=False)
            if spec.kind.name == "USER_OUTPUT"
        ]
        return [part for part in kept if isinstance(part, Tensor)]

    return call


def _wide(value: Any) -> Any:
    return value.to(_WIDER.get(value.dtype, value.dtype)) if isinstance(value, Tensor) else value


def _grouped_product(rows: Tensor, tables: Tensor, ends: Tensor) -> Tensor:
    """Rows up to each end times that group's matrix; rows after the last end are zero."""
    product = rows.new_zeros(rows.shape[0], tables.shape[2])
    first = 0
    for table, last in zip(tables, ends.tolist(), strict=True):
        product[first:last] = rows[first:last] @ table
        first = last
    return product


class _Wide(fx.Interpreter):
    """Runs a graph with float64 wherever it asks for a narrower floating-point type."""

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function" and isinstance(n.target, torch._ops.HigherOrderOperator):
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            if (inner := nested_graph(n, arguments)) is not None:
                return _Wide(inner[0]).run(*inner[1])
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None  # of the types that the network has, which are other ones here
        args = tuple(_WIDER.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        kwargs = {k: _WIDER.get(v, v) if isinstance(v, torch.dtype) else v for k, v in kwargs.items()}
        if target is torch.ops.aten._grouped_mm.default and len(args) == 3 and args[1].dim() == 3:
            return _grouped_product(*args)  # the kernel has no float64
        result = super().call_function(target, args, kwargs)
        return pytree.tree_map(_wide, result)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return _wide(super().get_attr(target, args, kwargs))
