"""The Hessian and the Gauss–Newton matrix of an objective, known by their products."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isthmus.core.losses import answers
from isthmus.core.objective import Objective
from isthmus.core.operator import Operator
from isthmus.core.weights import Weights
from isthmus.curvature.kept import Images, Point, flat, products, pulled


def hessian(
    objective: Objective,
    weights: Weights,
    *,
    tensors: Collection[str] | None = None,
    dtype: torch.dtype | None = None,
    memory: int | None = None,
) -> Operator:
    """The matrix of second derivatives of the mean loss.

    The mean is over examples, so batches of any sizes give the same matrix. It is taken in **evaluation mode**: running
    statistics of BatchNorm are constants that belong to one point in weight space. At an average of solutions, or
    anywhere between them, estimate them anew before asking for curvature; stale ones give the curvature of another
    function.

    Args:
        objective: network, data and loss; ``objective.batch_size`` decides memory and speed, not the result.
        weights: where. Tied tensors vary together.
        tensors: those that vary (a diagonal block of the matrix); all trainable ones by default. Vectors hold their
            entries in the network's order, as ``core.weights.flatten`` with these tensors gives them.
        dtype: the working precision; by default that of the weights, but at least float32.
        memory: bytes for graphs kept between products; ``None``: a gigabyte on a CPU, half of the free memory on a GPU.

    Raises:
        WeightsError: some are no trainable tensors.

    Cost: the first product one forward and backward pass over the data; each product about two backward passes, and
        where the graphs do not fit, one forward and backward pass more.

    Reference: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994), by double backward.

    Example:
        >>> from isthmus.core.network import Network
        >>> network = Network.of(torch.nn.Linear(2, 3))
        >>> objective = Objective(network, torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
        >>> hessian(objective, network.weights).dense().shape
        torch.Size([9, 9])
    """
    return _operator(Point.of(objective, weights, tensors=tensors, dtype=dtype), _hessian_of_batch, memory)


def gauss_newton(
    objective: Objective,
    weights: Weights,
    *,
    tensors: Collection[str] | None = None,
    dtype: torch.dtype | None = None,
    memory: int | None = None,
) -> Operator:
    """The generalised Gauss–Newton matrix: the mean of Jᵀ H J, J the outputs' Jacobian, H the loss's Hessian in them.

    Positive semidefinite for a loss that is convex in the outputs; for cross-entropy it is the Fisher matrix of the
    model's own predictions. What it lacks to the Hessian is the curvature of the outputs. Arguments, precision,
    evaluation mode and cost are those of :func:`hessian`. The outputs may be a tensor, a mapping, a tuple, or an object
    with ``logits``.

    Reference: Schraudolph, "Fast curvature matrix-vector products", Neural Computation 14 (2002); J·v by two transposed
        products.
    """
    return _operator(Point.of(objective, weights, tensors=tensors, dtype=dtype), _gauss_newton_of_batch, memory)


def _operator(point: Point, build: Any, memory: int | None) -> Operator:
    return Operator(point.size, products(point, build, memory=memory), dtype=point.dtype, device=point.device)


def _hessian_of_batch(point: Point, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Images, int]:
    total, count = point.total(point.outputs(inputs), targets)
    gradient = _slope(total, point.leaves)
    return lambda rows: pulled(gradient, point.leaves, rows), count


def _gauss_newton_of_batch(point: Point, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Images, int]:
    outputs, seam, rebuilt = split(point.outputs(inputs))
    total, count = point.total(rebuilt, targets)
    if not outputs.requires_grad:
        return torch.zeros_like, count
    slope = _slope(total, (seam,))
    # J·v by two transposed products: the image of a dummy under Jᵀ is linear in the dummy, and its own transpose is J.
    dummy = torch.zeros_like(outputs, requires_grad=True)
    back = flat(torch.autograd.grad(outputs, point.leaves, dummy, create_graph=True, allow_unused=True), point.leaves)

    def images(rows: Tensor) -> Tensor:
        pushed = pulled(back, (dummy,), rows)
        return pulled(outputs, point.leaves, pulled(slope, (seam,), pushed))

    return images, count


def split(outputs: Any) -> tuple[Tensor, Tensor, Any]:
    """Cut a network's output off its graph.

    Returns:
        The differentiable parts of the output as one vector (empty if the weights that vary have no part in it); a leaf
        of the same entries; the output made again from it.
    """
    if not isinstance(outputs, Tensor | tuple | list | dict):
        outputs = answers(outputs)
    parts, structure = pytree.tree_flatten(outputs)
    varying = [place for place, part in enumerate(parts) if isinstance(part, Tensor) and part.requires_grad]
    if not varying:
        return torch.empty(0), torch.empty(0), outputs
    vector = torch.cat([parts[place].reshape(-1) for place in varying])
    seam = vector.detach().requires_grad_()
    pieces = seam.split([parts[place].numel() for place in varying])
    for place, piece in zip(varying, pieces, strict=True):
        parts[place] = piece.view(parts[place].shape)
    return vector, seam, pytree.tree_unflatten(parts, structure)


def _slope(value: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """The gradient as one vector that can be differentiated again."""
    if not value.requires_grad:
        return flat((None,) * len(inputs), inputs)
    return flat(torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True), inputs)
