"""A crowd of walkers: places, scores and one stream of random numbers each; and the loop that moves them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.score import Scores
from isthmus.core.status import Status
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights
from isthmus.walk.ground import Ground
from isthmus.walk.products import way
from isthmus.walk.walk import Refresh, Walk, check_walk


@dataclasses.dataclass(eq=False)
class Crowd:
    """Walkers that move together. The only thing of this package that changes; it never leaves it.

    Attributes:
        ground: what they walk on.
        places: where they are.
        streams: one generator for each walker.
        together: whether they are scored in one pass.
        scores: what the objective says of ``places``; ``None`` until someone looks.
        gradient: the gradient at ``places``, for walkers that use it.
        reach: a step length for each walker, for walkers that tune it.
        step: steps done.
    """

    ground: Ground
    places: Float[Tensor, "walkers entries"]
    streams: tuple[torch.Generator, ...]
    together: bool
    scores: Scores | None = None
    gradient: Float[Tensor, "walkers entries"] | None = None
    reach: Float[Tensor, " walkers"] | None = None
    step: int = 0

    def __len__(self) -> int:
        return len(self.places)

    def normal(self, deviation: float = 1.0) -> Float[Tensor, "walkers entries"]:
        """Normal numbers of mean 0, each walker's from its own stream."""
        draws = torch.empty_like(self.places)
        for row, stream in zip(draws, self.streams, strict=True):
            row.normal_(0.0, deviation, generator=stream)
        return draws

    def uniform(self) -> Float[Tensor, " walkers"]:
        """One number in [0, 1) for each walker, in float64 on the CPU."""
        device = self.places.device
        rows = [torch.rand(1, generator=stream, dtype=torch.float64, device=device) for stream in self.streams]
        return torch.cat(rows).cpu()

    def look(self) -> Scores:
        """The scores of the places."""
        if self.scores is None:
            self.scores = self.ground.score(self.places, together=self.together)
        return self.scores

    def reaches(self, step: float) -> Float[Tensor, " walkers"]:
        """Each walker's own step length, ``step`` until it is tuned."""
        if self.reach is None:
            self.reach = torch.full((len(self),), step, dtype=torch.float64)
        return self.reach

    def slopes(self) -> Float[Tensor, "walkers entries"]:
        """The gradients at the places."""
        if self.gradient is None:
            self.scores, self.gradient = self.ground.gradients(self.places, together=self.together)
        return self.gradient

    def move(self, places: Tensor, scores: Scores | None = None) -> Bool[Tensor, " walkers"]:
        """All go to new places."""
        self.places, self.scores = places, scores
        return torch.ones(len(self), dtype=torch.bool)

    def move_some(self, takers: Bool[Tensor, " walkers"], places: Tensor, scores: Scores) -> Bool[Tensor, " walkers"]:
        """Some go to new places; the others stay, and ``places`` is overwritten with where they are."""
        if bool(takers.all()):
            return self.move(places, scores)
        if bool(takers.any()):
            before = self.look()
            stay = (~takers).to(places.device)
            places[stay] = self.places[stay]
            self.places = places
            metrics = {name: torch.where(takers, value, before.metrics[name]) for name, value in scores.metrics.items()}
            self.scores = Scores(torch.where(takers, scores.loss, before.loss), metrics, scores.examples)
        return takers


class Advance(Protocol):
    """One step of all walkers of a crowd; says who took the step."""

    def __call__(self, crowd: Crowd) -> Bool[Tensor, " walkers"]:
        """Move the crowd."""
        ...


@dataclasses.dataclass(frozen=True)
class Trip:
    """What is asked of a walk: the keyword arguments that every walker shares."""

    steps: int
    generator: torch.Generator
    walkers: int = 1
    every: int = 1
    keep: Sequence[int] = ()
    refresh: Refresh | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_walk(steps=self.steps, walkers=self.walkers, every=self.every, keep=self.keep)

    def streams(self, device: torch.device) -> tuple[torch.Generator, ...]:
        """One generator for each walker; the first ones do not depend on how many there are."""
        seeds = torch.randint(2**62, (self.walkers,), generator=self.generator, device=self.generator.device)
        return tuple(torch.Generator(device).manual_seed(int(seed)) for seed in seeds)

    @property
    def looks(self) -> range:
        """The steps at which the walkers look."""
        return range(0, self.steps + 1, self.every)


@dataclasses.dataclass
class _Seen:
    """What one crowd saw: lists over looks of one number for each walker."""

    loss: list[Tensor] = dataclasses.field(default_factory=list)
    metrics: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    overlap: list[Tensor] = dataclasses.field(default_factory=list)
    distance: list[Tensor] = dataclasses.field(default_factory=list)
    kept: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    taken: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0))

    def look(self, crowd: Crowd) -> None:
        scores = crowd.look()
        self.loss.append(scores.loss.double())
        for name, value in scores.metrics.items():
            self.metrics.setdefault(name, []).append(value.double())
        overlap, distance = from_start(crowd.ground, crowd.places)
        self.overlap.append(overlap)
        self.distance.append(distance)


def from_start(ground: Ground, places: Float[Tensor, "walkers entries"]) -> tuple[Tensor, Tensor]:
    """Cosine to the start and Euclidean distance from it, for each walker, in float64; NaN where a length is zero.

    Both are made of the way from the start, so that neither loses its digits where the way is short: with δ the way and
    s the start, |s + δ|² = |s|² + 2s·δ + |δ|².
    """
    ways = [way(place, ground.home) for place in places]
    along, square = (torch.stack(column).cpu() for column in zip(*ways, strict=True))
    radius = ground.radius
    length = (radius**2 + 2 * along + square).clamp_min(0).sqrt()
    return ((radius**2 + along) / (length * radius)).clamp(-1, 1), square.sqrt()


class Wanderer:
    """A walker that may go in a crowd: it says how a crowd takes one step, and the rest is alike for all."""

    def _advance(self, ground: Ground) -> Advance:
        """How a crowd takes one step there."""
        raise NotImplementedError

    def _ready(self, crowd: Crowd) -> None:
        """Look at a crowd before its first step; a walker that cannot start there refuses."""

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
        """Walk, in crowds that share a pass through the network, crowds in threads; see :class:`~isthmus.walk.Walker`.

        Raises:
            SettingError: a number that no walk can have, or a start that this walker refuses.

        Cost: one evaluation of the objective for each look; walkers that need the height or the slope, one for each
        step.
        """
        trip = Trip(steps, generator, walkers, every, keep, refresh, progress)
        ground = Ground(objective, start, refresh)
        size = ground.group_size(walkers)
        streams = trip.streams(ground.home.device)
        groups = [streams[first : first + size] for first in range(0, walkers, size)]
        step_of, together = self._advance(ground), ground.joined(size)
        told = _Told(trip, len(groups))

        def one(group: tuple[torch.Generator, ...]) -> _Seen:
            crowd = Crowd(ground, ground.home.repeat(len(group), 1), group, together=together and len(group) > 1)
            self._ready(crowd)
            return _follow(crowd, step_of, trip, told)

        threads = None if ground.home.device.type == "cpu" and refresh is None else 1
        return _gathered(self, ground, in_threads(one, groups, threads=threads), trip)


class _Told:
    """Adds up the steps of all crowds for the listener; crowds walk in different threads."""

    def __init__(self, trip: Trip, groups: int) -> None:
        self.done, self.total, self.listener, self.lock = 0, trip.steps * groups, trip.progress, threading.Lock()

    def step(self) -> None:
        if self.listener is not None:
            with self.lock:
                self.done += 1
                self.listener(self.done, self.total, "walking")


def _follow(crowd: Crowd, advance: Advance, trip: Trip, told: _Told) -> _Seen:
    """Walk one crowd through all its steps."""
    seen = _Seen(taken=torch.zeros(len(crowd), dtype=torch.float64))
    kept, looks = set(trip.keep), set(trip.looks)
    for step in range(trip.steps + 1):
        if step > 0:
            seen.taken += advance(crowd).double()
            crowd.step = step
            told.step()
        if step in looks:
            seen.look(crowd)
        if step in kept:
            seen.kept[step] = crowd.places.clone()
    return seen


def _gathered(method: Any, ground: Ground, seen: Sequence[_Seen], trip: Trip) -> Walk:
    """The result of all crowds."""

    def table(rows: Callable[[_Seen], list[Tensor]]) -> Tensor:
        return torch.cat([torch.stack(rows(part), dim=1) for part in seen])

    loss = table(lambda part: part.loss)
    network = ground.objective.network
    notes = []
    if network.has_batch_statistics and trip.refresh is None:
        notes.append("BatchNorm statistics are the start's; pass refresh to estimate them anew at every look")
    lost = int((~torch.isfinite(loss).all(1)).sum())
    if lost:
        notes.append(f"{lost} of {trip.walkers} walkers left the finite range")
    return Walk(
        method=type(method).__name__,
        settings=settings_of(method),
        steps=torch.tensor(list(trip.looks)),
        loss=loss,
        metrics={name: table(lambda part, n=name: part.metrics[n]) for name in seen[0].metrics},
        overlap=table(lambda part: part.overlap),
        distance=table(lambda part: part.distance),
        acceptance=torch.cat([part.taken for part in seen]) / trip.steps,
        extras={},
        status=Status.DIVERGED if lost else Status.CONVERGED,
        notes=tuple(notes),
        kept={step: ground.weights(torch.cat([part.kept[step] for part in seen])) for step in sorted(set(trip.keep))},
    )


def settings_of(method: Any) -> Mapping[str, Any]:
    """A walker's settings that are plain values."""
    return {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)
        if isinstance(getattr(method, field.name), str | int | float | bool | tuple | None)
    }
