"""Sparse networks: random masks at initialisation, and iterative magnitude pruning with rewinding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.core.randomness import child_seed
from isthmus.train.recipe import Recipe
from isthmus.train.streams import orders


def prunable(parameters: Sequence[Tensor]) -> list[bool]:
    """Which stacked tensors are pruned: matrices and kernels; biases and normalisation stay whole."""
    return [parameter.dim() >= 3 for parameter in parameters]


def random_masks(recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Masks at random positions, the same rounded share in every layer, from each recipe's own seed."""
    masks = []
    for index, (parameter, chosen) in enumerate(zip(parameters, prunable(parameters), strict=True)):
        mask = torch.ones_like(parameter)
        if chosen and recipes[0].sparsity:
            entries = mask[0].numel()
            seeds = [child_seed(recipe.mask_seed, "mask", index) for recipe in recipes]
            removed = orders(seeds, entries, device=parameter.device)[:, : round(recipes[0].sparsity * entries)]
            mask.view(len(mask), -1).scatter_(1, removed, 0.0)
        masks.append(mask)
    return masks


def magnitude_masks(parameters: Sequence[Tensor], masks: Sequence[Tensor], *, rate: float) -> list[Tensor]:
    """Remove the share ``rate`` of the weights that remain, smallest magnitudes over all layers of a replica first.

    Reference: Han et al. 2015 (arXiv 1506.02626); Frankle & Carbin 2019 (arXiv 1803.03635), with one threshold over all
    layers as in their ResNets.
    """
    chosen = [index for index, yes in enumerate(prunable(parameters)) if yes]
    if not chosen:
        return list(masks)
    sizes = torch.cat([parameters[index].abs().flatten(1) for index in chosen], 1)
    kept = torch.cat([masks[index].flatten(1) for index in chosen], 1).bool()
    result = kept.clone()
    for replica in range(len(sizes)):  # ties are broken by position, so the count is exact
        remaining = kept[replica].nonzero().flatten()
        order = sizes[replica, remaining].argsort(stable=True)
        result[replica, remaining[order[: round(rate * len(remaining))]]] = False
    new = list(masks)
    pieces = result.split([parameters[index][0].numel() for index in chosen], 1)
    for index, piece in zip(chosen, pieces, strict=True):
        new[index] = piece.view_as(parameters[index]).to(parameters[index].dtype)
    return new


def density(parameters: Sequence[Tensor], masks: Sequence[Tensor]) -> list[float]:
    """Share of the prunable weights that remain, for each replica."""
    chosen = [mask.flatten(1) for mask, yes in zip(masks, prunable(parameters), strict=True) if yes]
    if not chosen:
        return [1.0] * len(parameters[0])
    return torch.cat(chosen, 1).double().mean(1).tolist()
