"""A training on disk: the weights at chosen steps and the recipe that led to them.

::

    trajectory.json          the recipe, the versions, and which steps there are
    step-000100.safetensors  the weights after 100 optimiser steps; the recipe stands in its header too

Every file appears whole or not at all, so a training that is killed leaves a trajectory that can be read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.checkpoint import load, save
from isthmus.core.errors import CheckpointError, SettingError, listed
from isthmus.core.files import write_text
from isthmus.core.history import Lineage, stamped
from isthmus.core.provenance import provenance
from isthmus.core.record import plain, to_json
from isthmus.core.weights import Weights, stack

LISTING = "trajectory.json"
Seen = Callable[[], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A recorded training, as it lies in a folder.

    Attributes:
        folder: where.
        recipe: what the training was started with, as plain values.
        files: file name by step, in the order of the steps.
        finished: whether the training came to its end.
        provenance: versions, machine and command.
        resumed: the steps from which it went on after it had been cut off.
    """

    folder: Path
    recipe: Mapping[str, Any]
    files: Mapping[int, str]
    finished: bool
    provenance: Mapping[str, Any]
    resumed: tuple[int, ...] = ()

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        return f"<Trajectory in {self.folder}: steps {listed(map(str, self.steps)) or 'none'}; {state}>"

    @classmethod
    def open(cls, folder: str | Path) -> Trajectory:
        """Read what was recorded.

        Raises:
            CheckpointError: there is no trajectory, or it is damaged.
        """
        place = Path(folder)
        try:
            content = json.loads((place / LISTING).read_text(encoding="utf-8"))
            files = {int(step): str(name) for step, name in content["files"].items()}
            return cls(
                place,
                content["recipe"],
                dict(sorted(files.items())),
                content["finished"],
                content["provenance"],
                tuple(content.get("resumed", ())),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise CheckpointError(f"{place} must hold a trajectory with a readable {LISTING}: {problem}") from problem

    @property
    def steps(self) -> tuple[int, ...]:
        """The recorded steps, first to last."""
        return tuple(self.files)

    def weights(self, step: int, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """The weights after a step.

        Raises:
            SettingError: that step was not recorded.
        """
        if step not in self.files:
            raise SettingError(f"step must be one of those recorded ({', '.join(map(str, self.steps))}), got {step}")
        return load(self.folder / self.files[step], device=device)

    def stacked(self, steps: Sequence[int] | None = None, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """The weights of several steps (all by default) with a leading axis of times, as ``super_alignment`` takes.

        Raises:
            SettingError: a step was not recorded.
            CheckpointError: a file is damaged.
        """
        return stack([self.weights(step, device=device) for step in steps or self.steps])


@dataclasses.dataclass(eq=False)
class Recorder:
    """Writes a trajectory while a training runs; what the callbacks are made of, and for loops of your own.

    Attributes:
        folder: where; a new one, or that of the same training, which then goes on.
        at: steps to record; 0 is the initialisation.
        every: also every so many steps.
        last: also the end.

    Example:
        >>> import tempfile
        >>> module = torch.nn.Linear(2, 1)
        >>> recorder = Recorder(tempfile.mkdtemp(), at=(0, 2))
        >>> recorder.start({"rate": 0.1})
        >>> for step in range(4):
        ...     recorder.seen(step, module.state_dict)
        >>> recorder.finish(3, module.state_dict)
        >>> Trajectory.open(recorder.folder).steps
        (0, 2, 3)
    """

    folder: str | Path
    _: dataclasses.KW_ONLY
    at: Sequence[int] = (0,)
    every: int | None = None
    last: bool = True
    _recipe: str = dataclasses.field(default="", init=False, repr=False)
    _about: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self.at = tuple(index(step) for step in self.at)
        except TypeError:
            raise SettingError(f"at must be whole steps, such as (0, 100), got {self.at!r}") from None
        if any(step < 0 for step in self.at):
            raise SettingError(f"at must be steps from 0 on, got {min(self.at)}")
        if self.every is not None and (not isinstance(self.every, int) or self.every < 1):
            raise SettingError(f"every must be a whole number of steps, at least 1, got {self.every!r}")

    @property
    def started(self) -> bool:
        """Whether the recipe is written."""
        return bool(self._about)

    def start(self, recipe: Mapping[str, Any], *, step: int | None = None, limits: Sequence[str] = ()) -> None:
        """Write down the recipe before the first step.

        Args:
            recipe: plain values, by name.
            step: the step after which the training goes on; 0 at its beginning. What the folder holds of later steps
                comes from an attempt that was given up, and is removed. ``None``: everything there is kept.
            limits: fields such as ``arguments.max_steps`` that only say when to stop, which a training that goes on
                may change. Fields that it gives as ``None`` are kept as they were.

        Raises:
            SettingError: the folder holds another training, or the recipe holds more than plain values.
            UnwritableError: the folder cannot be written.
        """
        try:
            values = plain(dict(recipe))
        except TypeError as problem:
            raise SettingError(f"recipe must hold numbers, text, lists and mappings of them: {problem}") from None
        files: dict[int, str] = {}
        resumed: list[int] = []
        if (Path(self.folder) / LISTING).exists():
            before = Trajectory.open(self.folder)
            if step:
                values = {name: before.recipe.get(name) if value is None else value for name, value in values.items()}
            self._same(before.recipe, values, limits if step else ())
            files, resumed = dict(before.files), list(before.resumed)
        given_up = {late: name for late, name in files.items() if step is not None and late > step}
        self._recipe = to_json(values, indent=None)
        self._about = {
            "recipe": values,
            "files": {early: name for early, name in files.items() if early not in given_up},
            "resumed": [*(one for one in resumed if step is None or one < step), *([step] if step else [])],
            "finished": False,
            "provenance": provenance(),
        }
        self._write()  # first the list, so that it never names a file that is gone
        for name in given_up.values():
            (Path(self.folder) / name).unlink(missing_ok=True)

    def _same(self, there: Mapping[str, Any], here: Mapping[str, Any], limits: Sequence[str]) -> None:
        """Refuse a folder whose training has another recipe."""
        old, new = _flat(there), _flat(here)
        differ = [name for name in {**old, **new} if name not in limits and old.get(name) != new.get(name)]
        if not differ:
            return
        name = differ[0]
        what = f"with another {name} ({_short(old.get(name))} there, {_short(new.get(name))} here)"
        if name == "start":
            what = "that started from other weights"
        raise SettingError(f"{self.folder} holds a training {what}; choose another folder for this one")

    def wants(self, step: int) -> bool:
        """Whether a step is one of those chosen."""
        return step in self.at or (self.every is not None and step % self.every == 0)

    def seen(self, step: int, weights: Seen, *, since: int | None = None) -> None:
        """Record a step if it is one of those chosen; ``weights`` is only called then.

        Where a loop counts several steps at once (two optimisers in turn), ``since`` is the step seen before: this one
        is recorded, under its own number, if one of those chosen lies after that.
        """
        if any(self.wants(passed) for passed in range(step if since is None else since + 1, step + 1)):
            self._record(step, weights())

    def finish(self, step: int, weights: Seen) -> None:
        """The training is over after this step."""
        if self.last and step not in self._about["files"]:
            self._record(step, weights())
        self._about["finished"] = True
        self._write()

    def _record(self, step: int, weights: Mapping[str, Any]) -> None:
        name = f"step-{step:06d}.safetensors"
        header = {"recipe": self._recipe, "step": str(step)}
        lineage = stamped(Lineage("isthmus.integrations.Recorder", recipe={**self._about["recipe"], "step": step}))
        save(_whole(weights), Path(self.folder) / name, metadata={**header, **lineage.header()})
        self._about["files"][step] = name
        self._write()

    def _write(self) -> None:
        write_text(Path(self.folder) / LISTING, to_json({"kind": "Trajectory", **self._about}))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _whole(weights: Mapping[str, Any]) -> Weights:
    """The tensors of a state dict; those of a model that is spread over machines are refused, never half written."""
    found = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if spread := [name for name, value in found.items() if hasattr(value, "full_tensor") or value.is_meta]:
        raise CheckpointError(
            f"a trajectory must be recorded from whole tensors, but {spread[0]} is spread over processes; gather the "
            "state dict first"
        )
    return found
