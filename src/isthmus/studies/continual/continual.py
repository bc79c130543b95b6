"""What survives a merge: networks that learned cues one after the other or side by side, and their averages.

Reference: Hess et al., "Forgetting of task-specific knowledge in model merging-based continual learning", arXiv
2507.23311. Beyond it: retention normalised by the ends, counterfactual probes, doubled steps, joint training, replay.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.merge.prediction import loss_scores
from isthmus.studies.continual.archive import Archive, archived
from isthmus.studies.continual.arms import Bench, Ends, Trainings
from isthmus.studies.continual.contrasts import Contrast
from isthmus.studies.continual.prediction import Forecast, Observed, validated
from isthmus.studies.continual.retention import (
    ARMS,
    BASE,
    Curve,
    Retention,
    check_learned,
    contrasts,
    curve_of,
    retentions,
)
from isthmus.train import Recipe
from isthmus.zoo.cues import Cue, cued, in_colour, probes
from isthmus.zoo.data import Data
from isthmus.zoo.models import build


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
    curriculum: Curriculum,
    data: Data,
    *,
    archive: Archive | None = None,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
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
        archive: where the trained networks and the merges at the middle are saved; nowhere by default.
        device: where to train and measure.
        progress: told along the way.

    Raises:
        DataError: the images are too small for a cue.
        SettingError: a cue was not learned (the floor test, made as soon as a task was trained, before the other arms
            are), or a network diverged.

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
    network = Network.of(build(curriculum.recipe).to(device))
    bench = Bench(network, _objectives(network, data, curriculum), _mixture([data, *tasks]), curriculum.points)
    trainings = Trainings(
        curriculum.recipe, curriculum.task, curriculum.replicas, device, within(progress, 0.0, 1, share=0.7)
    )
    learned = functools.partial(_learned, bench, curriculum, data.classes)
    ends = trainings.run(data, tasks, controls=curriculum.controls, learned=learned)
    curves, controls = _measured(bench, ends, within(progress, 0.7, 1, share=0.2))
    found = Continual(
        positions=bench.positions,
        cues=curriculum.cues,
        curves=curves,
        controls=controls,
        retention=(),
        contrasts=(),
        forecast=None,
        recipes={"base": curriculum.recipe.to_dict(), "task": trainings.task_recipe(0, "first").to_dict()},
        data={"name": data.name, "fingerprint": data.fingerprint},
        replicas=curriculum.replicas,
        notes=tuple(notes),
        provenance=provenance(),
    )
    found = _judged(found, curriculum, data.classes)
    if curriculum.predict:
        inputs = _unlabelled(tasks, curriculum)
        observed = _observed(found, ends.networks, bench, inputs, within(progress, 0.9, 1, share=0.1))
        found = dataclasses.replace(found, forecast=validated(observed))
    if archive is not None:
        fingerprints = {"base": data.fingerprint, "first": tasks[0].fingerprint, "second": tasks[1].fingerprint}
        archived(archive, ends, bench, recipes=found.recipes, data=fingerprints)
    progress(1.0, 1.0, "measured")
    return found


def _learned(bench: Bench, curriculum: Curriculum, classes: int, found: Ends, name: str) -> None:
    """Refuse to go on after a task whose cue was not learned: the floor test, made as soon as it was trained."""
    cue = curriculum.cues[0 if name == "first" else 1].kind
    own, floor = (bench.accuracy(found.networks[key], (cue, "cue_only")) for key in (name, "base"))
    check_learned(f"after the {name} task", cue, own, floor.clamp_min(1 / classes), curriculum.margin)


def _judged(found: Continual, curriculum: Curriculum, classes: int) -> Continual:
    """The same with what survived, and how the arms compare."""
    kinds = [cue.kind for cue in curriculum.cues]
    retention = tuple(retentions(found.curve, kinds, classes=classes, margin=curriculum.margin))
    found = dataclasses.replace(found, retention=retention)
    compared = contrasts(found.curve, found.kept, kinds, middle=len(found.positions) // 2)
    return dataclasses.replace(found, contrasts=tuple(compared))


def _objectives(network: Network, data: Data, curriculum: Curriculum) -> dict[tuple[str, str], Objective]:
    found = {(BASE, "base_only"): (data.test_inputs, data.test_targets)}
    for cue in curriculum.cues:
        forms = probes(data, cue, seed=curriculum.seed)
        found |= {(cue.kind, probe): forms[probe] for probe in ("with_cue", "cue_only", "wrong_cue")}
    return {name: Objective(network, *pair, batch_size=500) for name, pair in found.items()}


def _observed(
    found: Continual,
    networks: Mapping[str, Sequence[Weights]],
    bench: Bench,
    inputs: Mapping[str, Tensor],
    progress: Progress,
) -> list[Observed]:
    """For every replica, arm, cue and three merges: scores before merging, and the retention that was lost."""
    last = len(found.positions) - 1
    points = [point for point in sorted({round(last * share) for share in (0.25, 0.5, 0.75)}) if 0 < point < last]
    made = []
    for place, kept in enumerate(found.retention):
        for replica in range(found.replicas):
            start, end = (networks[name][replica] for name in bench.ends_of(kept.arm))
            holder, other = (end, start) if kept.holder == "end" else (start, end)
            for point in points:
                scores = loss_scores(
                    holder, bench.mixed(start, end, found.positions[point]), other=other,
                    base=networks["base"][replica], network=bench.network, inputs=inputs[kept.cue],
                )  # fmt: skip
                lost = 1 - float(kept.values[replica, point])
                made.append(Observed(replica, kept.arm, kept.cue, found.positions[point], lost, scores))
        progress(place + 1, len(found.retention), "predicting")
    return made


def _measured(bench: Bench, ends: Ends, progress: Progress) -> tuple[tuple[Curve, ...], tuple[Curve, ...]]:
    """Accuracy on every probe: of each arm along its mixture, and of the networks beside the arms."""
    curves: list[Curve] = []
    for place, arm in enumerate(ARMS):
        found = bench.along(ends.start(arm), ends.end(arm))
        curves += [curve_of(arm, *probe, accuracy) for probe, accuracy in found.items()]
        progress(place + 1, len(ARMS), f"measuring {arm}")
    controls = (
        curve_of(name, *probe, accuracy)
        for name in ("base", "joint", "replay")
        if name in ends.networks
        for probe, accuracy in bench.at(ends.networks[name]).items()
    )
    return tuple(curves), tuple(controls)


def _unlabelled(tasks: Sequence[Data], curriculum: Curriculum, *, examples: int = 256) -> dict[str, Tensor]:
    """A few training images of each task, without their labels; test images stay out of every prediction."""
    return {cue.kind: task.train_inputs[:examples] for cue, task in zip(curriculum.cues, tasks, strict=True)}


def _mixture(parts: Sequence[Data], *, examples: int = 2000) -> Tensor:
    """Training images of base and tasks in equal parts, for normalisation statistics of merged networks."""
    each = max(1, examples // len(parts))
    return torch.cat([part.train_inputs[:each] for part in parts])
