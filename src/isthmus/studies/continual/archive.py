"""The networks of a study as checkpoints that know where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.core.files import unwritable
from isthmus.core.history import Descent, Parent, content_of, save_with_descent
from isthmus.core.weights import Weights


class Archive:
    """A folder with one checkpoint for each network and replica, each with its parents, recipe and capabilities.

    Args:
        folder: made if it is not there; must not hold checkpoints of an earlier run.

    Raises:
        SettingError: it does.
        IsthmusError: it cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._parents: dict[tuple[str, int], Parent] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise unwritable(self.folder, problem) from problem
        if any(self.folder.glob("*.safetensors")):
            raise SettingError(f"networks are saved into a folder without checkpoints, but {self.folder} holds some")

    def __call__(
        self,
        name: str,
        networks: Sequence[Weights],
        *,
        parents: Sequence[str] = (),
        base: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        data: str | None = None,
        capabilities: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Write one kind of network, all replicas.

        Args:
            name: of the kind, such as ``first`` or ``merged parallel``.
            networks: one for each replica.
            parents: names of earlier kinds that it was made from.
            base: name of the kind that a merge's task vectors start from.
            recipe: what was chosen.
            data: fingerprint of the data that it was trained on.
            capabilities: accuracies by name, one for each replica.
        """
        for replica, weights in enumerate(networks):
            file = self.folder / f"{_file_name(name)}-{replica}.safetensors"
            of = [self._parents[parent, replica] for parent in parents]
            if base is not None:
                start = self._parents[base, replica]
                of.append(Parent(start.content, start.name, "base"))
            known = {key: float(values[replica]) for key, values in (capabilities or {}).items()}
            made = Descent("isthmus continual", tuple(of), {**(recipe or {}), "replica": replica}, data, known)
            save_with_descent(weights, file, made)
            self._parents[name, replica] = Parent(content_of(weights), file.name)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
