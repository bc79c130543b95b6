"""Derivatives of a network's outputs along the scale of single units: exact, so kinks of ReLU do no harm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Site, UnitGroup
from isthmus.core.weights import Weights
from isthmus.discover.verify import Call

Draw = Callable[[], tuple[Weights, tuple[Any, ...], Mapping[str, Any]]]

_MARGIN = 4  # equations beyond the unknowns: a freedom that is none fails one of them
_MOST_DRAWS = 24
_UNITS = 256  # whose equations are used; all units of a group obey the same ones


def slopes(groups: Sequence[UnitGroup], call: Call, draw: Draw, generator: torch.Generator) -> list[Tensor]:  # noqa: D417
    """For each group the change of a random mix of outputs as one unit's entries at one site grow.

    Args:
        call: runs the network; gradients must flow through it.
        draw: random weights and inputs; names of one tensor hold one tensor.

    Returns:
        For each group a matrix (equations, sites), each row with largest entry 1. A column of zeros is a site that
        nothing reads.

    Raises:
        SymmetryError: the outputs have no derivatives.

    Cost: a forward and a backward pass for each draw: enough draws for every group to have more equations than sites.
    """
    columns = [[(site, site.index[:_UNITS]) for site in group.sites] for group in groups]
    held = {site.tensor for group in groups for site in group.sites if site.role == "carry"}
    need = max((len(group.sites) + _MARGIN) / min(group.size, _UNITS) for group in groups) if groups else 0
    found: list[list[Tensor]] = [[] for _ in groups]
    for _ in range(min(_MOST_DRAWS, max(2, int(need) + 1)) if groups else 0):
        weights, example, keywords = draw()
        lines = _Lines(_products(call, weights, example, keywords, generator, held), weights)
        for rows, parts in zip(found, columns, strict=True):
            rows.append(_normalised(torch.stack([lines.of(site, units) for site, units in parts], dim=1)))
    return [torch.cat(rows) for rows in found]


class _Lines:
    """Products of weights and their gradients, summed to one number for each position of an axis; kept for reuse."""

    def __init__(self, products: Mapping[int, Tensor], weights: Weights) -> None:
        self.products, self.weights = products, weights
        self.kept: dict[tuple[int, int, tuple[Any, ...]], Tensor] = {}

    def of(self, site: Site, units: Tensor) -> Tensor:
        """The sum over each unit's entries at a site."""
        name = id(self.weights[site.tensor])
        if name not in self.products:
            return torch.zeros(len(units), dtype=torch.float64)
        places = tuple((axis, int(positions[0]), len(positions)) for axis, positions in site.within)
        key = (name, site.dim, places)
        if key not in self.kept:
            part = self.products[name]
            for axis, positions in site.within:
                part = part.index_select(axis, positions)
            self.kept[key] = part.movedim(site.dim, 0).reshape(part.shape[site.dim], -1).sum(1)
        return self.kept[key][units].sum(1)


def _normalised(rows: Tensor) -> Tensor:
    """Rows of one size; dead units and numbers that overflowed say nothing and are left out."""
    rows = rows[rows.isfinite().all(dim=1)]
    size = rows.abs().amax(dim=1) if len(rows) else rows.new_zeros(0)
    alive = size > 1e-12 * size.max() if len(size) else size > 0
    return rows[alive] / size[alive, None]


def _products(  # noqa: PLR0917
    call: Call,
    weights: Weights,
    example: tuple[Any, ...],
    keywords: Mapping[str, Any],
    generator: torch.Generator,
    held: Collection[str],
) -> dict[int, Tensor]:
    """Weight times gradient of a random mix of all outputs, by the identity of the weight."""
    try:
        return _gradients(call, weights, example, keywords, generator, frozenset())
    except RuntimeError:  # a kernel that has no derivatives for its statistics: these then stay as they are
        return _gradients(call, weights, example, keywords, generator, held)


def _gradients(  # noqa: PLR0917
    call: Call,
    weights: Weights,
    example: tuple[Any, ...],
    keywords: Mapping[str, Any],
    generator: torch.Generator,
    held: Collection[str],
) -> dict[int, Tensor]:
    leaves: dict[int, Tensor] = {}
    given = {}
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or name in held:
            given[name] = tensor
            continue
        given[name] = leaves.setdefault(id(tensor), tensor.detach().clone().requires_grad_(True))
    with torch.enable_grad(), _Spelled():
        outputs = [output for output in call(given, example, keywords) if output.is_floating_point()]
        mixed = [
            (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum()
            for output in outputs
            if output.requires_grad
        ]
        if not mixed:
            raise SymmetryError("scales and signs are found by derivatives, but the outputs have none")
        gradients = torch.autograd.grad(torch.stack(mixed).sum(), list(leaves.values()), allow_unused=True)
    return {
        name: (leaf.detach() * gradient.detach()).double()
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
        if gradient is not None
    }


class _Spelled(TorchFunctionMode):
    """Batch normalisation by running statistics spelled out: the fused kernel hands no derivatives to statistics."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.batch_norm, torch.ops.aten.batch_norm.default) and not kwargs and not args[5]:
            value, weight, bias, mean, variance, _, _, eps = args[:8]
            return _batch_norm(value, mean, variance, weight, bias, eps=eps)
        if func is nn.functional.batch_norm and args[1] is not None and not kwargs.get("training"):
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _batch_norm(  # noqa: PLR0917
    value: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = None,
    eps: float = 1e-5,
) -> Tensor:
    shape = [1, -1] + [1] * (value.dim() - 2)
    factor = (variance + eps).rsqrt() if weight is None else weight * (variance + eps).rsqrt()
    result = (value - mean.reshape(shape)) * factor.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)
