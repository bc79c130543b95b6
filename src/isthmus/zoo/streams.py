"""Streams: one task after another over the same network's inputs, made from any data set.

*Class*-incremental streams bring new classes in every task, *domain*-incremental ones the same classes in new forms.
With a head for each task a class-incremental stream becomes task-incremental (van de Ven, Tuytelaars and Tolias, "Three
types of incremental learning", Nature Machine Intelligence 4, 2022).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.core.errors import DataError, SettingError, listed, near
from isthmus.core.randomness import child
from isthmus.zoo.cues import Cue, cued
from isthmus.zoo.data import Data
from isthmus.zoo.models import function

Scenario = Literal["class", "domain"]
STREAMS = ("split", "domain", "permuted", "rotated", "cues")


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Tasks in their order; inputs have one shape, labels one range.

    Attributes:
        tasks: the data of each.
        names: what each is called.
        scenario: ``class`` or ``domain``.
        labels: the labels that occur in each task's training set.
    """

    tasks: tuple[Data, ...]
    names: tuple[str, ...]
    scenario: Scenario
    labels: tuple[tuple[int, ...], ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if len(self.tasks) < 2 or len(self.names) != len(self.tasks):
            raise SettingError(
                f"a stream needs at least 2 tasks, each with a name, got {len(self.tasks)} and {len(self.names)} names"
            )
        if self.scenario not in ("class", "domain"):
            raise SettingError(f"scenario must be class or domain, got {self.scenario}")
        for task, name in zip(self.tasks, self.names, strict=True):
            if task.shape != self.tasks[0].shape or task.classes != self.tasks[0].classes:
                raise DataError(
                    f"tasks of a stream must have one shape and one number of classes; {name} has {task.shape} and "
                    f"{task.classes}, the first has {self.tasks[0].shape} and {self.tasks[0].classes}"
                )
        found = tuple(tuple(sorted(set(task.train_targets.tolist()))) for task in self.tasks)
        object.__setattr__(self, "labels", found)

    @property
    def disjoint(self) -> bool:
        """Whether some two tasks have no label in common."""
        sets = [set(labels) for labels in self.labels]
        return any(not one & other for place, one in enumerate(sets) for other in sets[:place])

    def to(self, device: str | torch.device) -> Stream:
        """The same stream on another device."""
        return Stream(tuple(task.to(device) for task in self.tasks), self.names, self.scenario)


def split(data: Data, tasks: int, *, scenario: Scenario = "class") -> Stream:
    """The classes of a data set, divided into tasks in their order, as evenly as possible.

    Args:
        data: any classification data.
        tasks: how many.
        scenario: ``class`` keeps the class numbers; ``domain`` numbers the classes of each task from 0, so that all
            tasks share their labels.

    Raises:
        SettingError: not every task would have two classes.
        DataError: a task has no examples.
    """
    if tasks < 2 or data.classes < 2 * tasks:
        raise SettingError(
            f"tasks must be at least 2 and leave 2 classes for each, got {tasks} tasks of {data.classes} classes"
        )
    edges = [round(data.classes * place / tasks) for place in range(tasks + 1)]
    most = max(high - low for low, high in itertools.pairwise(edges))
    made, names = [], []
    for low, high in itertools.pairwise(edges):
        shift = 0 if scenario == "class" else low
        parts: dict[str, Any] = {}
        for part in ("train", "test"):
            inputs, targets = getattr(data, f"{part}_inputs"), getattr(data, f"{part}_targets")
            mine = (targets >= low) & (targets < high)
            if not bool(mine.any()):
                raise DataError(
                    f"{data.name}: every task needs {part} examples, but classes {low}–{high - 1} have none"
                )
            parts |= {f"{part}_inputs": inputs[mine], f"{part}_targets": targets[mine] - shift}
        name = f"classes {low}–{high - 1}"
        classes = data.classes if scenario == "class" else most
        made.append(dataclasses.replace(data, **parts, classes=classes, name=f"{data.name}, {name}"))
        names.append(name)
    return Stream(tuple(made), tuple(names), scenario)


def permuted(data: Data, tasks: int, *, seed: int = 0) -> Stream:
    """The same images with their pixels in another fixed order in every task; the first keeps its own.

    All channels of a pixel move together. Domain-incremental.

    Raises:
        SettingError: fewer than two tasks.
    """
    if tasks < 2:
        raise SettingError(f"tasks must be at least 2, got {tasks}")
    pixels = math.prod(data.shape[1:] or data.shape)

    def moved(inputs: Tensor, order: Tensor) -> Tensor:
        return inputs.flatten(2 if len(data.shape) > 1 else 1)[..., order.to(inputs.device)].view(inputs.shape)

    made = [data]
    for place in range(1, tasks):
        order = torch.randperm(pixels, generator=child(seed, "stream", "permuted", place))
        made.append(_changed(data, lambda inputs, o=order: moved(inputs, o), f"permutation {place}"))
    return Stream(tuple(made), ("in order", *(f"permutation {place}" for place in range(1, tasks))), "domain")


def rotated(data: Data, tasks: int, *, most: float = 90.0) -> Stream:
    """The same images turned by angles from 0 to ``most`` degrees, evenly spread (bilinear; the edge goes on beyond).

    Domain-incremental.

    Raises:
        DataError: the inputs are no images.
        SettingError: fewer than two tasks.
    """
    if len(data.shape) != 3:
        raise DataError(f"rotations need images of (channels, height, width), got inputs of {data.shape}")
    angles = [most * place / max(1, tasks - 1) for place in range(tasks)]
    made = [data, *(_changed(data, lambda x, a=angle: _turned(x, a), f"turned by {angle:g}°") for angle in angles[1:])]
    return Stream(tuple(made), tuple(f"{angle:g}°" for angle in angles), "domain")


def stream(kind: str, data: Data, tasks: int, *, cues: Sequence[Cue] = (), seed: int = 0) -> Stream:
    """A stream by name: one of :data:`STREAMS`; ``split`` is class-incremental, ``domain`` the same with shared labels.

    ``module:function`` or ``path/to/file.py:function`` names a function that returns a :class:`Stream`, or a benchmark
    of Avalanche (see :func:`from_avalanche`); data and tasks are then its own.

    Raises:
        SettingError: there is none of that name, or the data cannot be divided so.
        DataError: the function returns something else.
    """
    if ":" in kind:
        made = function(kind)()
        return made if isinstance(made, Stream) else from_avalanche(made, name=kind)
    if kind in ("split", "domain"):
        return split(data, tasks, scenario="class" if kind == "split" else "domain")
    if kind == "permuted":
        return permuted(data, tasks, seed=seed)
    if kind == "rotated":
        return rotated(data, tasks)
    if kind == "cues":
        return with_cues(data, cues[:tasks], seed=seed)
    raise SettingError(f"a stream must be one of {listed(STREAMS)}, got {kind}{near(kind, STREAMS)}")


def with_cues(data: Data, cues: Sequence[Cue], *, seed: int = 0) -> Stream:
    """The same images with another cue in every task. Domain-incremental."""
    return Stream(
        tuple(cued(data, [cue], seed=seed) for cue in cues), tuple(f"{cue.kind} cue" for cue in cues), "domain"
    )


def from_avalanche(benchmark: Any, *, name: str = "avalanche") -> Stream:
    """The experiences of an Avalanche benchmark as tasks.

    The benchmark is only read: ``train_stream`` and ``test_stream`` (or ``streams`` by those names) of experiences,
    whose ``dataset`` gives (input, class number, …) tuples. A single test experience serves all tasks. Avalanche itself
    is not needed; ``pip install isthmus[avalanche]`` brings it.

    Raises:
        DataError: it has no such streams, or items of other forms.
    """
    known = getattr(benchmark, "streams", None)
    both = [
        getattr(benchmark, f"{part}_stream", known.get(part) if isinstance(known, Mapping) else None)
        for part in ("train", "test")
    ]
    if any(part is None for part in both):
        raise DataError(
            f"an Avalanche benchmark must have a train_stream and a test_stream, got {type(benchmark).__name__}"
        )
    train, test = (list(part) for part in both if part is not None)
    if len(test) not in (1, len(train)):
        raise DataError(f"tests must be one, or one for each of {len(train)} experiences, got {len(test)}")
    parts = [(_gathered(a), _gathered(test[0] if len(test) == 1 else b)) for a, b in zip(train, test * len(train))]  # noqa: B905
    classes = 1 + max(int(targets.max()) for pair in parts for _, targets in pair)
    made = tuple(
        Data(*one, *other, classes=classes, name=f"{name}, experience {place}")
        for place, (one, other) in enumerate(parts)
    )
    seen = [set(one[1].tolist()) for one, _ in parts]
    scenario: Scenario = "domain" if all(labels == seen[0] for labels in seen) else "class"
    return Stream(made, tuple(f"experience {place}" for place in range(len(made))), scenario)


def _gathered(experience: Any) -> tuple[Tensor, Tensor]:
    try:
        items = [experience.dataset[place] for place in range(len(experience.dataset))]
        return torch.stack([torch.as_tensor(item[0]).float() for item in items]), torch.as_tensor(
            [int(item[1]) for item in items]
        )
    except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as problem:
        raise DataError(f"every experience needs a dataset of (input tensor, class number, …): {problem}") from problem


def _changed(data: Data, change: Any, name: str) -> Data:
    return dataclasses.replace(
        data,
        train_inputs=change(data.train_inputs),
        test_inputs=change(data.test_inputs),
        name=f"{data.name}, {name}",
    )


def _turned(images: Tensor, degrees: float) -> Tensor:
    """Images turned anticlockwise about their centre."""
    angle = math.radians(degrees)
    height, width = images.shape[2:]
    # Sampling positions are in half-sides, so an image that is not square needs the ratio of its sides.
    turn = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle) * height / width, 0.0],
            [math.sin(angle) * width / height, math.cos(angle), 0.0],
        ]
    ).to(images)
    grid = torch.nn.functional.affine_grid(turn.expand(len(images), -1, -1), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
