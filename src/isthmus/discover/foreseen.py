"""Splits that a graph's form says beforehand: known from the start, they save a second look or show what it cannot."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from isthmus.discover.families import Split
from isthmus.discover.graphs import inputs_of, name_of


def foreseen(program: ExportedProgram) -> frozenset[Split]:
    """Axes of tensors whose positions are units of their own in each slice of another axis."""
    return frozenset([*_grouped_kernels(program), *_read_apart(program)])


def _grouped_kernels(program: ExportedProgram) -> Iterator[Split]:
    """The splits that grouped convolutions with kernels of their own will ask for: known, they save a second look."""
    inputs = inputs_of(program)
    for node in program.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload) or not name_of(node).startswith("aten.conv"):
            continue
        place = next((k for k, given in enumerate(node.target._schema.arguments) if given.name == "groups"), 0)
        groups = node.args[place] if 1 < place < len(node.args) else 1
        kernel = node.args[1]
        if not isinstance(groups, int) or groups < 2 or not isinstance(kernel, fx.Node):
            continue
        kind, name = inputs.get(kernel.name, (None, None))
        if kind == InputKind.PARAMETER and kernel.meta["val"].shape[1] > 1:
            yield Split(str(name), 1, 0, groups)


def _read_apart(program: ExportedProgram) -> Iterator[Split]:
    """The splits of tensors that are only ever read one slice at a time: layers' weights that are kept in one table."""
    inputs = inputs_of(program)
    for node in program.graph.nodes:
        kind, name = inputs.get(node.name, (None, None))
        if kind not in (InputKind.PARAMETER, InputKind.BUFFER) or not isinstance(node.meta.get("val"), Tensor):
            continue
        axes = {_slice_axis(user, node) for user in node.users}
        axis = axes.pop() if len(axes) == 1 else None
        shape = node.meta["val"].shape
        if axis is not None and len(shape) > 1 and shape[axis] > 1:
            yield from (Split(str(name), dim, axis, shape[axis]) for dim in range(len(shape)) if dim != axis)


def _slice_axis(user: fx.Node, node: fx.Node) -> int | None:
    """The axis along which a node reads single slices of another; None if it reads something else."""
    if not isinstance(user.target, torch._ops.OpOverload) or name_of(user) not in ("aten.select", "aten.unbind"):
        return None
    given = user.args[1] if len(user.args) > 1 else user.kwargs.get("dim", 0)
    return int(given) % node.meta["val"].dim() if isinstance(given, int) else None
