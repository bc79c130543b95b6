"""A canonical scale: networks that differ only in how units are scaled inside become equal before they are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.symmetry import Site, Symmetry
from isthmus.core.weights import Weights


def unit_scale(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    """The same function, with incoming weights of length one for each unit with a free positive scale.

    ReLU units pass a positive factor on: scaling what a unit reads up and what reads the unit down changes nothing.
    Left free, that scale decides which units an inner product finds alike.

    Args:
        symmetry: with groups of the kind ``scale``.
        weights: left as they are.

    Raises:
        SettingError: the symmetry has no scale groups.
    """
    groups = [group for group in symmetry.groups if group.kind == "scale"]
    if not groups:
        raise SettingError("a canonical scale needs scale groups; add groups of kind 'scale' to the symmetry")
    result = {name: tensor.clone() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    for group in groups:
        square = torch.zeros(group.size, dtype=torch.float64)
        for site in group.matched:
            if site.power == 1:
                part = _slices(result[site.tensor], site)[0]
                square = square + part.double().square().reshape(group.size, -1).sum(1).cpu()
        factor = torch.where(square > 0, square.rsqrt(), torch.ones_like(square))
        for site in group.sites:
            part, places = _slices(result[site.tensor], site)
            scale = (factor**site.power).to(part).reshape(-1, *[1] * (part.dim() - 1))
            result[site.tensor][places] = (part * scale).flatten(0, 1).movedim(0, site.dim)
    return result


def _slices(tensor: Tensor, site: Site) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What belongs to each unit, (units, entries, …), and where it lies in the tensor."""
    axes = [torch.arange(size, device=tensor.device) for size in tensor.shape]
    for axis, kept in site.within:
        axes[axis] = kept.to(tensor.device)
    axes[site.dim] = site.index.reshape(-1).to(tensor.device)
    places = torch.meshgrid(*axes, indexing="ij")
    return tensor[places].movedim(site.dim, 0).unflatten(0, tuple(site.index.shape)), places
