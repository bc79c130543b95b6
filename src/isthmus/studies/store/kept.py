"""What a store takes and gives: a trained network on its way in, and a run as it is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError
from isthmus.core.history import Lineage
from isthmus.core.record import Record, to_json
from isthmus.core.weights import Weights
from isthmus.studies.store.rows import Row, append_rows


class StoreError(IsthmusError):
    """A store is missing, of another version, or damaged."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """One trained network on its way into the store.

    Attributes:
        key: the recipe's key.
        recipe: the recipe as plain values.
        moments: weights by moment; ``final`` must be there, others may be ``step-100`` or ``mask``.
        rows: what the training itself measured, such as its status.
        provenance: versions, machine, engine, seconds.
    """

    key: str
    recipe: Mapping[str, Any]
    moments: Mapping[str, Weights]
    rows: tuple[Row, ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """All but the weights, as plain values."""
        values = {"key": self.key, "recipe": self.recipe, "provenance": self.provenance, "rows": self.rows}
        return json.loads(to_json(values))


@dataclasses.dataclass(frozen=True)
class Run(Record):
    """What the store holds of one training, without its weights.

    Attributes:
        key: the recipe's key.
        recipe: the recipe as plain values.
        provenance: how it was made.
        group: the group whose stacked file holds the weights, or ``None``.
        index: the slice of that file.
        moments: the digest of the weights at each moment.
        rows: everything measured so far.
    """

    key: str
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]
    group: str | None
    index: int
    moments: Mapping[str, str]
    rows: tuple[Row, ...]


def write_run(folder: Path, member: Mapping[str, Any], group: str | None) -> None:
    """The small files of a run, into a folder that nobody sees yet."""
    place = {"group": group, "index": member["index"], "moments": member["moments"]}
    for name, content in (
        ("recipe.json", member["recipe"]),
        ("provenance.json", member["provenance"]),
        ("weights.json", place),
    ):
        (folder / name).write_text(to_json(content) + "\n", encoding="utf-8")
    append_rows(folder / "measures.jsonl", [Row(**row) for row in member["rows"]])


def lineage_of(recipe: Mapping[str, Any], made: Mapping[str, Any], moment: str) -> Lineage:
    """Where the weights of a training at a moment come from: its recipe and its data, no other weights."""
    return Lineage(
        "isthmus study",
        recipe={**recipe, "moment": moment},
        data=made.get("data") if isinstance(made.get("data"), str) else None,
        created=str(made.get("created", "")),
        versions=made["versions"] if isinstance(made.get("versions"), Mapping) else {},
    )


def lineage_of_group(members: Sequence[Trained], moment: str) -> Lineage:
    """Where a stacked file comes from: one recipe, with a list for what differs, in the order of the slices."""
    recipes = [member.recipe for member in members]
    together = {name: [one.get(name) for one in recipes] for name in recipes[0]}
    shared = {
        name: values[0] if all(one == values[0] for one in values) else values for name, values in together.items()
    }
    return lineage_of(shared, members[0].provenance, moment)


def read_json(path: Path) -> Any:
    """What a small file of a store says.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise StoreError(
            f"{path} must be whole JSON, but is missing or damaged; check the store: isthmus runs verify"
        ) from problem
