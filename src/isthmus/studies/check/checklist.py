"""What must be known of models before they are deployed, updated or merged, with a tick or a cross for each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from isthmus.core.checkpoint import metadata_of
from isthmus.core.errors import IsthmusError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval

Point = Literal["seeds", "order", "augmentation", "recipe", "versions", "data", "floors", "held_out", "chance"]
SEED_FIELDS = ("initialisation_seed", "order_seed", "augmentation_seed")


@dataclasses.dataclass(frozen=True)
class Origin(Record):
    """What is recorded of where a model comes from; ``None`` where nothing is.

    Attributes:
        recipe: of its training.
        versions: of the libraries that trained it.
        data: fingerprint of the data that it was trained on.
        source: where this was found.
    """

    recipe: Mapping[str, Any] | None = None
    versions: Mapping[str, Any] | None = None
    data: str | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Item(Record):
    """One point of the checklist.

    Attributes:
        point: which one; a page says in words what it means and why it matters.
        passed: tick or cross.
        models: those that fail it, by name; empty if it is passed.
        found: what was found, as plain values by model or by name.
    """

    point: Point
    passed: bool
    models: tuple[str, ...]
    found: Mapping[str, Any]


def origin_of(checkpoint: str | Path) -> Origin:
    """What is recorded beside or inside a checkpoint.

    Looked for in this order: the header of a ``.safetensors`` file, as ``isthmus train`` writes it; ``replicas.json``
    of the same folder; ``NAME.json`` beside ``NAME.safetensors`` with ``recipe`` and ``provenance``. What cannot be
    read is not recorded.
    """
    path = Path(checkpoint)
    try:
        header = metadata_of(path)
    except (IsthmusError, OSError):
        header = {}
    recipe = _mapping(header.get("recipe", ""))
    listing = _mapping(_text(path.parent / "replicas.json"))
    held_rows = listing.get("replicas")
    rows = held_rows if isinstance(held_rows, list) else []
    row = next((r for r in rows if isinstance(r, Mapping) and r.get("file") == path.name), None)
    beside = _mapping(_text(path.with_suffix(".json")))
    sources = [(row, listing.get("provenance"), "replicas.json")] if row else []
    sources += [(beside, beside.get("provenance"), path.with_suffix(".json").name)] if beside.get("recipe") else []
    place = path.name if recipe else ""
    versions: Any = None
    data: Any = None
    for held, listed, name in sources:
        recipe = recipe or _as_mapping(held.get("recipe"))
        made = _as_mapping(listed)
        versions, data = versions or _as_mapping(made.get("versions")) or None, data or made.get("data")
        place = place or name
    return Origin(recipe or None, versions, data if isinstance(data, str) else None, place)


def checklist(
    names: Sequence[str],
    origins: Sequence[Origin],
    *,
    fingerprint: str | None,
    held_out: bool,
    accuracies: Mapping[str, Interval],
    baseline: float,
    floors: Mapping[str, float],
    capabilities: Mapping[str, Mapping[str, float]],
) -> tuple[Item, ...]:
    """Go through all points.

    Args:
        names: of the models.
        origins: what is recorded of each.
        fingerprint: of the data used here; ``None`` if it is not known.
        held_out: whether the models are measured on data that they were not trained on.
        accuracies: of each model, by name.
        baseline: share of the most frequent class: what a model reaches that knows nothing.
        floors: accuracy that every model must reach, by capability; ``all`` is the accuracy on all examples.
        capabilities: accuracy by capability, by model.
    """
    known = dict(zip(names, origins, strict=True))
    seeds = {n: _fields(o, SEED_FIELDS) for n, o in known.items()}
    orders = {n: _fields(o, ("order_seed", "batch_size", "last_batch")) for n, o in known.items()}
    augmented = {n: _fields(o, ("augmentation",)) for n, o in known.items()}
    recipes = {n: _without_seeds(o) for n, o in known.items()}
    alike = {n: recipe is not None and recipe == recipes[names[0]] for n, recipe in recipes.items()}
    versions = {n: dict(o.versions or {}) for n, o in known.items()}
    prints = {n: o.data for n, o in known.items()}
    below = {
        f"{model}: {name}": rates.get(name)
        for model, rates in capabilities.items()
        for name, floor in floors.items()
        if not (name in rates and rates[name] >= floor)
    }
    at_chance = [n for n, interval in accuracies.items() if interval.low <= baseline]
    return (
        _item("seeds", {n: len(v) == len(SEED_FIELDS) for n, v in seeds.items()}, seeds),
        _item("order", {n: len(v) == 3 for n, v in orders.items()}, orders),
        _item("augmentation", {n: len(v) == 1 for n, v in augmented.items()}, augmented),
        _item("recipe", alike, {n: _differences(recipes[names[0]], recipe) for n, recipe in recipes.items()}),
        _item("versions", {n: bool(v) and v == versions[names[0]] for n, v in versions.items()}, versions),
        _item("data", {n: v is not None and v == fingerprint for n, v in prints.items()}, {**prints, "": fingerprint}),
        _item("held_out", {"": held_out}, {}),
        _item("chance", {n: n not in at_chance for n in names}, {"": baseline}),
        Item("floors", bool(floors) and not below, tuple(sorted({key.split(": ")[0] for key in below})),
             {"": dict(floors), **below}),
    )  # fmt: skip


def _item(point: Point, passed: Mapping[str, bool], found: Mapping[str, Any]) -> Item:
    failing = tuple(name for name, good in passed.items() if not good)
    return Item(point, not failing, tuple(name for name in failing if name), found)


def _fields(origin: Origin, wanted: Sequence[str]) -> dict[str, Any]:
    return {name: origin.recipe[name] for name in wanted if origin.recipe and name in origin.recipe}


def _without_seeds(origin: Origin) -> dict[str, Any] | None:
    if origin.recipe is None:
        return None
    return {name: value for name, value in origin.recipe.items() if not name.endswith("_seed")}


def _differences(first: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Any:
    """The settings of the one that are not those of the first; ``None`` where nothing is recorded."""
    if first is None or other is None:
        return None
    return {name: other.get(name) for name in {**first, **other} if first.get(name) != other.get(name)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _mapping(text: str) -> dict[str, Any]:
    try:
        return dict(_as_mapping(json.loads(text))) if text else {}
    except ValueError:
        return {}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
