"""A narrow stand-in for a network too large to run: the same classes from a smaller configuration."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.symmetry import Symmetry

_HEAD = 8  # channels of a head in the narrow copy; even, as rotary embeddings pair them


def narrow_copy(module: nn.Module) -> tuple[nn.Module, str] | None:
    """A small network of the same architecture, if the module was made from a configuration that says its widths.

    Returns:
        The network, on the CPU with random weights, and what was narrowed; None if there is no such configuration.
    """
    config = getattr(module, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return None
    small = copy.deepcopy(config)
    said = []
    for name, value in _narrowed(config).items():
        try:
            setattr(small, name, value)
        except (AttributeError, TypeError, NotImplementedError):
            continue
        said.append(f"{name} {value}")
    try:
        with torch.device("cpu"):
            made = type(module)(small)
    except Exception:  # whatever a configuration's own code raises, there is no narrow copy then
        return None
    return made.float().eval(), ", ".join(said)


def _narrowed(config: Any) -> dict[str, Any]:
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    pairs = int(getattr(config, "num_key_value_heads", 0) or heads)
    if not heads or heads % pairs:
        return {}
    new_pairs = 1 if pairs == 1 else 2
    new_heads = min(heads // pairs, 3) * new_pairs
    result: dict[str, Any] = {"num_attention_heads": new_heads, "hidden_size": new_heads * _HEAD}
    for name, value in (
        ("num_key_value_heads", new_pairs),
        ("head_dim", _HEAD),
        ("intermediate_size", 24),
        ("num_hidden_layers", 2),
        ("num_local_experts", 4),
    ):
        if getattr(config, name, None) is not None:
            result[name] = value
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list):
        result["layer_types"] = kinds[:2]
    return result


def check_alike(wide: Symmetry, narrow: Symmetry) -> None:
    """The groups of the narrow network must be those of the wide one, as far as it has these layers.

    Raises:
        SymmetryError: a group of one is missing in the other.
    """
    there = set(narrow.tensors) & set(wide.tensors)  # the narrow one may have a layer more than a tiny network
    given, proved = _shapes(wide, there), _shapes(narrow, there)
    if missing := given - proved:
        named = listed(sorted({site[0] for shape in missing for site in shape}))
        raise SymmetryError(f"a narrow copy must have the groups of the wide network, but differs at {named}")


def _shapes(symmetry: Symmetry, tensors: set[str]) -> set[frozenset[tuple[str, int, str]]]:
    """For each outermost group the axes on which its units lie, within the tensors that both networks have.

    Of tensors that are one unit's own only the first counts: the narrow network may have fewer units.
    """
    shapes = {
        frozenset((site.tensor, site.dim, site.role) for site in group.sites if site.tensor in tensors)
        | frozenset((row.tensors[0], -1, row.role) for row in group.siblings if row.tensors[0] in tensors)
        for group in symmetry.permutable
        if group.parent is None
    }
    return {shape for shape in shapes if shape}
