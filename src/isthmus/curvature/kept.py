"""Graphs of batches that are kept and differentiated again: one forward and backward pass pays for many products.

The second derivative needs the graph of the first. Building it costs more than using it, so the graphs of as many
batches as fit in memory stay alive as long as the operator does; the others are built again at every product.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import DataError, WeightsError, listed
from isthmus.core.losses import counted
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights
from isthmus.curvature.convolution import Convolutions

# Images of row vectors under one batch's share of the operator, summed (not averaged) over its loss values.
Rows = Float[Tensor, "vectors size"]
Images = Callable[[Rows], Rows]
Build = Callable[["Point", tuple[Tensor, ...], Tensor], tuple[Images, int]]

_KEPT_ON_CPU = 2**30  # bytes: a gigabyte of graphs is what a laptop spares without swapping
_MOST_TOGETHER = 64  # vectors in one vectorised pass; beyond it a GPU is full and only memory grows


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A place in weight space, ready to be differentiated there.

    Attributes:
        objective: what is differentiated.
        names: the tensors that vary, in the order in which their entries make up a vector.
        leaves: those tensors, in the working precision.
        fixed: all other tensors.
        dtype: the working precision.
    """

    objective: Objective
    names: tuple[str, ...]
    leaves: tuple[Tensor, ...]
    fixed: Mapping[str, Tensor]
    dtype: torch.dtype

    @classmethod
    def of(
        cls, objective: Objective, weights: Weights, *, tensors: Collection[str] | None, dtype: torch.dtype | None
    ) -> Point:
        """Copy the weights into leaves, in ``dtype`` or in their own precision, but at least float32.

        Raises:
            WeightsError: a tensor that varies is not there, or is complex.
        """
        chosen = chosen_names(objective, tensors)
        if missing := [name for name in chosen if name not in weights]:
            raise WeightsError(f"weights must hold every tensor that varies; missing: {listed(missing)}")
        if unreal := [name for name in chosen if weights[name].is_complex()]:
            raise WeightsError(f"curvature is that of real numbers; complex: {listed(unreal)}; name the real tensors")
        working = dtype or working_precision([weights[name] for name in chosen])
        cast = {n: t.detach().to(working) if t.is_floating_point() else t.detach() for n, t in weights.items()}
        leaves = tuple(cast.pop(name).clone().requires_grad_() for name in chosen)
        return cls(objective, chosen, leaves, cast, working)

    @property
    def size(self) -> int:
        """How many numbers vary."""
        return sum(leaf.numel() for leaf in self.leaves)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.leaves[0].device

    def outputs(self, inputs: tuple[Tensor, ...]) -> Any:
        """The network's output with a graph that can be differentiated twice."""
        cast = tuple(part.to(self.dtype) if part.is_floating_point() else part for part in inputs)
        weights = {**self.fixed, **dict(zip(self.names, self.leaves, strict=True))}
        with _twice_differentiable(self.objective):
            return self.objective.network(weights, *cast)

    def values(self, outputs: Any, targets: Tensor) -> Tensor:
        """The loss of every example.

        Raises:
            DataError: the loss gives one number for all.
        """
        values = self.objective.loss(outputs, targets)
        if values.dim() == 0:
            raise DataError("a loss must give one value for each example, got a single number; use reduction='none'")
        return values

    def total(self, outputs: Any, targets: Tensor) -> tuple[Tensor, int]:
        """The sum of a batch's losses, and how many count (all but those of ignored labels)."""
        values = self.values(outputs, targets)
        return values.sum(), int(counted(values, targets).sum())


def working_precision(tensors: list[Tensor]) -> torch.dtype:
    """The widest precision of the tensors, but at least float32: second derivatives in half precision are noise."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def chosen_names(objective: Objective, tensors: Collection[str] | None) -> tuple[str, ...]:
    """The tensors that vary: all trainable ones, or ``tensors`` in the network's order; ties by their first.

    Raises:
        WeightsError: names that are no trainable tensors, or none.
    """
    network = objective.network
    if tensors is None:
        return network.parameter_names
    wanted = {network.tied.get(name, name) for name in tensors}
    if unknown := sorted(wanted - set(network.parameter_names)):
        raise WeightsError(f"tensors must be trainable tensors of the network; unknown: {listed(unknown)}")
    if not wanted:
        raise WeightsError("tensors must hold at least one tensor, got none")
    return tuple(name for name in network.parameter_names if name in wanted)


def products(point: Point, build: Build, *, memory: int | None) -> Callable[[Tensor], Tensor]:
    """Products with the mean over all loss values of what ``build`` gives for each batch.

    Args:
        point: where.
        build: makes one batch's images and counts its loss values.
        memory: bytes for graphs that stay alive between products; ``None``: a gigabyte on a CPU, half of what is free
            on a GPU. A single batch is always kept: its graph is needed whole at every product anyway.
    """
    kept: list[tuple[Images, int]] = []
    plan: list[tuple[int, int]] = []

    @torch.enable_grad()
    def image(columns: Tensor) -> Tensor:
        if not plan:
            plan.append(_plan(point, build, memory))
        most, together = plan[0]
        rows = columns.detach().to(device=point.device, dtype=point.dtype).T
        total, examples = torch.zeros_like(rows), 0
        with full_precision(point.device):
            for place, (inputs, targets) in enumerate(point.objective.batches()):
                images, values = kept[place] if place < len(kept) else build(point, inputs, targets)
                if place >= len(kept) and place < most:
                    kept.append((images, values))
                for first in range(0, len(rows), together):
                    total[first : first + together] += images(rows[first : first + together])
                examples += values
        return (total / examples).T

    return image


def flat(parts: tuple[Tensor | None, ...], like: tuple[Tensor, ...], *, rows: int | None = None) -> Tensor:
    """Derivatives for each tensor as one vector (or ``rows`` of them); tensors that play no part give zeros."""
    lead = () if rows is None else (rows,)
    pieces = [
        (torch.zeros(*lead, *leaf.shape, dtype=leaf.dtype, device=leaf.device) if part is None else part).reshape(
            *lead, -1
        )
        for part, leaf in zip(parts, like, strict=True)
    ]
    return torch.cat(pieces, dim=-1)


def pulled(outputs: Tensor, inputs: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Rows through the transposed Jacobian of ``outputs``, (rows, entries of inputs); the graph is kept.

    All rows at once on a GPU. One after the other on a CPU, where the vectorised pass was measured at half the speed
    (16 vectors, a small convolutional network), and where an operation cannot be vectorised.
    """
    if not outputs.requires_grad:
        return rows.new_zeros(len(rows), sum(tensor.numel() for tensor in inputs))
    if len(rows) > 1 and rows.device.type != "cpu":
        with contextlib.suppress(RuntimeError, NotImplementedError):
            parts = torch.autograd.grad(
                outputs, inputs, rows.reshape(-1, *outputs.shape), True, is_grads_batched=True, allow_unused=True
            )
            return flat(parts, inputs, rows=len(rows))
    images = [
        flat(torch.autograd.grad(outputs, inputs, row.view_as(outputs), True, allow_unused=True), inputs)
        for row in rows
    ]
    return torch.stack(images)


def _plan(point: Point, build: Build, memory: int | None) -> tuple[int, int]:
    """How many batches' graphs to keep and how many vectors to send through one, from the first graph's size."""
    batches = -(-len(point.objective.targets) // point.objective.batch_size)
    on_cpu = point.device.type == "cpu"
    if batches == 1 and on_cpu:
        return 1, 1
    budget = memory if memory is not None else _KEPT_ON_CPU
    if memory is None and point.device.type == "cuda":
        budget = torch.cuda.mem_get_info(point.device)[0] // 2
    graph = _graph_bytes(point, build)
    together = 1 if on_cpu else max(1, min(_MOST_TOGETHER, budget // (4 * graph)))
    return max(int(batches == 1), budget // graph), together


def _graph_bytes(point: Point, build: Build) -> int:
    """Bytes that the graph of the first batch keeps alive, shared storage counted once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs, targets = next(point.objective.batches())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = build(point, inputs, targets)
    del graph
    return max(1, sum(storages.values()))


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Convolutions of a GPU without TF32, cuDNN's default, which leaves eigenvalues right to three digits only."""
    if device.type != "cuda":
        yield
        return
    try:
        before = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the caller chose precisions by PyTorch's newer settings: they stay as they are
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def _twice_differentiable(objective: Objective) -> Iterator[None]:
    """Kernels whose backward pass has a derivative: plain attention, own convolutions, recurrence without cuDNN."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(Convolutions())
        if any(isinstance(layer, nn.RNNBase) for layer in objective.network.modules().values()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
