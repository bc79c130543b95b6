"""Many tasks, a merge after each: who remembers what, and does every step stay connected to the last?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.studies.continual.archive import Archive
from isthmus.studies.continual.arms import Trainings
from isthmus.studies.continual.course import Counted, Course, Heads, Outcome, Start
from isthmus.studies.continual.mergers import Merge, mergers_of
from isthmus.train import Recipe
from isthmus.zoo.models import build
from isthmus.zoo.streams import Stream


@dataclasses.dataclass(frozen=True, eq=False)
class Merges(Record):
    """A stream under several mergers.

    Attributes:
        tasks: their names.
        scenario: ``class`` or ``domain``.
        heads: ``one`` for all tasks, or ``separate`` ones.
        start: where each task's training starts: the ``base`` (the network of the first task), the ``previous`` end, or
            the last ``merged`` network.
        outcomes: one for each merger.
        joint: accuracy on each task of the network trained on all tasks at once, (replicas, tasks); ``None`` if there
            is none.
        recipes: of the first task and of the later ones.
        data: name and fingerprint of each task.
        provenance: versions, machine, command.
    """

    tasks: tuple[str, ...]
    scenario: str
    heads: str
    start: str
    outcomes: tuple[Outcome, ...]
    joint: Float[Tensor, "replicas tasks"] | None
    recipes: Mapping[str, Mapping[str, Any]]
    data: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]


def merges(
    stream: Stream,
    recipe: Recipe,
    *,
    task: Mapping[str, Any] | None = None,
    mergers: Mapping[str, Merge] | Sequence[str] = ("last", "mean", "ema", "ties", "magnitude_max"),
    start: Start = "previous",
    heads: Heads | None = None,
    replicas: int = 6,
    joint: bool = True,
    points: int = 11,
    archive: Archive | None = None,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
) -> Merges:
    """Train one task after the other and merge after each.

    The first task's network, trained by ``recipe``, is the base. With ``start`` ``base`` or ``previous`` all mergers
    merge the same ends; with ``merged`` each has trainings of its own.

    Args:
        stream: at least two tasks.
        recipe: of the first task.
        task: fields of the recipe that differ for the later ones.
        mergers: names from :data:`MERGERS`, or functions of the same form by name. ``last`` merges nothing.
        start: where each training starts.
        heads: ``one``, or ``separate``: the output rows of a task's labels then stay those of its own network, and only
            these outputs compete when the task is tested (task-incremental). Tasks whose labels are disjoint need a
            choice.
        replicas: seeds; six are the fewest that a sign test can tell.
        joint: also train one network on all tasks seen so far, after every task, from the base.
        points: of each barrier.
        archive: where the ends and the merges after every task are saved; nowhere by default.
        device: where to train and measure.
        progress: told along the way.

    Raises:
        SettingError: labels are disjoint and no choice of heads was made; an unknown merger; a network diverged.

    Cost: one training for each task and replica (for each merger too, if they start from the merge), as many joint
    ones, and three barriers for each later task, merger and replica.

    Example:
        >>> from isthmus.zoo import load_data
        >>> from isthmus.zoo.streams import permuted
        >>> recipe = Recipe(network="mlp-16x1", settings={"inputs": [1, 8, 8]}, epochs=2)
        >>> found = merges(permuted(load_data("digits"), 2), recipe, replicas=2, points=3, joint=False)
        >>> [outcome.merger for outcome in found.outcomes]
        ['last', 'mean', 'ema', 'ties', 'magnitude_max']
    """
    chosen = mergers_of(mergers)
    if start not in ("base", "previous", "merged"):
        raise SettingError(f"start must be base, previous or merged, got {start}")
    if heads not in (None, "one", "separate"):
        raise SettingError(f"heads must be one or separate, got {heads}")
    if stream.disjoint and heads is None:
        raise SettingError(
            "tasks have labels that no other task has, so a merge with one head mixes outputs that were never trained "
            "together; choose separate heads (--heads separate), or one head to merge them all the same"
        )
    if heads == "separate" and not stream.disjoint:
        raise SettingError("separate heads need tasks with labels of their own; these tasks share labels, use one head")
    trained = 1 + (len(stream.tasks) - 1) * ((len(chosen) if start == "merged" else 1) + joint)
    counted = Counted(progress, trained + len(chosen))
    trainings = Trainings(recipe, task or {}, replicas, device, counted.inside)
    course = Course(
        stream=stream.to(device), trainings=trainings, mergers=chosen, start=start, heads=heads or "one", points=points,
        network=Network.of(build(recipe).to(device)), counted=counted, archive=archive,
    )  # fmt: skip
    ends, fresh = course.first()
    united = course.joint(ends) if joint else []
    outcomes = [course.outcome(name, ends, united, fresh) for name in chosen]
    last = course.accuracies(united[-1], len(stream.tasks) - 1) if united else None
    return Merges(
        stream.names, stream.scenario, heads or "one", start, tuple(outcomes), last,
        {"base": recipe.to_dict(), "task": trainings.task_recipe(0, "task 1").to_dict()},
        tuple({"name": part.name, "fingerprint": part.fingerprint} for part in stream.tasks), provenance(),
    )  # fmt: skip
