"""Tensors that follow a network's tensors: optimiser state, averaged copies, low-rank factors.

A permuted network that goes on training needs its momentum permuted too; an averaged copy and a LoRA adapter belong to
the order of units that they were made for. A symmetry that knows them moves all of it at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.symmetry import Siblings, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True)
class Companion:
    """How one tensor follows another.

    Attributes:
        follows: the tensor of the network.
        axes: for each axis of the companion the axis of the tensor that it goes with; None for an axis of its own
            (the rank of a LoRA factor).
        power: for scale and sign groups, of the factor that the tensor's entries get: 1 for copies, -1 for what is
            made of gradients, -2 for their squares.
        magnitude: entries are absolute values, which no flip of a sign changes.
    """

    follows: str
    axes: tuple[int | None, ...]
    power: float = 1.0
    magnitude: bool = False


#: What optimisers keep for each parameter: the power of a gradient that it holds.
_STATES = {
    "momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "grad_avg": 1,
    "acc_delta": -2, "sum": 2, "exp_inf": 1, "ax": -1, "prev": 1,
}  # fmt: skip
_LORA = re.compile(r"^(.*)\.lora_(embedding_)?([AB])(?:\.[^.]+)??(?:\.weight)?$")


def accompanied(symmetry: Symmetry, checkpoint: Weights, companions: Mapping[str, Companion]) -> Symmetry:
    """The symmetry of a network together with tensors that follow it; they only move along (role ``carry``).

    ``Permutation.apply`` then takes and returns the network's weights with all these tensors in one mapping.

    Args:
        symmetry: of the network alone.
        checkpoint: holds the companions; only their shapes are read.
        companions: how each follows a tensor of the network; :func:`companions_in` finds the usual ones by their names.

    Raises:
        SymmetryError: a companion follows no tensor of the network, has other sizes, cannot follow because the units
            lie in a slice along an axis that it does not have, or follows one of several siblings and not the others.

    Example:
        >>> import torch
        >>> from isthmus.core.symmetry import UnitGroup
        >>> site = Site("w", 0, torch.tensor([[0], [1]]))
        >>> symmetry = Symmetry((UnitGroup("w", 2, (site,)),), {"w": (2, 3)})
        >>> wide = accompanied(symmetry, {"ema.w": torch.zeros(2, 3)}, {"ema.w": Companion("w", (0, 1))})
        >>> [(site.tensor, site.role) for site in wide.groups[0].sites]
        [('w', 'match'), ('ema.w', 'carry')]
    """
    if unknown := [name for name, one in companions.items() if one.follows not in symmetry.tensors]:
        raise SymmetryError(f"companions must follow tensors of the symmetry; these do not: {listed(unknown)}")
    tensors = dict(symmetry.tensors)
    followers: dict[str, list[str]] = {}
    for name, one in companions.items():
        if name in symmetry.tensors:
            raise SymmetryError(f"a companion must be a further tensor, but {name} is one of the network's own")
        shape = tuple(checkpoint[name].shape)
        _check_shape(name, shape, one, symmetry.tensors[one.follows])
        tensors[name] = shape
        followers.setdefault(one.follows, []).append(name)
    groups = []
    for group in symmetry.groups:
        further = [
            made
            for site in group.sites
            for name in followers.get(site.tensor, ())
            if not (companions[name].magnitude and group.kind == "sign")
            if (made := _following(site, name, companions[name])) is not None
        ]
        rows = [made for row in group.siblings for made in _following_siblings(group, row, followers, companions)]
        groups.append(dataclasses.replace(group, sites=(*group.sites, *further), siblings=(*group.siblings, *rows)))
    return dataclasses.replace(symmetry, groups=tuple(groups), tensors=tensors)


def companions_in(
    checkpoint: Weights, symmetry: Symmetry, *, prefixes: Mapping[str, str] | None = None
) -> dict[str, Companion]:
    """The tensors of a checkpoint that follow the network's, recognised by their names.

    - copies: ``prefix + name`` for every entry ``{prefix: start}`` of ``prefixes``, as ``{"ema.": ""}``, where the
      rest of the name after ``start`` is the network's;
    - optimiser state as :func:`optimiser_tensors` names it, ``exp_avg.NAME``;
    - LoRA factors: ``lora_A`` goes with the inputs, ``lora_B`` with the outputs of the layer that it lies in.

    Names of neither kind are left out.
    """
    found: dict[str, Companion] = {}
    names = symmetry.tensors
    for name in checkpoint:
        if name in names:
            continue
        state, _, rest = name.partition(".")
        shape = tuple(checkpoint[name].shape)
        if state in _STATES and rest in names and shape == tuple(names[rest]):
            found[name] = Companion(rest, tuple(range(len(shape))), -float(_STATES[state]), state == "exp_inf")
        elif (lora := _lora(name, names)) is not None:
            found[name] = lora
        for prefix, start in (prefixes or {}).items():
            original = start + name.removeprefix(prefix)
            if name.startswith(prefix) and original in names:
                found[name] = Companion(original, tuple(range(len(shape))))
    return found


def optimiser_tensors(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of ``optimizer.state_dict()`` that have a parameter's shape or less, as ``exp_avg.NAME``.

    Args:
        state: as ``optimizer.state_dict()`` gives it.
        names: the parameters' names in the order in which the optimiser got them, as ``[name for name, _ in
            module.named_parameters()]``. State that is kept under names needs none.

    Raises:
        SymmetryError: the optimiser has more parameters than there are names.
    """
    return {
        f"{kind}.{_named(key, names)}": value
        for key, values in state["state"].items()
        for kind, value in values.items()
        if isinstance(value, Tensor) and value.dim()
    }


def with_optimiser_tensors(state: Mapping[str, Any], names: Sequence[str], tensors: Weights) -> dict[str, Any]:
    """``optimizer.state_dict()`` with other tensors, named as :func:`optimiser_tensors` names them; to be loaded.

    Args:
        state: as ``optimizer.state_dict()`` gives it; what ``tensors`` does not name stays.
        names: as for :func:`optimiser_tensors`.
        tensors: the new ones, such as a permutation of an accompanied symmetry gives; others are passed over.

    Raises:
        SymmetryError: the optimiser has more parameters than there are names.
    """
    made = {
        key: {kind: tensors.get(f"{kind}.{_named(key, names)}", value) for kind, value in values.items()}
        for key, values in state["state"].items()
    }
    return {**state, "state": made}


def _named(key: int | str, names: Sequence[str]) -> str:
    if isinstance(key, str):
        return key
    if not 0 <= key < len(names):
        raise SymmetryError(f"names must say every parameter of the optimiser, got {len(names)} for number {key}")
    return names[key]


def _lora(name: str, tensors: Mapping[str, tuple[int, ...]]) -> Companion | None:
    """A factor of a low-rank update: A is (rank, inputs, …), B is (outputs, rank, …)."""
    match = _LORA.match(name)
    if match is None:
        return None
    layer, embedding, factor = match.groups()
    for base in (f"{layer}.weight", f"{layer}.base_layer.weight", layer):
        shape = tensors.get(base)
        if shape is None or len(shape) < 2:
            continue
        inward, outward = (0, 1) if embedding else (1, 0)
        places: tuple[int | None, ...] = tuple(range(2, len(shape)))
        if factor == "A":
            return Companion(base, (None, inward, *places))
        return Companion(base, (outward, None, *(None for _ in places)))
    return None


def _check_shape(name: str, shape: tuple[int, ...], one: Companion, followed: tuple[int, ...]) -> None:
    sizes = [followed[axis] if axis is not None and axis < len(followed) else None for axis in one.axes]
    if len(shape) != len(one.axes) or any(a is not None and a != b for a, b in zip(sizes, shape, strict=False)):
        raise SymmetryError(
            f"a companion's axes must have the sizes of those that they go with; {name} is {shape}, and axes "
            f"{one.axes} of {one.follows} are {tuple(followed)}"
        )


def _following(site: Site, name: str, one: Companion) -> Site | None:
    """The site in a companion that moves with a site; None if it does not have this axis."""
    place = {axis: number for number, axis in enumerate(one.axes) if axis is not None}
    if site.dim not in place:
        return None
    if lost := [axis for axis, _ in site.within if axis not in place]:
        raise SymmetryError(
            f"{name} cannot follow {one.follows}: units lie in slices of its axis {lost[0]}, which {name} does not have"
        )
    within = tuple((place[axis], positions) for axis, positions in site.within)
    return Site(name, place[site.dim], site.index, "carry", within, site.power * one.power)


def _following_siblings(
    group: UnitGroup, row: Siblings, followers: Mapping[str, Sequence[str]], companions: Mapping[str, Companion]
) -> list[Siblings]:
    """The rows of companions that are exchanged with a row of siblings: each unit's, of one kind."""
    columns = [{_place(name, tensor): name for name in followers.get(tensor, ())} for tensor in row.tensors]
    for tensor, column in zip(row.tensors, columns, strict=True):
        if missing := {place for other in columns for place in other} - set(column):
            raise SymmetryError(
                f"companions must follow every unit of {group.name} or none, but {tensor} has none like {missing.pop()}"
            )
    rows = []
    for place in columns[0]:
        names = tuple(column[place] for column in columns)
        if len({companions[name] for name in names}) > len(names):
            raise SymmetryError(f"companions of siblings must follow alike, but {listed(names)} do not")
        rows.append(Siblings(names, "carry"))
    return rows


def _place(name: str, tensor: str) -> str:
    """A companion's name without what says which sibling it follows: the followed tensor's own name, or its layer's."""
    parts = tensor.split(".")
    for length in range(len(parts), 0, -1):
        stem = ".".join(parts[:length])
        if re.search(rf"(^|\.){re.escape(stem)}($|\.)", name):
            return re.sub(rf"(^|\.){re.escape(stem)}($|\.)", r"\1*\2", name, count=1)
    return name
