"""What walkers see around a solution, whether they come back, and how far its permuted copies are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from isthmus.connect import Line, barrier, reestimate
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.walk import (
    Descent,
    Displacement,
    EffectiveSamples,
    Langevin,
    LevelSet,
    Metropolis,
    PermutationBarriers,
    RandomWalk,
    Returns,
    Ruggedness,
    Walk,
    Walker,
    displacement,
    effective_samples,
    permutation_barriers,
    returns,
    ruggedness,
)

# Drawn for each number of moved units; their range is what a figure shows.
_DRAWS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Walks(Record):
    """What walkers saw around one solution.

    Attributes:
        name: of the solution.
        walk: loss, error, overlap and distance against steps.
        ruggedness: autocorrelation of the loss; ``None`` for walks of fewer than nine looks.
        effective: how many independent looks the walk is worth, after its first quarter; ``None`` for short walks and
            where the loss does not change.
        displacement: growth of the mean squared distance; ``None`` for very short walks.
        returns: whether walkers that descend come back to the start's basin; ``None`` if no descents were asked for.
        permutations: for this network, and others it is held against, the barriers to copies with k of h units
            permuted; empty if no symmetry was given.
        provenance: versions, machine, command.
    """

    name: str
    walk: Walk
    ruggedness: Ruggedness | None
    effective: EffectiveSamples | None
    displacement: Displacement | None
    returns: Returns | None
    permutations: Mapping[str, PermutationBarriers]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How to walk.

    Attributes:
        method: ``random`` (on the sphere of the start), ``metropolis``, ``langevin`` or ``level`` (below a loss).
        steps: of each walker.
        walkers: how many.
        every: steps between two looks.
        temperature: of the thermal walks, in units of the loss.
        rise: the level set's loss above the start's.
        size: of a step: relative length (random, metropolis, level) or the learning rate (langevin).
        descend: numbers of steps after which the walkers descend.
        gradients: of each descent, at most.

    Raises:
        SettingError: an unknown method; steps after which to descend that the walk does not reach; no gradients.
    """

    method: str = "random"
    steps: int = 100
    walkers: int = 8
    every: int = 1
    temperature: float = 1e-3
    rise: float = 0.5
    size: float | None = None
    descend: tuple[int, ...] = ()
    gradients: int = 300

    def __post_init__(self) -> None:
        if self.method not in _MAKERS:
            raise SettingError(f"method must be one of {', '.join(_MAKERS)}, got {self.method}")
        if outside := [time for time in self.descend if not 1 <= time <= self.steps]:
            raise SettingError(f"walkers can descend after 1 … {self.steps} steps (the walk's), got {outside[0]}")
        if self.gradients < 1:
            raise SettingError(f"gradients of a descent must be at least 1, got {self.gradients}")

    def walker(self, loss: float) -> Walker:
        """The walker, given the start's loss."""
        return _MAKERS[self.method](self, loss)


_MAKERS: Mapping[str, Any] = {
    "random": lambda m, loss: RandomWalk(step=_size(m, 0.02)),
    "metropolis": lambda m, loss: Metropolis(step=_size(m, 0.01), temperature=m.temperature, tune=m.steps // 4),
    "langevin": lambda m, loss: Langevin(temperature=m.temperature, rate=_size(m, 1e-3)),
    "level": lambda m, loss: LevelSet(step=_size(m, 0.01), level=loss + m.rise, tune=m.steps // 4),
}


def _size(manner: Manner, usual: float) -> float:
    return usual if manner.size is None else manner.size


def walk_from(
    weights: Weights,
    objective: Objective,
    *,
    name: str,
    manner: Manner = Manner(),
    symmetry: Symmetry | None = None,
    inputs: torch.Tensor | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Walks:
    """Walk from a solution, descend if asked to, and if a symmetry is given permute parts of its largest group.

    Args:
        weights: the solution.
        objective: the landscape.
        name: of the solution.
        manner: how to walk.
        symmetry: for the permuted copies.
        inputs: training inputs: running statistics are estimated anew after every move where the network has any.
        seed: of the walkers.
        progress: told along the way.

    Raises:
        SettingError: a setting out of range.
    """
    refresh = None
    if objective.network.has_batch_statistics and inputs is not None:
        refresh = functools.partial(_refreshed, objective.network, inputs)
    # The level lies above the loss that the walkers see at the start.
    walker = manner.walker(objective(weights if refresh is None else refresh(weights)).loss)
    asked: dict[str, Any] = {
        "generator": child(seed, "walk", manner.method), "walkers": manner.walkers, "every": manner.every,
        "refresh": refresh, "progress": progress,
    }  # fmt: skip
    came = None
    if manner.descend:
        times = {"times": manner.descend, "steps": manner.steps}
        descent = Descent(objective, steps=manner.gradients, refresh=refresh)
        came = returns(walker, objective, weights, descend=descent, **times, **asked)
    walk = walker(objective, weights, steps=manner.steps, **asked) if came is None else came.walk
    permuted = {}
    if symmetry is not None:
        permuted[name] = permuted_copies(weights, objective, symmetry, inputs=inputs, seed=seed, progress=progress)
    looks, moves = len(walk.steps), bool((walk.loss != walk.loss[:, :1]).any()) and not walk.diverged
    return Walks(
        name=name,
        walk=walk,
        ruggedness=ruggedness(walk) if looks >= 9 and moves else None,
        effective=effective_samples(walk, skip=looks // 4) if looks >= 16 and moves else None,
        displacement=displacement(walk) if looks >= 5 and moves and _gone(walk) else None,
        returns=came,
        permutations=permuted,
    )


def _gone(walk: Walk) -> bool:
    """Whether someone had left the start at the first look, so that the logarithm of the distance exists."""
    return bool((walk.distance[:, 1:] > 0).any(0).all())


def permuted_copies(
    weights: Weights,
    objective: Objective,
    symmetry: Symmetry,
    *,
    inputs: torch.Tensor | None = None,
    seed: int = 0,
    together: int | None = None,
    progress: Progress = silent,
) -> PermutationBarriers:
    """Loss barriers to copies with more and more units of the largest group permuted, k doubling from h/32 to h.

    ``together`` points of a line go through the network at once, as in :func:`isthmus.connect.barrier`.

    Raises:
        SettingError: the symmetry has no permutations.
    """
    outer = [group for group in symmetry.permutable if group.parent is None]
    if not outer:
        raise SettingError("permuted copies need units that may be permuted, and the model has none")
    group = max(outer, key=lambda each: each.size)

    def height(start: Weights, end: Weights) -> float:
        return barrier(Line(start, end), objective, points=7, inputs=inputs, together=together).loss_barrier

    moved: Sequence[int] = sorted({max(2, group.size >> power) for power in range(6)} & set(range(2, group.size + 1)))
    return permutation_barriers(
        weights, symmetry, group=group.name, moved=moved, barrier=height, generator=child(seed, "permutations"),
        draws=_DRAWS, progress=progress,
    )  # fmt: skip


def _refreshed(network: Network, inputs: torch.Tensor, moved: Weights) -> Weights:
    return reestimate(network, moved, inputs)
