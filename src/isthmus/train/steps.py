"""One training step as a function from a flat list of tensors to another: what can be traced, compiled and captured."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.train import folding, optimisers
from isthmus.train.task import State, Task

TINY = 1e-12  # keeps SAM's direction finite where the gradient vanishes


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are in the flat list: parameters, buffers, masks, inputs, targets, then memory, rate, step, losses.

    Attributes:
        parameters: how many tensors.
        buffers: how many tensors.
        masks: how many tensors.
        memory: how many lists of as many tensors as there are parameters.
        stacked: whether everything has a leading replica axis.
        folded: whether images are laid out with the replica axis among the channels, for convolutions.
        kernels: whether our own kernels take what they can (:mod:`isthmus.train.kernels`).
    """

    parameters: int
    buffers: int
    masks: int
    memory: int
    stacked: bool = True
    folded: bool = False
    kernels: bool = False

    @classmethod
    def of(cls, state: State, *, stacked: bool = True, folded: bool = False, kernels: bool = False) -> Layout:
        """The layout of a state's tensors."""
        counts = (len(part) for part in (state.parameters, state.buffers, state.masks, state.memory))
        return cls(*counts, stacked=stacked, folded=folded, kernels=kernels)

    def taken(self, flat: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """Parameters, buffers, masks, the batch, and the rest."""
        sizes = (0, self.parameters, self.buffers, self.masks, 2, len(flat))
        edges = list(itertools.accumulate(sizes))
        return [flat[first:last] for first, last in itertools.pairwise(edges)]

    def split(self, results: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Losses, gradients and buffers from what :func:`gradients` returns."""
        return results[0], list(results[1 : 1 + self.parameters]), list(results[1 + self.parameters :])

    def lists(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """The optimiser's memory from a flat list."""
        count = self.parameters
        return [list(tensors[index * count : (index + 1) * count]) for index in range(self.memory)]

    def state(self, results: Sequence[Tensor], *, masks: list[Tensor]) -> tuple[State, Tensor]:
        """The state and the step counter from what :func:`whole_step` returns."""
        edges = list(itertools.accumulate((2, self.parameters, self.buffers, self.memory * self.parameters)))
        parameters, buffers, memory = (list(results[first:last]) for first, last in itertools.pairwise(edges))
        return State(parameters, buffers, self.lists(memory), masks, results[0]), results[1]


def gradients(task: Task, layout: Layout, flat: Sequence[Tensor]) -> list[Tensor]:
    """Losses, gradients and moved buffers.

    SAM's gradient is taken at the worst point nearby; running statistics count the unperturbed pass only.
    """
    parameters, buffers, masks, batch, _ = layout.taken(flat)
    losses, slopes, moved = _differentiate(task, layout, parameters, buffers, batch)
    slopes = _masked(slopes, masks)
    if task.recipe.optimiser == "sam":
        axes = 1 if layout.stacked else 0
        squares = torch.stack([slope.square().flatten(axes).sum(axes) if slope.dim() > axes else slope.square()
                               for slope in slopes]).sum(0)  # fmt: skip
        scale = task.recipe.radius / (squares.sqrt() + TINY)
        worst = [
            parameter + slope * scale.view(-1, *[1] * (slope.dim() - 1))
            if layout.stacked
            else parameter + slope * scale
            for parameter, slope in zip(parameters, slopes, strict=True)
        ]
        _, slopes, _ = _differentiate(task, layout, worst, buffers, batch)
        slopes = _masked(slopes, masks)
    return [losses, *slopes, *moved]


def whole_step(task: Task, layout: Layout, flat: Sequence[Tensor]) -> list[Tensor]:
    """A whole training step, the optimiser included, for the compiler to fuse."""
    parameters, *_, rest = layout.taken(flat)
    *memory, rate, step, total = rest
    losses, slopes, buffers = layout.split(gradients(task, layout, flat[: len(flat) - len(rest)]))
    with torch.no_grad():
        new, remembered = optimisers.stepped(
            task.recipe, parameters, slopes, layout.lists(memory), rate=rate, step=step
        )
    return [total + losses, step + 1, *new, *buffers, *itertools.chain(*remembered)]


def _differentiate(
    task: Task, layout: Layout, parameters: Sequence[Tensor], buffers: Sequence[Tensor], batch: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    leaves = [parameter.detach().requires_grad_() for parameter in parameters]
    moved = _copies(buffers)  # normalisation writes into them
    inputs, targets = batch

    def forward(one: list[Tensor], held: list[Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
        return task.apply(one, held, images), held

    with torch.enable_grad(), task.autocast():
        if layout.stacked:
            images, axis = (folding.folded(inputs), 1) if layout.folded else (inputs, 0)
            with _rewriting(task, layout):
                outputs, moved = torch.func.vmap(forward, in_dims=(0, 0, axis))(leaves, moved, images)
            losses = task.losses(outputs, targets)
        else:
            losses = task.loss(task.apply(leaves, moved, inputs), targets)
    given = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
    slopes = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, given, strict=True)]
    return losses.detach(), slopes, moved


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, in one kernel for all on a GPU."""
    if tensors and tensors[0].device.type == "cuda" and all(tensor.dtype is torch.float32 for tensor in tensors):
        return list(torch._foreach_mul(list(tensors), 1.0))
    return [tensor.clone() for tensor in tensors]


def _rewriting(task: Task, layout: Layout) -> contextlib.AbstractContextManager[Any]:
    """The mode that writes one replica's operations as those of many."""
    plain = folding.Rewriting(convolutions=layout.folded)
    if not layout.kernels:
        return plain
    from isthmus.train.kernels.rewriting import Stacked

    return Stacked(rounded=task.recipe.precision == "tensorfloat32", otherwise=plain.rewritten)


def _masked(slopes: list[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
    return [slope * mask for slope, mask in zip(slopes, masks, strict=True)] if masks else slopes


class Function:
    """A step traced for the shapes it meets, and compiled if wished. An uneven last batch has a trace of its own."""

    def __init__(
        self, task: Task, step: Callable[[Task, Layout, Sequence[Tensor]], list[Tensor]], *, compiled: bool
    ) -> None:
        self.task, self.step, self.compiled = task, step, compiled
        self._traced: dict[tuple[object, ...], Callable[..., list[Tensor]]] = {}

    def __call__(self, layout: Layout, flat: Sequence[Tensor]) -> list[Tensor]:
        """The step's results."""
        inputs = flat[layout.parameters + layout.buffers + layout.masks]
        key = (layout, inputs.shape)
        if key not in self._traced:
            self._traced[key] = self._trace(layout, flat)
        return self._traced[key](*flat)

    def _trace(self, layout: Layout, flat: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
        from torch._inductor import compile as compile_graph
        from torch.fx.experimental.proxy_tensor import make_fx

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about operations that vmap runs one by one
            traced = make_fx(lambda *tensors: self.step(self.task, layout, tensors))(*flat)
            if layout.folded:
                folding.flip_backward(traced.graph)
            if layout.kernels:
                _fused(traced.graph)
            else:
                simplify(traced.graph)
            traced.recompile()
            if not self.compiled:
                return traced.forward
            # Without dynamo's guards: shapes are checked above.
            with folding.layouts_kept() if layout.folded else contextlib.nullcontext():
                made: Any = compile_graph(traced, list(flat))
            return made


def _fused(graph: torch.fx.Graph) -> None:
    """Neighbouring operations in one pass over memory."""
    from isthmus.train.kernels import fusion

    fusion.out_of_place(graph)
    simplify(graph)
    fusion.fuse(graph)


def simplify(graph: torch.fx.Graph) -> None:
    """Leave out what only autograd and vmap needed: each operation saved is a microsecond of every step on a CPU."""
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        source = node.args[0]
        same = node.target is aten.detach.default
        same |= node.target is aten.mul.Scalar and node.args[1] == 1
        same |= node.target is aten.permute.default and list(node.args[1]) == list(range(len(node.args[1])))
        if node.target in (aten.view.default, aten.expand.default, aten._unsafe_view.default):
            before, after = (part.meta.get("val", part.meta.get("tensor_meta")) for part in (source, node))
            same = before is not None and after is not None and tuple(before.shape) == tuple(after.shape)
        # Written-to tensors keep their nodes; what a trace may alias freely is only what nobody writes into.
        if same and not _written(source) and not _written(node):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _written(node: torch.fx.Node) -> bool:
    """Whether some operation writes into a node's tensor."""
    schemas = (getattr(user.target, "_schema", None) for user in node.users)
    return any(schema is not None and schema.is_mutable for schema in schemas)
