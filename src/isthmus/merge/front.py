"""Searching among merges for those that keep several capabilities: the front of what can be had together."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from isthmus.core.errors import SettingError
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.weights import Weights

Settings = Mapping[str, float]

# Changes are at most this share of a setting's range, at least a quarter of it: some leave a dip, some stay near.
_SPREAD = 0.2
# Slack beyond so many standard errors is no longer preferred to more of what is retained.
_ENOUGH = 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Merges of one kind, which differ in their settings.

    Attributes:
        name: such as ``ties``.
        make: settings → merged weights.
        ranges: of each setting that may be varied, lowest and highest value.
        starts: settings that are tried first, in this order.
    """

    name: str
    make: Callable[[Settings], Weights]
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    starts: tuple[Settings, ...] = ({},)


@dataclasses.dataclass(frozen=True)
class Aim(Record):
    """How much of one capability must remain.

    Attributes:
        name: of the capability.
        floor: least share that must remain, in (0, 1].
        priority: how much a shortfall weighs against those of other capabilities, above 0.
        error: standard error of a measured share; a merge that clears its floors by more of these is preferred, so that
            a floor is not met by chance.
    """

    name: str
    floor: float
    priority: float = 1.0
    error: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise SettingError(
                f"the floor of {self.name} must lie above 0 and be at most 1, the share that must remain, "
                f"got {self.floor:g}"
            )
        if not (math.isfinite(self.priority) and self.priority > 0):
            raise SettingError(f"the priority of {self.name} must be above 0, got {self.priority:g}")


@dataclasses.dataclass(frozen=True)
class Trial(Record):
    """One merge that was measured.

    Attributes:
        family: of merges.
        settings: of this one.
        retained: share of each capability that it keeps.
    """

    family: str
    settings: Mapping[str, float]
    retained: Mapping[str, float]

    def meets(self, aims: Sequence[Aim]) -> bool:
        """Whether no floor is missed."""
        return all(self.retained[aim.name] >= aim.floor for aim in aims)

    def shortfall(self, aims: Sequence[Aim]) -> float:
        """Σ priority · (floor − retained) over the floors that are missed."""
        return sum(aim.priority * max(0.0, aim.floor - self.retained[aim.name]) for aim in aims)


@dataclasses.dataclass(frozen=True, eq=False)
class Front(Record):
    """What a search found.

    Attributes:
        aims: the floors.
        trials: everything that was measured, in its order.
        front: places of the trials that none other beats: no other keeps at least as much of everything and more of
            something.
        best: place of the trial to take: of those that meet all floors the one that clears the most critical floor by
            most standard errors (up to two), then the one that keeps most, by priority; where none meets all, the
            smallest shortfall.
    """

    aims: tuple[Aim, ...]
    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    best: int

    @property
    def met(self) -> bool:
        """Whether the best trial meets every floor."""
        return self.trials[self.best].meets(self.aims)


def search(
    families: Sequence[Family],
    retained: Callable[[Weights], Mapping[str, float]],
    aims: Sequence[Aim],
    *,
    tries: int = 120,
    known: Sequence[Trial] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Front:
    """Find merges that keep as much as possible of several capabilities.

    First the families' starts, one of each family in turn; then small random changes of the settings, every second time
    of the best trial so far, else of one on the front. The same seed gives the same trials, whatever the machine.

    Args:
        families: what to try.
        retained: merged weights → share of each aim's capability that remains.
        aims: at least one.
        tries: most merges that are made and measured in this call.
        known: trials of an earlier call, which take part in the front.
        seed: of the changes.
        progress: hears of every trial.

    Raises:
        SettingError: no family, no aim, an aim twice, or fewer than one try.

    Cost: ``tries`` merges and as many calls of ``retained``; fewer only if the families have nothing more to vary.

    Example:
        >>> one = Family("line", lambda s: {"w": torch.tensor(s["t"])}, {"t": (0.0, 1.0)}, ({"t": 0.0}, {"t": 0.4}))
        >>> def keeps(weights):
        ...     return {"first": 1 - float(weights["w"]) ** 2, "second": 1 - (1 - float(weights["w"])) ** 2}
        >>> found = search([one], keeps, [Aim("first", 0.7), Aim("second", 0.7)], tries=20)
        >>> found.met
        True
    """
    if not families or not aims:
        raise SettingError(f"a search needs families and aims, got {len(families)} and {len(aims)}")
    if tries < 1:
        raise SettingError(f"tries must be at least 1, got {tries}")
    names = [aim.name for aim in aims]
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise SettingError(f"each capability must be named once, got {twice[0]} twice")
    of = {family.name: family for family in families}
    trials = list(known)
    seen = {_key(trial.family, trial.settings) for trial in trials}
    proposals = _proposals(of, trials, aims, seed)
    for number in range(tries):
        found = next((p for p in itertools.islice(proposals, 200) if _key(*p) not in seen), None)
        if found is None:
            break
        family, settings = found
        seen.add(_key(family, settings))
        shares = retained(of[family].make(settings))
        trials.append(Trial(family, dict(settings), {name: float(shares[name]) for name in names}))
        progress(number + 1, tries, family)
    progress(tries, tries, "searched")
    best = min(range(len(trials)), key=lambda place: _rank(trials[place], aims))
    return Front(tuple(aims), tuple(trials), tuple(_unbeaten(trials, names)), best)


def _proposals(
    of: Mapping[str, Family], trials: list[Trial], aims: Sequence[Aim], seed: int
) -> Iterator[tuple[str, Settings]]:
    """Starts in turn, then changes of what is good; reads the trials as they come in."""
    for starts in itertools.zip_longest(*(family.starts for family in of.values())):
        yield from ((name, start) for name, start in zip(of, starts, strict=True) if start is not None)
    generator = child(seed, "merge", "front")
    names = [aim.name for aim in aims]
    for number in itertools.count():
        varied = [trial for trial in trials if trial.family in of and of[trial.family].ranges]
        if not varied:
            return
        if number % 2:
            front = [varied[place] for place in _unbeaten(varied, names)]
            parent = front[int(torch.randint(len(front), (1,), generator=generator))]
        else:
            parent = min(varied, key=lambda trial: _rank(trial, aims))
        yield parent.family, _changed(parent.settings, of[parent.family].ranges, generator)


def _changed(settings: Settings, ranges: Mapping[str, tuple[float, float]], generator: torch.Generator) -> Settings:
    """Some of the settings moved, at least one; inside their ranges."""
    moves = torch.randn(len(ranges), generator=generator, dtype=torch.float64)
    moves *= _SPREAD * 4.0 ** -float(torch.rand((), generator=generator))
    chosen = torch.rand(len(ranges), generator=generator) < max(0.34, 1 / len(ranges))
    chosen[int(torch.randint(len(ranges), (1,), generator=generator))] = True
    moved = dict(settings)
    for (name, (low, high)), move, wanted in zip(ranges.items(), moves.tolist(), chosen.tolist(), strict=True):
        if wanted:
            moved[name] = round(min(high, max(low, settings[name] + (high - low) * move)), 4)
    return moved


def _rank(trial: Trial, aims: Sequence[Aim]) -> tuple[float, float, float]:
    """Smaller is better; see :class:`Front`."""
    slack = min(_slack(trial.retained[aim.name] - aim.floor, aim.error) for aim in aims)
    weight = sum(aim.priority for aim in aims)
    kept = sum(aim.priority * min(1.0, trial.retained[aim.name]) for aim in aims) / weight
    return trial.shortfall(aims), -min(slack, _ENOUGH), -kept


def _slack(lead: float, error: float) -> float:
    """A lead in standard errors; where there are none, any lead is enough."""
    if error > 0:
        return lead / error
    return _ENOUGH if lead >= 0 else -math.inf


def _unbeaten(trials: Sequence[Trial], names: Sequence[str]) -> list[int]:
    """Places of the trials on the front, of equal ones the first, by falling share of the first capability."""
    points = [tuple(trial.retained[name] for name in names) for trial in trials]
    first = {point: place for place, point in reversed(list(enumerate(points)))}
    kept = [
        place
        for point, place in first.items()
        if not any(other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in first)
    ]
    return sorted(kept, key=lambda place: tuple(-value for value in points[place]))


def _key(family: str, settings: Settings) -> tuple[str, tuple[tuple[str, float], ...]]:
    return family, tuple(sorted((name, round(value, 6)) for name, value in settings.items()))
