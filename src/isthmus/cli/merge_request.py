"""What one merge is asked for, as every way to make it reads it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import inputs

if TYPE_CHECKING:
    from isthmus.cli.inputs import Case
    from isthmus.merge.configuration import Configuration

ALIGNMENTS = ("none", "weights", "activations")


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """Checkpoints, the place for their merge, the method, and the network and data that measure it, if there are any.

    Attributes:
        paths: of the checkpoints; folders of several stand for what is in them.
        output: where the merge goes.
        method: its name.
        settings: of the method, those that were given: ``weight``, ``density``, ``t``, ``scale``, ``dtype``.
        align: how the models are permuted first.
        base: the checkpoint that they started from.
        model: the network, in the words of ``--model``.
        data: that it is measured on, in the words of ``--data``.
        data_dir: where the data's files are.
        examples: of each split at most.
        seed: of what is drawn at random.
        device: where networks run.
        unsafe_pickle: run pickles in full.
    """

    paths: list[str]
    output: Path
    method: str
    settings: Mapping[str, Any]
    align: str = "none"
    base: str | None = None
    model: str | None = None
    data: str | None = None
    data_dir: str | None = None
    examples: int | None = None
    seed: int = 0
    device: str = "auto"
    unsafe_pickle: bool = False

    @property
    def measurable(self) -> bool:
        """Whether the network and the data are known."""
        return self.model is not None and self.data is not None

    def chosen(self) -> dict[str, Any]:
        """What was said of the way to merge, by the names of the options; ``None`` where it is as without a word."""
        return {
            "method": None if self.method == "linear" else self.method,
            "align": None if self.align == "none" else self.align,
            **self.settings,
            "t": None if self.settings["t"] == 0.5 else self.settings["t"],
        }

    @functools.cached_property
    def case(self) -> Case:
        """The network with the checkpoints and the data; read once, when the first asks."""
        return inputs.case(
            self.paths, model=str(self.model), data=str(self.data), data_dir=self.data_dir, examples=self.examples,
            device=self.device, unsafe_pickle=self.unsafe_pickle,
        )  # fmt: skip

    @property
    def needs_data(self) -> bool:
        """Whether the merge itself looks at what the network answers."""
        from isthmus.cli.merge_memory import NEED_DATA

        return self.method in NEED_DATA or self.align != "none"

    def checked(self) -> Request:
        """The same, if its words are known and go together.

        Raises:
            SettingError: they do not.
        """
        from isthmus.cli.merge_memory import IN_MEMORY
        from isthmus.core.errors import SettingError
        from isthmus.merge.configuration import METHODS

        if self.align not in ALIGNMENTS:
            raise SettingError(f"align must be none, weights or activations, got {self.align}")
        if self.method not in METHODS and self.method not in IN_MEMORY:
            raise SettingError(f"method must be one of {', '.join([*METHODS, *IN_MEMORY])}, got {self.method}")
        if self.needs_data and not self.measurable:
            raise SettingError(
                f"{self.method} with align={self.align} needs a network and data: give --model and --data"
            )
        if self.base is not None and self.align != "none":
            raise SettingError(
                "an aligned model no longer has the base that it started from; give either --base or --align"
            )
        return self

    def told_by(self, recipe: Configuration) -> Request:
        """The same, with the checkpoints that a configuration names where the words name none."""
        return dataclasses.replace(self, paths=self.paths or recipe.solutions, base=self.base or recipe.base_model)
