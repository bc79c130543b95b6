"""Recipes to replicas: train many networks in one process, as fast as the machine allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.train.batches import Examples
from isthmus.train.group import Group, Replica
from isthmus.train.recipe import SEEDS, Recipe
from isthmus.train.task import Build


def train(
    recipes: Sequence[Recipe] | Recipe,
    *,
    data: Examples | Callable[[str], Examples],
    module: Build | nn.Module,
    device: str | torch.device | None = None,
    engine: str = "auto",
    scores: str = "end",
    progress: Progress = silent,
) -> list[Replica]:
    """Train networks; those that differ in seeds only are trained together.

    The same recipe gives the same weights, up to rounding, whichever engine trains it and whoever is trained beside it.
    Bit for bit it does so on one machine with one named engine (``auto`` may pick another next time) and one group.
    An epoch's uneven last batch is one step with its own mean loss, unless the recipe drops it.

    Args:
        recipes: one for each replica.
        data: the examples, or a function from a recipe's ``data`` to them.
        module: a function from a recipe to its freshly initialised module, such as ``isthmus.zoo.build``; or one module
            whose weights all replicas start from.
        device: where to train; a CUDA device if there is one, else the CPU.
        engine: ``auto`` picks by a short probe; or ``sequential``, ``vectorised``, ``compiled``, and on CUDA ``graph``
            (one captured graph of the vectorised step), ``graphs`` (a branch of it for each replica) and more that the
            how-to on replicas names.
        scores: when to evaluate on the training and test set: ``end``, ``epochs`` (also after each) or ``never``.
        progress: told the steps done over all groups.

    Returns:
        Replicas in the order of the recipes. Diverged ones are returned too, marked.

    Raises:
        IsthmusError: a recipe does not fit the data or the module.

    Cost: weights and optimiser memory of a whole group at once; gradients and activations too, unless sequential, or of
        as many as fit where a captured graph takes a group in chunks.

    Example:
        >>> from isthmus.zoo import build, load_data
        >>> recipe = Recipe(network="mlp-16x1", settings={"inputs": [1, 8, 8]}, epochs=1)
        >>> replicas = train(recipe.replicates(2), data=load_data("digits"), module=build)
        >>> len(replicas), replicas[0].diverged
        (2, False)
    """
    listed = [recipes] if isinstance(recipes, Recipe) else list(recipes)
    if scores not in ("end", "epochs", "never"):
        raise SettingError(f"scores must be one of end, epochs, never, got {scores}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found: dict[int, Replica] = {}
    groups = grouped(listed)
    done = 0.0
    for indices in groups:
        members = [listed[index] for index in indices]
        examples = data(members[0].data) if callable(data) else data

        told = _Share(progress, base=done, size=len(members), total=len(listed))
        job = Group(members, examples, module, device=where, engine=engine, scores=scores, progress=told)
        found.update(zip(indices, job.train(), strict=True))
        done += len(members)
        progress(done, len(listed), "trained")
    return [found[index] for index in range(len(listed))]


class _Share:
    """A group's progress as a share of the whole."""

    def __init__(self, progress: Progress, *, base: float, size: int, total: int) -> None:
        self.progress, self.base, self.size, self.total = progress, base, size, total

    def __call__(self, done: float, total: float, label: str = "") -> None:
        self.progress(self.base + self.size * done / max(total, 1), self.total, label)


def grouped(recipes: Sequence[Recipe]) -> list[list[int]]:
    """Indices of recipes that can be trained together: those that differ in seeds only, in order of appearance."""
    groups: dict[str, list[int]] = {}
    same = {f"{name}_seed": 0 for name in (*SEEDS, "spawn")}
    for index, recipe in enumerate(recipes):
        groups.setdefault(dataclasses.replace(recipe, **same).key(), []).append(index)
    return list(groups.values())
