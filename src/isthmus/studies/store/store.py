"""The store: one folder for each recipe key, safe with several processes and on network file systems.

::

    store.json                     version of the layout
    runs/<key>/recipe.json         the training, in full
    runs/<key>/weights.json        where its weights lie: alone in this folder, or one slice of a group's stacked file
    runs/<key>/weights.safetensors   only for a network that was trained alone
    runs/<key>/measures.jsonl      one measured value a line; grows
    runs/<key>/provenance.json     how and where it was made
    groups/<id>/                   networks that were trained together: stacked weights, and all that their runs hold
    engines/<kind>                 which engine was found fastest for groups of a kind, so that others follow it
    claims/                        locks of pieces of work, empty
    studies/<name>.json            which runs belong to which study
    progress/<name>.json           how far the latest run of a study is
    results/<name>.json            results of whole questions about runs, to be drawn as pages
    index.sqlite                   a cache for listings; may be deleted at any time

The folders are the truth. A run or a group appears by one rename, whole; a group that lost its process between its own
rename and those of its runs is completed by whoever opens the store next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core import checkpoint
from isthmus.core.errors import IsthmusError, UnwritableError, listed
from isthmus.core.files import atomic_folder, write_text
from isthmus.core.record import to_json
from isthmus.studies.store.kept import Run, StoreError, Trained, lineage_of, lineage_of_group, read_json, write_run
from isthmus.studies.store.locks import claimed
from isthmus.studies.store.rows import Row, append_rows, read_rows
from isthmus.studies.store.stacked import FINAL, digest, file_name, group_id, read_slice, same_shapes, write_weights

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Store:
    """Results of trainings under one folder. Make one with :meth:`open`."""

    path: Path

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> Store:
        """Open a store, or make one where ``create`` says so and there is nothing yet.

        Raises:
            StoreError: there is none, something else is there, or it is of another version.
        """
        root = Path(path)
        marker = root / "store.json"
        if not marker.exists():
            _refuse_other_content(root, create=create)
            write_text(marker, json.dumps({"isthmus store": VERSION}) + "\n")
        try:
            version = json.loads(marker.read_text(encoding="utf-8"))["isthmus store"]
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise StoreError(
                f"{marker} must say the store's version, but cannot be read; is {root} a store?"
            ) from problem
        if version != VERSION:
            remedy = (
                "upgrade isthmus" if isinstance(version, int) and version > VERSION else "use the isthmus that made it"
            )
            raise StoreError(
                f"the store {root} must be of version {VERSION}, got {version}; {remedy} or name another store"
            )
        store = cls(root)
        # A full disk or a folder of somebody else's can still be read; whoever writes next completes the groups.
        with contextlib.suppress(UnwritableError):
            store.complete_groups()
        return store

    @property
    def keys(self) -> list[str]:
        """The keys of all runs, sorted."""
        runs = self.path / "runs"
        return sorted(entry.name for entry in runs.iterdir() if not entry.name.startswith(".")) if runs.is_dir() else []

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and (self.folder(key) / "weights.json").exists()

    def __len__(self) -> int:
        return len(self.keys)

    def folder(self, key: str) -> Path:
        """The folder of a run."""
        return self.path / "runs" / key

    def find(self, prefix: str) -> str:
        """The one key that starts with ``prefix``.

        Raises:
            StoreError: none or several do.
        """
        matches = [key for key in self.keys if key.startswith(prefix)]
        if len(matches) != 1:
            given = f"{len(matches)} match: {listed([key[:12] for key in matches])}" if matches else "none match"
            raise StoreError(f"{prefix!r} must be the start of exactly one run's key in {self.path}, but {given}")
        return matches[0]

    def run(self, key: str) -> Run:
        """Everything about one run but its weights.

        Raises:
            StoreError: there is no such run, or it is damaged.
        """
        place = self._place(key)
        folder = self.folder(key)
        recipe, provenance = (read_json(folder / name) for name in ("recipe.json", "provenance.json"))
        rows = tuple(read_rows(folder / "measures.jsonl"))
        return Run(key, recipe, provenance, place["group"], place["index"], place["moments"], rows)

    def group_of(self, key: str) -> str | None:
        """The group whose stacked file holds the weights of a run; ``None`` for a network that was trained alone."""
        return self._place(key)["group"]

    def status(self, key: str) -> str:
        """How the training of a run ended: the word of a :class:`isthmus.Status`."""
        return str(read_json(self.folder(key) / "provenance.json").get("status", "unknown"))

    def rows(self, key: str) -> list[Row]:
        """Everything measured on one run so far.

        Raises:
            StoreError: there is no such run.
        """
        if key not in self:
            raise StoreError(f"the store {self.path} must hold run {key[:12]} to read its measures, but it does not")
        return read_rows(self.folder(key) / "measures.jsonl")

    def moments(self, key: str) -> list[str]:
        """The moments of training whose weights were kept; ``final`` comes last."""
        return sorted(self._place(key)["moments"], key=lambda moment: (moment == FINAL, moment))

    def weights(self, key: str, *, moment: str = FINAL, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """The weights of one run; of a group's stacked file only this run's slice is read.

        Raises:
            StoreError: no such run or moment, or the file is damaged.
        """
        place = self._place(key)
        if moment not in place["moments"]:
            raise StoreError(f"moment must be one of {listed(place['moments'])} for run {key[:12]}, got {moment!r}")
        if place["group"] is None:
            return checkpoint.load(self.folder(key) / file_name(moment), device=device)
        return read_slice(self.group_folder(place["group"]) / file_name(moment), place["index"], device=device)

    def add(self, members: Sequence[Trained]) -> None:
        """Keep networks that were trained together; all of them or none are there afterwards. What is there stays.

        Raises:
            IsthmusError: the disk is full or cannot be written; nothing half-written is left.
        """
        if not members:
            return
        if len(members) == 1 or not same_shapes([member.moments for member in members]):
            for member in members:
                self._add_alone(member)
            return
        digests = [{moment: digest(weights) for moment, weights in member.moments.items()} for member in members]
        identity = group_id([member.key for member in members], digests)
        content = [
            {**member.described(), "moments": digests[index], "index": index} for index, member in enumerate(members)
        ]
        if not self.group_folder(identity).exists():
            with _already_there_is_fine(self.group_folder(identity)) as folder:
                for moment in members[0].moments:
                    weights = [member.moments[moment] for member in members]
                    about = lineage_of_group(members, moment).header()
                    write_weights(weights, folder / file_name(moment), metadata=about)
                (folder / "group.json").write_text(to_json(content), encoding="utf-8")
        self._complete(identity)

    def record(self, key: str, rows: Iterable[Row]) -> None:
        """Add measured values to a run; the values are on disk when this returns.

        Raises:
            StoreError: there is no such run.
        """
        if key not in self:
            raise StoreError(f"the store {self.path} must hold run {key[:12]} to record its measures, but it does not")
        append_rows(self.folder(key) / "measures.jsonl", rows)

    def claim(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Try to reserve a piece of work among all users of this store; a killed process gives it back."""
        return claimed(self.path / "claims" / f"{name}.lock")

    def remember_study(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep which runs a study uses, and its design; the latest of a name counts."""
        write_text(self.path / "studies" / f"{name}.json", to_json(content) + "\n")

    def studies(self) -> dict[str, dict[str, Any]]:
        """The studies that used this store, by name."""
        folder = self.path / "studies"
        return {file.stem: read_json(file) for file in sorted(folder.glob("*.json"))} if folder.is_dir() else {}

    def members_of(self, study: str) -> tuple[str, ...]:
        """The keys of a study's runs that are in the store.

        Raises:
            StoreError: no study of that name used the store.
        """
        known = self.studies()
        if study not in known:
            raise StoreError(f"study must be one that used {self.path} ({listed(known) or 'none did'}), got {study!r}")
        return tuple(key for key in known[study]["keys"] if key in self)

    def choice(self, kind: str) -> str | None:
        """Which engine trains groups of a kind, if one was chosen before."""
        file = self.path / "engines" / kind
        return file.read_text(encoding="utf-8").strip() if file.exists() else None

    def remember_choice(self, kind: str, engine: str) -> None:
        """Keep the choice of an engine; what was chosen first stays."""
        if self.choice(kind) is None:
            write_text(self.path / "engines" / kind, engine + "\n")

    def group_folder(self, identity: str) -> Path:
        """The folder of a group of networks that were trained together."""
        return self.path / "groups" / identity

    def groups(self) -> list[str]:
        """The identities of all groups."""
        folder = self.path / "groups"
        return sorted(e.name for e in folder.iterdir() if not e.name.startswith(".")) if folder.is_dir() else []

    def open_groups(self) -> list[str]:
        """Groups whose runs are not all there yet."""
        return [name for name in self.groups() if not (self.group_folder(name) / "complete").exists()]

    def complete_groups(self) -> int:
        """Make the runs of groups whose process was killed before it could; returns how many groups that were."""
        open_groups = self.open_groups()
        for identity in open_groups:
            self._complete(identity)
        return len(open_groups)

    def _complete(self, identity: str) -> None:
        """Make the runs of a group from what the group itself says of them."""
        for member in read_json(self.group_folder(identity) / "group.json"):
            if member["key"] not in self:
                with _already_there_is_fine(self.folder(member["key"])) as folder:
                    write_run(folder, member, identity)
        write_text(self.group_folder(identity) / "complete", "")

    def _add_alone(self, member: Trained) -> None:
        if member.key in self:
            return
        digests = {moment: digest(weights) for moment, weights in member.moments.items()}
        with _already_there_is_fine(self.folder(member.key)) as folder:
            for moment, weights in member.moments.items():
                about = lineage_of(member.recipe, member.provenance, moment).header()
                checkpoint.save(weights, folder / file_name(moment), metadata={"recipe": member.key, **about})
            write_run(folder, {**member.described(), "moments": digests, "index": 0}, None)

    def _place(self, key: str) -> dict[str, Any]:
        if key not in self:
            raise StoreError(f"the store {self.path} must hold run {key[:12]}, but it does not; train it first")
        return read_json(self.folder(key) / "weights.json")


@contextlib.contextmanager
def _already_there_is_fine(target: Path) -> Iterator[Path]:
    """``atomic_folder`` for content that is the same whoever writes it: who comes second leaves the first alone."""
    try:
        with atomic_folder(target) as folder:
            yield folder
    except IsthmusError:
        if not target.exists():
            raise


def _refuse_other_content(root: Path, *, create: bool) -> None:
    if not create:
        raise StoreError(
            f"a store must exist at {root}, but there is none; run a study with --store {root} to make one"
        )
    if root.is_file() or (root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir())):
        raise StoreError(f"a new store needs a folder that is empty or does not exist, got {root} with other content")


def result_name(study: str) -> str:
    """The name, in the store's folder ``results``, under which a study keeps what came out of it."""
    return f"study-{study}"
