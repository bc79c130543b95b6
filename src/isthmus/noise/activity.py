"""Which units do nothing on given data, and which axis of a tensor makes units: found by trying, not by a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from isthmus.core.network import Network
from isthmus.core.symmetry import Site, Symmetry
from isthmus.core.weights import Weights

_SILENT = 1e-7  # of the loudest unit's contribution: what rounding in float32 leaves of a zero


def silent_units(
    network: Network,
    symmetry: Symmetry,
    weights: Weights,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    generator: torch.Generator,
    batch_size: int = 500,
    tolerance: float = _SILENT,
) -> dict[str, Bool[Tensor, " units"]]:
    """Units that contribute nothing to any output on these data: rectifiers that never fire, units that nobody hears.

    Scaling all entries of a unit in one tensor changes the output by Σ w·∂f/∂w over those entries. Where that is zero
    in every tensor, for outputs added up with random weights (so that nothing cancels), the unit does nothing. It does
    not matter which layers these are.

    Args:
        network: of the weights.
        symmetry: its groups.
        weights: of one solution.
        inputs: examples first; a tuple for modules of several inputs.
        generator: draws the outputs' weights.
        batch_size: examples at once.
        tolerance: share of the group's largest contribution that counts as none.

    Returns:
        For each permutation group, which of its units are silent. Groups without trainable entries are left out.

    Cost: one forward and backward pass over the data.

    Example:
        >>> from isthmus.core.symmetry import Site, UnitGroup
        >>> rows = torch.arange(3)[:, None]
        >>> sites = (Site("0.weight", 0, rows), Site("0.bias", 0, rows), Site("2.weight", 1, rows))
        >>> group = UnitGroup("hidden", 3, sites)
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        >>> weights["0.bias"][1] = -100.0
        >>> symmetry = Symmetry((group,), {name: tuple(tensor.shape) for name, tensor in weights.items()})
        >>> found = silent_units(Network.of(module), symmetry, weights, torch.rand(9, 2), generator=torch.Generator())
        >>> found["hidden"][1].item()
        True
    """
    wanted = {name for group in symmetry.permutable for name in group.tensors}
    names = [name for name in network.parameter_names if name in wanted]
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    totals: dict[str, list[Tensor]] = {}
    for first in range(0, len(parts[0]), batch_size):
        batch = tuple(part[first : first + batch_size] for part in parts)
        products = _products(network, weights, names, batch, generator)
        for group in symmetry.permutable:
            found = [
                _by_unit(site, products[site.tensor]).square() for site in group.matched if site.tensor in products
            ]
            found += [
                torch.stack([products[name].sum().cpu() for name in row.tensors]).square()
                for row in group.siblings
                if all(name in products for name in row.tensors)
            ]
            known = totals.get(group.name)
            totals[group.name] = found if known is None else [a + b for a, b in zip(known, found, strict=True)]
    return {
        name: torch.stack([one <= (tolerance**2) * one.max() for one in sites]).all(0)
        for name, sites in totals.items()
        if sites
    }


def writing_axes(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, int | None]:
    """For each tensor of two or more axes, the axis whose entries each make a part of its layer's output.

    Along that axis the layer writes its units, along the others it reads them: axis 0 of a linear layer or convolution,
    axis 1 of a transposed convolution or an embedding. It is found by changing single entries of the axis and seeing
    whether only a part of the layer's output follows.

    Args:
        module: any; evaluated, and left as it is.
        inputs: one batch for it.

    Returns:
        By state-dict name: the axis, or None where it cannot be told (tensors of modules that hold other modules or
        that were not called).

    Cost: one pass, and some calls of each layer alone.
    """
    calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda one, given, named: calls.setdefault(one, (given, named)) and None,
                                        with_kwargs=True)
        for layer in module.modules()
        if not any(True for _ in layer.children())
    ]  # fmt: skip
    was = module.training
    try:
        with torch.no_grad():
            module.eval()(*inputs)
            found = {
                f"{path}.{name}".lstrip("."): _axis(layer, name, tensor, calls.get(layer))
                for path, layer in module.named_modules()
                for name, tensor in layer.named_parameters(recurse=False)
                if tensor.dim() >= 2
            }
    finally:
        module.train(was)
        for hook in hooks:
            hook.remove()
    return found


def _products(
    network: Network, weights: Weights, names: list[str], batch: tuple[Tensor, ...], generator: torch.Generator
) -> Mapping[str, Tensor]:
    """w·∂f/∂w for every entry, with f all outputs added up with random weights."""
    leaves = {name: weights[name].detach().requires_grad_() for name in names}
    device, dtypes = next(iter(leaves.values())).device, {leaf.dtype for leaf in leaves.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    cast = [part.to(device, dtype if part.is_floating_point() else None) for part in batch]
    fixed = {name: tensor.detach() for name, tensor in weights.items()}
    outputs = tree_leaves(network({**fixed, **leaves}, *cast))
    loud = [out for out in outputs if isinstance(out, Tensor) and out.is_floating_point() and out.requires_grad]
    total = sum(
        ((out.double() * torch.randn(out.shape, generator=generator).to(out.device)).sum() for out in loud),
        torch.zeros((), device=device),
    )
    slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if slope is None else (leaf.detach() * slope).double()
        for (name, leaf), slope in zip(leaves.items(), slopes, strict=True)
    }


def _by_unit(site: Site, products: Tensor) -> Tensor:
    """The products of one site's entries added up for each unit."""
    for axis, positions in site.within:
        products = products.index_select(axis, positions.to(products.device))
    rows = products.movedim(site.dim, 0).reshape(products.shape[site.dim], -1).sum(1).double().cpu()
    return rows[site.index].sum(1)


def _axis(
    layer: nn.Module, name: str, tensor: nn.Parameter, call: tuple[tuple[Any, ...], dict[str, Any]] | None
) -> int | None:
    """The one axis whose entries change only a part of the output."""
    if call is None:
        return None
    given, named = call
    before = _outputs(layer(*given, **named))
    local = []
    for axis in range(min(tensor.dim(), 2)):
        if tensor.shape[axis] < 2:
            continue
        changed = tensor.clone()
        # All entries of the first position: every output that the axis' first unit reaches moves.
        changed.select(axis, 0).add_(torch.rand_like(changed.select(axis, 0)) + 1)
        after = _outputs(torch.func.functional_call(layer, {name: changed}, given, named))
        moved = [_moved(*pair) for pair in zip(before, after, strict=True)]
        if any(bool(_one_slice(one, tensor.shape[axis])) for one in moved):
            local.append(axis)
    return local[0] if len(local) == 1 else None


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """Which entries changed by more than rounding: kernels of other shapes add up in another order."""
    change = (after.double() - before.double()).abs()
    return change > 1e-3 * change.max()


def _one_slice(moved: Tensor, units: int) -> bool:
    """Whether only the first of ``units`` slices along some axis moved."""
    if not bool(moved.any()):
        return False
    for axis in range(1, moved.dim()):
        size = moved.shape[axis]
        if size % units == 0 and not bool(moved.narrow(axis, size // units, size - size // units).any()):
            return True
    return False


def _outputs(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
