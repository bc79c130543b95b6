"""The graph of updates and merges behind checkpoints: who was made from whom, how, and what each can do.

Checkpoints are known by their content. What their records claim is read with suspicion (:mod:`isthmus.core.history`);
parents that no file was given for stay in the graph as unknown.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import CheckpointError, IsthmusError
from isthmus.core.folders import checkpoints_in
from isthmus.core.history import KEY, Lineage, beside, printable, read_lineage
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.merge.parents import content_of_file

# More cannot be read from a picture; the list in the result holds all.
_MOST = 2000


@dataclasses.dataclass(frozen=True)
class Node(Record):
    """One set of weights.

    Attributes:
        content: its identity.
        name: of its first file, or what its children call it where there is none.
        files: all files that hold these weights.
        known: whether a file was given.
        generation: 0 without known or unknown parents, else one more than that of its latest parent.
        lineage: its record, if it has one that holds.
        notes: what is odd about its records, by key: ``no_record``, ``other_content``, ``equals_parent``.
    """

    content: str
    name: str
    files: tuple[str, ...]
    known: bool
    generation: int
    lineage: Lineage | None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Edge(Record):
    """One step: ``child`` was made from ``parent``; both are identities."""

    parent: str
    child: str
    role: str
    made_by: str


@dataclasses.dataclass(frozen=True)
class History(Record):
    """Checkpoints and how they were made from each other.

    Attributes:
        nodes: the earliest generation first.
        edges: every step.
        unread: files that were found but are no readable checkpoints, with the reason.
        provenance: versions, machine, command.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    unread: tuple[tuple[str, str], ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def node(self, content: str) -> Node:
        """The node of an identity."""
        return next(node for node in self.nodes if node.content == content)


def history(paths: Sequence[str | Path], *, unsafe_pickle: bool = False, progress: Progress = silent) -> History:
    """Read checkpoints and draw together what their records say.

    Args:
        paths: checkpoints, or folders that are searched for them, with all folders inside.
        unsafe_pickle: as for :func:`isthmus.core.checkpoint.load`.
        progress: told after every file.

    Raises:
        CheckpointError: nothing is there, or no file is a checkpoint.

    Cost: each file is read once to know its content (large ones in part); torch files are loaded whole, one at a time.
    """
    files = list(dict.fromkeys(file for path in paths for file in _files(Path(path))))
    if not files:
        raise CheckpointError(f"a history needs at least one checkpoint, found none in {printable(paths[0])}")
    entries: list[_Entry] = []
    unread = []
    for place, file in enumerate(files):
        try:
            content = content_of_file(file, unsafe_pickle=unsafe_pickle)
            entries.append(_Entry(file, content, _records(file, content)))
        except (IsthmusError, OSError) as problem:
            unread.append((printable(file.name), printable(str(problem))))
        progress(place + 1, len(files), file.name)
    if not entries:
        raise CheckpointError(f"a history needs at least one readable checkpoint; {unread[0][1]}")
    return dataclasses.replace(_graph(entries[:_MOST], unread), provenance=provenance())


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One file, the identity of what it holds, and the records that speak of it, the newest first."""

    file: Path
    content: str
    records: tuple[Lineage, ...]

    @property
    def held(self) -> list[Lineage]:
        """The records that can be so: of these weights, or of no weights in particular."""
        return [record for record in self.records if record.content in ("", self.content)]

    @property
    def name(self) -> str:
        """The file's name, with its folder's where the name alone tells nothing."""
        told = self.file.name in ("model.safetensors", "pytorch_model.bin", "model.pt")
        return self.longer if told else printable(self.file.name)

    @property
    def longer(self) -> str:
        """The file's name with its folder's."""
        return printable(f"{self.file.parent.name}/{self.file.name}")


def _records(file: Path, content: str) -> tuple[Lineage, ...]:
    """What stands beside a checkpoint, which may be newer, in its folder, and in its header."""
    from isthmus.core.checkpoint import metadata_of

    texts = [_text(beside(file))]
    try:
        shards = sorted(file.glob("*.safetensors"))[:1] if file.is_dir() else [file]
        texts += [metadata_of(part).get(KEY, "") for part in shards]
    except (IsthmusError, OSError, ValueError):
        pass
    found = [record for record in map(read_lineage, texts) if record is not None]
    # The record of a folder is of one of the checkpoints in it; of which, its content says.
    shared = read_lineage(_text(file.parent / "history.json"))
    return tuple(([shared] if shared is not None and shared.content == content else []) + found)


def _text(file: Path) -> str:
    try:
        small = file.is_file() and file.stat().st_size <= 1 << 20
        return file.read_text(encoding="utf-8", errors="replace") if small else ""
    except OSError:
        return ""


def _graph(entries: Sequence[_Entry], unread: Sequence[tuple[str, str]]) -> History:
    of: dict[str, list[_Entry]] = {}
    for entry in entries:
        of.setdefault(entry.content, []).append(entry)
    names: dict[str, str] = {}
    edges: dict[tuple[str, str, str], Edge] = {}
    notes: dict[str, list[str]] = {content: [] for content in of}
    records: dict[str, Lineage] = {}
    for content, same in of.items():
        held = [record for entry in same for record in entry.held]
        if not held:
            notes[content].append("other_content" if any(entry.records for entry in same) else "no_record")
            continue
        records[content] = held[0]
        for lineage in held:
            for parent in lineage.parents:
                if parent.content == content:
                    notes[content].append("equals_parent")
                    continue
                names.setdefault(parent.content, parent.name)
                step = Edge(parent.content, content, parent.role, lineage.made_by)
                edges.setdefault((step.parent, step.child, step.role), step)
    everything = list(dict.fromkeys([*names, *of]))
    generation = _generations(everything, edges.values())
    first = {content: same[0] for content, same in of.items()}
    often = collections.Counter(entry.name for entry in first.values())
    nodes = []
    for content in everything:
        entry = first.get(content)
        name = names.get(content) or content[:15]
        if entry is not None:
            name = entry.name if often[entry.name] == 1 else entry.longer
        nodes.append(
            Node(
                content, name, tuple(printable(one.file) for one in of.get(content, ())), entry is not None,
                generation[content], records.get(content), tuple(dict.fromkeys(notes.get(content, ()))),
            )
        )  # fmt: skip
    nodes.sort(key=lambda node: (node.generation, node.name, node.content))
    return History(tuple(nodes), tuple(edges.values()), tuple(unread))


def _generations(contents: Sequence[str], edges: Iterable[Edge]) -> dict[str, int]:
    """Longest way from a root; records that claim a circle are followed no further than there are nodes."""
    parents: dict[str, list[str]] = {content: [] for content in contents}
    for edge in edges:
        parents[edge.child].append(edge.parent)
    found = dict.fromkeys(contents, 0)
    for _ in contents:
        moved = {c: 1 + max(found[p] for p in of) for c, of in parents.items() if of}
        if all(found[content] == value for content, value in moved.items()):
            break
        found |= {content: min(value, len(contents)) for content, value in moved.items()}
    return found


def _files(path: Path) -> list[Path]:
    """The checkpoints that a path means: itself, or all in it and its folders."""
    if not path.exists():
        raise CheckpointError(f"a checkpoint must exist, but there is nothing at {printable(path)}")
    if path.is_file():
        return [path]
    if any(path.glob("*.safetensors.index.json")):
        return [path]
    here = checkpoints_in(path)
    inside = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.is_symlink())
    return [*here, *(file for folder in inside for file in _files(folder))]
