"""What an arm of the study keeps: curves over α, retention between a floor and the end that learned, contrasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.studies.continual.contrasts import Contrast, contrast

ARMS = ("shared", "parallel", "incremental", "doubled")
BASE = "base"
KEPT = 0.9

# Something by its names: a curve by arm, capability and probe, a retention by arm and cue.
CurveBy = Callable[[str, str, str], "Curve"]
RetentionBy = Callable[[str, str], "Retention"]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve(Record):
    """The accuracy of one arm along α, on one probe.

    Attributes:
        arm: which ends are mixed; for a control, its name.
        capability: ``base`` or a cue.
        probe: ``with_cue``, ``cue_only``, ``wrong_cue`` or ``base_only`` (see :func:`isthmus.zoo.cues.probes`).
        accuracy: of every replica at every α; a control has one column.
        mean: at every α, with an interval over seeds.
    """

    arm: str
    capability: str
    probe: str
    accuracy: Float[Tensor, "replicas points"]
    mean: tuple[Interval, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Retention(Record):
    """How much of a cue an arm keeps, R = (accuracy(α) − floor) / (accuracy of the end that learned it − floor).

    The probe is ``cue_only``. The floor is what the base network scores there, at least 1 / classes.

    Attributes:
        arm: which.
        cue: which.
        holder: the end that learned it, ``start`` or ``end``; ``both`` for a shared cue, whose ends are averaged.
        values: of every replica at every α.
        mean: at every α.
        kept: whether the interval at the middle lies above .9.
    """

    arm: str
    cue: str
    holder: str
    values: Float[Tensor, "replicas points"]
    mean: tuple[Interval, ...]
    kept: bool


def curve_of(arm: str, capability: str, probe: str, accuracy: Tensor) -> Curve:
    """A curve with its intervals over seeds."""
    return Curve(arm, capability, probe, accuracy, intervals(accuracy))


def intervals(values: Tensor) -> tuple[Interval, ...]:
    """Over replicas, at every α."""
    return tuple(over_networks(column) for column in values.unbind(1))


def retentions(curve: CurveBy, cues: Sequence[str], *, classes: int, margin: float) -> list[Retention]:
    """The retention of every cue in every arm that learned it; refuses a cue that was not learned."""
    first, second = cues
    floors = {cue: curve("base", cue, "cue_only").accuracy[:, :1].clamp_min(1 / classes) for cue in (first, second)}
    made = []
    for arm, cue, holder in [
        ("shared", first, "both"),
        *((arm, cue, end) for arm in ARMS[1:] for cue, end in ((first, "start"), (second, "end"))),
    ]:
        accuracy, floor = curve(arm, cue, "cue_only").accuracy, floors[cue]
        sides = {"start": [0], "end": [-1], "both": [0, -1]}[holder]
        own = accuracy[:, sides].mean(1, keepdim=True)
        check_learned(arm, cue, accuracy[:, sides].amin(1, keepdim=True), floor, margin)
        values = (accuracy - floor) / (own - floor)
        mean = intervals(values)
        middle = mean[len(mean) // 2]
        made.append(Retention(arm, cue, holder, values, mean, middle.low > KEPT))
    return made


def check_learned(
    where: str,
    cue: str,
    accuracy: Float[Tensor, "replicas 1"],
    floor: Float[Tensor, "replicas 1"],
    margin: float,
) -> None:
    """The floor test: what was not learned cannot be lost.

    Args:
        where: the arm or the training.
        cue: which.
        accuracy: by the cue alone, of every replica.
        floor: what the base scores there, at least chance.
        margin: by how much every replica must lie above its floor.

    Raises:
        SettingError: one does not.
    """
    lead = accuracy - floor
    if float(lead.min()) < margin:
        worst = int(lead.argmin())
        raise SettingError(
            f"the {cue} cue must be learned before its loss can be measured: {where}, replica {worst} tells "
            f"{float(accuracy[worst]):.0%} of the classes by it, the floor is {float(floor[worst]):.0%} and the margin "
            f"{margin:.0%}; train longer, or raise the cue's strength or swapped share"
        )


def contrasts(curve: CurveBy, retention: RetentionBy, cues: Sequence[str], *, middle: int) -> list[Contrast]:
    """All claims at the middle of the line; directions are fixed here, not by the data."""
    first, second = cues

    def at(arm: str, capability: str, probe: str, point: int = middle) -> Tensor:
        return curve(arm, capability, probe).accuracy[:, point]

    def kept(arm: str, cue: str) -> Tensor:
        return retention(arm, cue).values[:, middle]

    made = [
        contrast(kept("shared", first), kept("parallel", first), name="shared_over_parallel", capability=first,
                 probe="retention", alternative="greater"),
    ]  # fmt: skip
    made += [
        contrast(torch.ones(len(kept("parallel", cue))), kept("parallel", cue), name="specific_lost", capability=cue,
                 probe="retention", alternative="greater")
        for cue in (first, second)
    ]  # fmt: skip
    for other, name in (("parallel", "incremental_over_parallel"), ("doubled", "incremental_over_doubled")):
        for cue in (first, second):
            for probe in ("cue_only", "with_cue"):
                made.append(
                    contrast(at("incremental", cue, probe), at(other, cue, probe), name=name, capability=cue,
                             probe=probe, alternative="greater")
                )  # fmt: skip
            made.append(
                contrast(kept("incremental", cue), kept(other, cue), name=name, capability=cue, probe="retention",
                         alternative="greater")
            )  # fmt: skip
    made.append(
        contrast(at("incremental", first, "cue_only"), at("incremental", first, "cue_only", -1),
                 name="merge_over_sequential", capability=first, probe="cue_only", alternative="two-sided")
    )  # fmt: skip
    for other, name in (("parallel", "incremental_over_parallel"), ("doubled", "incremental_over_doubled")):
        made.append(
            contrast(at("incremental", BASE, "base_only"), at(other, BASE, "base_only"), name=name, capability=BASE,
                     probe="base_only", alternative="two-sided")
        )  # fmt: skip
    return made
