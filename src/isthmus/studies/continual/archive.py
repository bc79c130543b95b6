"""The networks of a study as checkpoints that know where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.core.files import unwritable
from isthmus.core.history import Lineage, Parent, content_of, save_with_lineage
from isthmus.core.weights import Weights
from isthmus.studies.continual.arms import Bench, Ends
from isthmus.studies.continual.retention import ARMS


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
            made = Lineage("isthmus continual", tuple(of), {**(recipe or {}), "replica": replica}, data, known)
            save_with_lineage(weights, file, made)
            self._parents[name, replica] = Parent(content_of(weights), file.name)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


# network → what it was trained on from; and on which data.
_FROM = {"after": "first", "replay": "first"}
_ON = {"base": "base", "first": "first", "again": "first"}


def archived(
    archive: Archive, ends: Ends, bench: Bench, *, recipes: Mapping[str, Any], data: Mapping[str, str]
) -> None:
    """Write every trained network and every arm's merge at the middle, each with what it can do.

    Args:
        archive: where.
        ends: the networks.
        bench: measures them.
        recipes: of the ``base`` and of a ``task``.
        data: fingerprints of what ``base``, ``first`` and ``second`` were trained on.
    """

    def known(networks: Sequence[Weights]) -> dict[str, list[float]]:
        return {f"{of}, {probe}": values[:, 0].tolist() for (of, probe), values in bench.at(networks).items()}

    for name, networks in ends.networks.items():
        archive(
            name, networks, parents=() if name == "base" else (_FROM.get(name, "base"),),
            recipe=recipes["base" if name == "base" else "task"],
            data=data[_ON.get(name, "second")] if name not in ("joint", "replay") else None,
            capabilities=known(networks),
        )  # fmt: skip
    for arm in ARMS:
        middle = [bench.mixed(a, b) for a, b in zip(ends.start(arm), ends.end(arm), strict=True)]
        archive(
            f"merged {arm}", middle, parents=bench.ends_of(arm), base="base", recipe={"method": "linear", "t": 0.5},
            capabilities=known(middle),
        )  # fmt: skip
