"""Walks among the equivalent copies of one network: θ to πθ, with π moving some of the units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import SettingError, SymmetryError, listed
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry, UnitGroup
from isthmus.core.weights import Weights, stack
from isthmus.walk.crowd import Trip, from_start, settings_of
from isthmus.walk.ground import Ground
from isthmus.walk.walk import Refresh, Walk

Barrier = Callable[[Weights, Weights], float]


def partial_permutation(symmetry: Symmetry, *, group: str, moved: int, generator: torch.Generator) -> Permutation:
    """A uniform random permutation that moves exactly ``moved`` units of one group, and nothing else.

    Raises:
        SettingError: no permutation moves exactly one unit, or more units than there are.
        SymmetryError: the group is none of the symmetry's permutation groups.
    """
    size = _group(symmetry, group).size
    if moved == 1 or not 0 <= moved <= size:
        raise SettingError(f"moved must be 0 or lie in 2 … {size} (the units of {group}), got {moved}")
    chosen = torch.randperm(size, generator=generator)[:moved]
    index = torch.arange(size)
    while moved:
        order = torch.randperm(moved, generator=generator)
        # About one order in e leaves no unit in place; drawing until it does keeps the draw uniform.
        if not bool((order == torch.arange(moved)).any()):
            index[chosen] = chosen[order]
            break
    return Permutation(symmetry, {group: index})


@dataclasses.dataclass(frozen=True)
class PermutationBarriers(Record):
    """How high the way to a permuted copy of oneself is.

    Attributes:
        group: the group whose units moved.
        units: h, its size.
        moved: k, how many units each permutation moved.
        barrier: one for each k and each drawn permutation.
        overlap: cosine between the network and its permuted copy.
    """

    group: str
    units: int
    moved: tuple[int, ...]
    barrier: Float[Tensor, "moved draws"]
    overlap: Float[Tensor, "moved draws"]

    @property
    def share(self) -> tuple[float, ...]:
        """k/h."""
        return tuple(k / self.units for k in self.moved)

    def intervals(self, *, level: float = 0.95) -> tuple[Interval, ...]:
        """For each k the mean barrier over permutations drawn for this one network (not over networks)."""
        return tuple(
            dataclasses.replace(over_networks(row, level=level), method="Student's t over permutations of one network")
            for row in self.barrier
        )


def permutation_barriers(
    start: Weights,
    symmetry: Symmetry,
    *,
    group: str,
    moved: Sequence[int],
    barrier: Barrier,
    generator: torch.Generator,
    draws: int = 10,
    progress: Progress = silent,
) -> PermutationBarriers:
    """Barriers between a network and copies of it in which k of the h units of a group changed places.

    Args:
        start: the network.
        symmetry: of its architecture.
        group: whose units move.
        moved: the k to try.
        barrier: (start, end) → height of the way between, such as a linear barrier of the loss.
        generator: draws the permutations.
        draws: permutations for each k.
        progress: hears of every barrier.

    Raises:
        SettingError: fewer than one draw, or a k that is neither 0 nor in 2 … h.

    Reference: Liao et al. (2024), random walks by permutation.
    """
    if draws < 1:
        raise SettingError(f"draws must be at least 1, got {draws}")
    heights = torch.empty(len(moved), draws, dtype=torch.float64)
    overlaps = torch.empty_like(heights)
    names = _touched(symmetry, start)
    for row, count in enumerate(moved):
        for draw in range(draws):
            copy = partial_permutation(symmetry, group=group, moved=count, generator=generator).apply(start)
            heights[row, draw] = float(barrier(start, copy))
            overlaps[row, draw] = _cosine(start, copy, names)
            progress(row * draws + draw + 1, len(moved) * draws, f"{count} units moved")
    return PermutationBarriers(group, _group(symmetry, group).size, tuple(moved), heights, overlaps)


@dataclasses.dataclass(frozen=True)
class PermutationWalk:
    """Each step exchanges ``moved`` more units of a group; the function never changes, the place does.

    ``Walk.extras`` holds ``displaced``, the share of the group's units that are not where they were at the start, and,
    where a ``barrier`` is given, ``barrier`` between the start and each look. The endpoints are in ``Walk.kept``.

    Attributes:
        symmetry: of the network that walks.
        group: whose units move; by default the largest permutation group that is not nested.
        moved: units that change places in one step, at least 2.
        barrier: (start, there) → height of the way between.
    """

    symmetry: Symmetry
    group: str | None = None
    moved: int = 2
    barrier: Barrier | None = None

    def __post_init__(self) -> None:
        size = _group(self.symmetry, self._name).size
        if not 2 <= self.moved <= size:
            raise SettingError(f"moved must lie in 2 … {size} (the units of {self._name}), got {self.moved}")

    @property
    def _name(self) -> str:
        if self.group is not None:
            return self.group
        outer = [group for group in self.symmetry.permutable if group.parent is None]
        if not outer:
            raise SymmetryError("a permutation walk needs a symmetry with permutation groups, got none")
        return max(outer, key=lambda group: group.size).name

    def __call__(
        self,
        objective: Objective,
        start: Weights,
        *,
        steps: int,
        generator: torch.Generator,
        walkers: int = 1,
        every: int = 1,
        keep: Sequence[int] = (),
        refresh: Refresh | None = None,
        progress: Progress = silent,
    ) -> Walk:
        """Walk; see :class:`~isthmus.walk.walk.Walker`. Cost: one evaluation and one barrier for each look."""
        trip = Trip(steps, generator, walkers, every, keep, refresh, progress)
        self.symmetry.check(start)
        ground = Ground(objective, start, refresh)
        ways = [
            self._one(ground, trip, stream, walker) for walker, stream in enumerate(trip.streams(torch.device("cpu")))
        ]
        rows = {name: torch.stack([way.columns[name] for way in ways]) for name in ways[0].columns}
        kept = {step: stack([way.kept[step] for way in ways]) for step in sorted(set(keep))}
        settings = {**settings_of(self), "group": self._name}
        extras = {name: rows.pop(name) for name in ("displaced", "barrier") if name in rows}
        steps_seen = torch.tensor(list(trip.looks))
        loss, overlap, distance = rows.pop("loss"), rows.pop("overlap"), rows.pop("distance")
        finite = bool(torch.isfinite(loss).all())
        status = Status.CONVERGED if finite else Status.DIVERGED
        taken = torch.ones(walkers, dtype=torch.float64)
        name = type(self).__name__
        return Walk(name, settings, steps_seen, loss, rows, overlap, distance, taken, extras, status, (), kept)

    def _one(self, ground: Ground, trip: Trip, stream: torch.Generator, walker: int) -> _Way:
        """The way of one walker."""
        way = _Way({}, {})
        here = self.symmetry.identity()
        looks, kept = set(trip.looks), set(trip.keep)
        for step in range(trip.steps + 1):
            if step > 0:
                move = partial_permutation(self.symmetry, group=self._name, moved=self.moved, generator=stream)
                here = move.after(here)
            if step in looks:
                there = here.apply(ground.start)
                way.look(ground, there, here[self._name])
                if self.barrier is not None:
                    height = 0.0 if step == 0 else float(self.barrier(ground.start, there))
                    way.add("barrier", torch.tensor(height, dtype=torch.float64))
            if step in kept:
                way.kept[step] = here.apply(ground.start)
            if trip.progress is not None:
                trip.progress(walker * (trip.steps + 1) + step + 1, trip.walkers * (trip.steps + 1), "walking")
        way.columns = {name: torch.stack(list(values)) for name, values in way.columns.items()}
        return way


@dataclasses.dataclass
class _Way:
    """What one walker saw."""

    columns: dict
    kept: dict[int, Weights]

    def add(self, name: str, value: Tensor) -> None:
        self.columns.setdefault(name, []).append(value)

    def look(self, ground: Ground, there: Weights, index: Int[Tensor, " units"]) -> None:
        score = ground.objective(there if ground.refresh is None else ground.refresh(there))
        for name, value in {"loss": score.loss, **score.metrics}.items():
            self.add(name, torch.tensor(value, dtype=torch.float64))
        place = torch.cat([there[name].detach().flatten().to(ground.home) for name, _, _ in ground.spans])
        overlap, distance = from_start(ground, place[None])
        self.add("overlap", overlap[0])
        self.add("distance", distance[0])
        self.add("displaced", (index != torch.arange(len(index))).double().mean())


def _group(symmetry: Symmetry, name: str) -> UnitGroup:
    names = [group.name for group in symmetry.permutable]
    if name not in names:
        raise SymmetryError(f"group must be a permutation group of the symmetry ({listed(names)}), got {name}")
    return symmetry.by_name[name]


def _touched(symmetry: Symmetry, weights: Weights) -> list[str]:
    """Floating tensors of the symmetry that are not only carried along."""
    carried = {site.tensor for group in symmetry.groups for site in group.sites if site.role == "carry"}
    carried |= {name for g in symmetry.groups for row in g.siblings if row.role == "carry" for name in row.tensors}
    return [name for name in symmetry.tensors if name not in carried and weights[name].is_floating_point()]


def _cosine(first: Weights, second: Weights, names: Sequence[str]) -> float:
    dot = sum(float((first[n].double() * second[n].double()).sum()) for n in names)
    # A permutation keeps the norm.
    return dot / sum(float(first[n].double().square().sum()) for n in names)
