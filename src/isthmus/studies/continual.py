"""What survives a merge: networks that learned cues one after the other or side by side, and their averages.

Reference: Hess et al., "Forgetting of task-specific knowledge in model merging-based continual learning", arXiv
2507.23311. Beyond it: retention normalised by the ends, counterfactual probes, doubled steps, joint training, replay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.core.weights import Weights
from isthmus.merge.prediction import loss_scores
from isthmus.studies.continual_arms import Bench, Trainings
from isthmus.studies.continual_contrasts import Contrast, contrast
from isthmus.studies.continual_prediction import Forecast, Observed, validated
from isthmus.train import Recipe
from isthmus.zoo.cues import Cue, cued, in_colour, probes
from isthmus.zoo.data import Data
from isthmus.zoo.models import build

ARMS = ("shared", "parallel", "incremental", "doubled")
BASE = "base"
KEPT = 0.9


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """What is trained and measured.

    Attributes:
        recipe: of the base network, on images without cues.
        cues: the first task's and the second task's.
        task: fields of the recipe that differ when a task is learned, such as its rate and epochs.
        replicas: how many seeds; every arm has one network for each.
        points: on the line between the ends, both included; odd, so that the middle is one of them.
        margin: by how much the network that learned a cue must beat the base on it, in every replica.
        controls: also train jointly and with replay.
        predict: also score, before merging, what will be lost.
        seed: of the cues' placement; replicas are numbered from 0.
    """

    recipe: Recipe
    cues: tuple[Cue, Cue] = (
        Cue("colour", swapped=0.4, absent=0.3),
        Cue("noise", swapped=0.4, absent=0.3),
    )
    task: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"rate": 0.01, "epochs": 20})
    replicas: int = 6
    points: int = 11
    margin: float = 0.2
    controls: bool = True
    predict: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.cues) != 2 or self.cues[0].kind == self.cues[1].kind:
            raise SettingError(f"two different cues must be given, got {', '.join(cue.kind for cue in self.cues)}")
        if self.replicas < 2:
            raise SettingError(f"replicas must be at least 2 to compare in pairs, got {self.replicas}")
        if self.points < 3 or self.points % 2 == 0:
            raise SettingError(
                f"points must be odd and at least 3, so that the middle is one of them, got {self.points}"
            )
        if not 0 < self.margin < 1:
            raise SettingError(f"margin must lie between 0 and 1, got {self.margin}")


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


@dataclasses.dataclass(frozen=True, eq=False)
class Continual(Record):
    """What survived the merges.

    Attributes:
        positions: α, from the network of the first task (0) to that of the second (1).
        cues: their settings, first and second.
        curves: accuracy of every arm on every probe.
        controls: ``base``, and where trained ``joint`` and ``replay``: accuracy on every probe.
        retention: of every cue in every arm.
        contrasts: paired over seeds, at the middle.
        forecast: how well scores made before merging rank what was lost; ``None`` if not asked for.
        recipes: of the base and of a task.
        data: name and fingerprint.
        replicas: how many seeds.
        notes: what was done to the data on the way.
        provenance: versions, machine, command.
    """

    positions: tuple[float, ...]
    cues: tuple[Cue, Cue]
    curves: tuple[Curve, ...]
    controls: tuple[Curve, ...]
    retention: tuple[Retention, ...]
    contrasts: tuple[Contrast, ...]
    forecast: Forecast | None
    recipes: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    replicas: int
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]

    def curve(self, arm: str, capability: str, probe: str) -> Curve:
        """One curve, or one control, by name."""
        wanted = (arm, capability, probe)
        return next(c for c in (*self.curves, *self.controls) if (c.arm, c.capability, c.probe) == wanted)

    def kept(self, arm: str, cue: str) -> Retention:
        """The retention of one cue in one arm."""
        return next(found for found in self.retention if (found.arm, found.cue) == (arm, cue))


def continual(
    curriculum: Curriculum, data: Data, *, device: str | torch.device = "cpu", progress: Progress = silent
) -> Continual:
    """Train the arms, mix their ends at every α, and measure which capability survives.

    All arms start from the base θ₀, trained without cues. ``parallel``: θ₁ learned the first cue and θ₂ the second,
    both from θ₀. ``incremental``: θ₂ learned the second from θ₁. ``shared``: both ends learned the first cue from θ₀,
    in different orders of the examples. ``doubled``: as parallel, but θ₂ trained for twice the steps, as many as the
    incremental arm's end has behind it. The end of ``incremental`` is sequential training without any merge; ``joint``
    saw both tasks at once, ``replay`` as ``incremental`` with half of its second task's examples from the first task.

    Args:
        curriculum: what is trained and measured.
        data: images without cues; grey ones are repeated over three channels if a cue has colours.
        device: where to train and measure.
        progress: told along the way.

    Raises:
        DataError: the images are too small for a cue.
        SettingError: a cue was not learned (the floor test), or a network diverged.

    Cost: five (with controls seven) trainings of a task for each replica, the doubled one counting twice and the joint
    one too; then one pass over the test images for each α, arm, probe and replica.

    Example:
        >>> from isthmus.zoo import load_data
        >>> recipe = Recipe(network="mlp-16x1", settings={"inputs": [3, 8, 8]}, rate=0.05, epochs=5)
        >>> quick = Curriculum(recipe, task={"epochs": 12}, replicas=2, points=3, controls=False, predict=False)
        >>> result = continual(quick, load_data("digits"))
        >>> bool(result.curve("shared", "colour", "cue_only").accuracy.mean() > 0.5)
        True
    """
    notes = []
    if any(cue.kind == "colour" for cue in curriculum.cues) and data.shape[:1] == (1,):
        data = in_colour(data)
        notes.append("grey images were repeated over three channels for the colour cue")
    data = data.to(device)
    tasks = [cued(data, [cue], seed=curriculum.seed) for cue in curriculum.cues]
    trainings = Trainings(curriculum.recipe, curriculum.task, curriculum.replicas, device, _share(progress, 0.0, 0.7))
    ends = trainings.run(data, tasks, controls=curriculum.controls)
    network = Network.of(build(curriculum.recipe).to(device))
    bench = Bench(network, _objectives(network, data, curriculum), _mixture([data, *tasks]), curriculum.points)
    told = _share(progress, 0.7, 0.9)
    curves = []
    for place, arm in enumerate(ARMS):
        found = bench.along(ends.start(arm), ends.end(arm))
        curves += [_curve(arm, *probe, accuracy) for probe, accuracy in found.items()]
        told(place + 1, len(ARMS), f"measuring {arm}")
    controls = [
        _curve(name, *probe, accuracy)
        for name in ("base", "joint", "replay")
        if name in ends.networks
        for probe, accuracy in bench.at(ends.networks[name]).items()
    ]
    found = Continual(
        positions=bench.positions,
        cues=curriculum.cues,
        curves=tuple(curves),
        controls=tuple(controls),
        retention=(),
        contrasts=(),
        forecast=None,
        recipes={"base": curriculum.recipe.to_dict(), "task": trainings.task_recipe(0, "first").to_dict()},
        data={"name": data.name, "fingerprint": data.fingerprint},
        replicas=curriculum.replicas,
        notes=tuple(notes),
        provenance=provenance(),
    )
    retention = tuple(_retentions(found, curriculum, data.classes))
    found = dataclasses.replace(found, retention=retention)
    found = dataclasses.replace(found, contrasts=tuple(_contrasts(found)))
    if curriculum.predict:
        inputs = _unlabelled(data, tasks, curriculum)
        observed = _observed(found, ends.networks, bench, inputs, _share(progress, 0.9, 1.0))
        found = dataclasses.replace(found, forecast=validated(observed, seed=curriculum.seed))
    progress(1.0, 1.0, "measured")
    return found


def _objectives(network: Network, data: Data, curriculum: Curriculum) -> dict[tuple[str, str], Objective]:
    found = {(BASE, "base_only"): (data.test_inputs, data.test_targets)}
    for cue in curriculum.cues:
        forms = probes(data, cue, seed=curriculum.seed)
        found |= {(cue.kind, probe): forms[probe] for probe in ("with_cue", "cue_only", "wrong_cue")}
    return {name: Objective(network, *pair, batch_size=500) for name, pair in found.items()}


def _curve(arm: str, capability: str, probe: str, accuracy: Tensor) -> Curve:
    return Curve(arm, capability, probe, accuracy, _intervals(accuracy))


def _intervals(values: Tensor) -> tuple[Interval, ...]:
    return tuple(over_networks(column) for column in values.unbind(1))


def _retentions(found: Continual, curriculum: Curriculum, classes: int) -> list[Retention]:
    """The retention of every cue in every arm that learned it; refuses a cue that was not learned."""
    first, second = (cue.kind for cue in curriculum.cues)
    floors = {
        cue: found.curve("base", cue, "cue_only").accuracy[:, :1].clamp_min(1 / classes) for cue in (first, second)
    }
    made = []
    for arm, cue, holder in [
        ("shared", first, "both"),
        *((arm, cue, end) for arm in ARMS[1:] for cue, end in ((first, "start"), (second, "end"))),
    ]:
        accuracy, floor = found.curve(arm, cue, "cue_only").accuracy, floors[cue]
        sides = {"start": [0], "end": [-1], "both": [0, -1]}[holder]
        own = accuracy[:, sides].mean(1, keepdim=True)
        lead = accuracy[:, sides].amin(1, keepdim=True) - floor
        if float(lead.min()) < curriculum.margin:
            worst = int(lead.argmin())
            raise SettingError(
                f"the {cue} cue must be learned before its loss can be measured: {arm}, replica {worst} tells "
                f"{float(own[worst]):.0%} of the classes by it, the floor is {float(floor[worst]):.0%} and the margin "
                f"{curriculum.margin:.0%}; train longer, or raise the cue's strength or swapped share"
            )
        values = (accuracy - floor) / (own - floor)
        mean = _intervals(values)
        middle = mean[len(mean) // 2]
        made.append(Retention(arm, cue, holder, values, mean, middle.low > KEPT))
    return made


def _contrasts(found: Continual) -> list[Contrast]:
    """All claims at the middle of the line; directions are fixed here, not by the data."""
    first, second = (cue.kind for cue in found.cues)
    middle = len(found.positions) // 2

    def at(arm: str, capability: str, probe: str, point: int = middle) -> Tensor:
        return found.curve(arm, capability, probe).accuracy[:, point]

    def kept(arm: str, cue: str) -> Tensor:
        return found.kept(arm, cue).values[:, middle]

    made = [
        contrast(kept("shared", first), kept("parallel", first), name="shared_over_parallel", capability=first,
                 probe="retention", alternative="greater"),
    ]  # fmt: skip
    made += [
        contrast(torch.ones(found.replicas), kept("parallel", cue), name="specific_lost", capability=cue,
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


def _observed(
    found: Continual,
    networks: Mapping[str, Sequence[Weights]],
    bench: Bench,
    inputs: Mapping[str, Tensor],
    progress: Progress,
) -> list[Observed]:
    """For every replica, arm and cue: scores before merging, and the retention that was lost at the middle."""
    middle = len(found.positions) // 2
    made = []
    for place, kept in enumerate(found.retention):
        for replica in range(found.replicas):
            start, end = (networks[name][replica] for name in bench.ends_of(kept.arm))
            holder, other = (end, start) if kept.holder == "end" else (start, end)
            scores = loss_scores(
                holder, bench.mixed(start, end), other=other, base=networks["base"][replica],
                network=bench.network, inputs=inputs[kept.cue],
            )  # fmt: skip
            made.append(Observed(replica, kept.arm, kept.cue, 1 - float(kept.values[replica, middle]), scores))
        progress(place + 1, len(found.retention), "predicting")
    return made


def _unlabelled(data: Data, tasks: Sequence[Data], curriculum: Curriculum, *, examples: int = 256) -> dict[str, Tensor]:
    """A few training images of each task, without their labels; test images stay out of every prediction."""
    return {cue.kind: task.train_inputs[:examples] for cue, task in zip(curriculum.cues, tasks, strict=True)}


def _mixture(parts: Sequence[Data], *, examples: int = 2000) -> Tensor:
    """Training images of base and tasks in equal parts, for normalisation statistics of merged networks."""
    each = max(1, examples // len(parts))
    return torch.cat([part.train_inputs[:each] for part in parts])


def _share(progress: Progress, first: float, last: float) -> Progress:
    return lambda done, total, label="": progress(first + (last - first) * done / max(total, 1e-9), 1.0, label)
