"""From a design to the trainings and comparisons that it asks for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from isthmus.core.errors import SettingError, listed, near
from isthmus.core.randomness import child_seed
from isthmus.studies.factors.design import SEEDS, Design, Level, Replicates, StudyError
from isthmus.studies.factors.table import label
from isthmus.train import Recipe
from isthmus.train.choice import ENGINES

_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))
_SEED_FIELDS = tuple(f"{name}_seed" for name in SEEDS)

Shape = tuple[tuple[int, ...], int]

# Which field must be set for a seed to change anything.
_IDLE_WITHOUT: Mapping[str, str] = {
    "augmentation": "augmentation",
    "label_noise": "label_noise",
    "subset": "subset",
    "mask": "sparsity",
    "spawn": "spawn",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """One training in a study: its replicate, its number among the members, its recipe."""

    replicate: int
    member: int
    recipe: Recipe
    key: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two trainings that are compared, and the independent sets of seeds behind them."""

    units: tuple[int, ...]
    start: str
    end: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination of levels: its trainings and comparisons.

    Attributes:
        levels: factor → level.
        places: the trainings, replicate by replicate.
        comparisons: the pairs.
    """

    levels: Mapping[str, Level]
    places: tuple[Place, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def name(self) -> str:
        """The cell in words."""
        return label(self.levels)


def cells(design: Design, *, shapes: Mapping[str, Shape] | None = None) -> tuple[Cell, ...]:
    """Everything that a design asks for, checked before anything runs.

    Args:
        design: the study.
        shapes: data set → the shape of one input and the number of classes, which networks of the zoo are told unless
            their settings say otherwise.

    Raises:
        StudyError: a level is impossible, sets what another factor sets, or changes nothing; names the cell.
    """
    _refuse_unknown(design)
    _refuse_overlap(design)
    _refuse_holes(design)
    made = [_cell(design, combination, shapes or {}) for combination in _combinations(design)]
    owner: dict[frozenset[str], str] = {}
    for cell in made:
        same = owner.setdefault(frozenset(place.key for place in cell.places), cell.name)
        if same != cell.name:
            raise StudyError(f"cells must be different trainings, but {same} and {cell.name} are the same")
    return tuple(made)


def data_of(design: Design) -> tuple[str, ...]:
    """The data sets that a design trains on."""
    combined = [_merged(design, combination)[0] for combination in _combinations(design)]
    return tuple(dict.fromkeys(str(fields.get("data", Recipe().data)) for fields in combined))


def _combinations(design: Design) -> list[dict[str, Level]]:
    names = list(design.factors)
    return [
        dict(zip(names, levels, strict=True))
        for levels in itertools.product(*(factor.names for factor in design.factors.values()))
    ]


def _cell(design: Design, levels: Mapping[str, Level], shapes: Mapping[str, Shape]) -> Cell:
    fields, differ = _merged(design, levels)
    settings = dict(fields.get("settings", {}))
    shape = shapes.get(str(fields.get("data", Recipe().data)))
    if shape is not None and _takes_shape(fields.get("network", Recipe().network)):
        settings = {"inputs": list(shape[0]), "classes": shape[1], **settings}
    try:
        base = Recipe.from_dict({**fields, "settings": settings})
    except SettingError as problem:
        raise StudyError(f"the cell {label(levels)} is impossible: {problem}") from None
    _refuse_twins(base, differ, design.replicates, label(levels))
    places = tuple(
        _place(base, design.seed, replicate, member, differ)
        for replicate in range(design.replicates.count)
        for member in range(design.replicates.members)
    )
    return Cell(dict(levels), places, _comparisons(places, design.replicates))


def _place(base: Recipe, seed: int, replicate: int, member: int, differ: tuple[str, ...]) -> Place:
    """One training; seeds follow from the study's seed, the replicate and, where members differ, the member.

    Member 0 has the replicate's own seeds whatever differs, so that cells which differ only in ``differ`` share it.
    """
    seeds = {}
    for name in SEEDS:
        path = ("study", name, replicate, member) if name in differ and member else ("study", name, replicate)
        # 48 bits: far from any collision, and whole in readers of JSON that know only doubles.
        seeds[f"{name}_seed"] = child_seed(seed, *path) >> 15
    recipe = dataclasses.replace(base, **seeds)
    return Place(replicate, member, recipe, recipe.key())


def _comparisons(places: tuple[Place, ...], replicates: Replicates) -> tuple[Comparison, ...]:
    """Which pairs, and what is independent in them."""
    if replicates.pairs == "across":
        firsts = [place for place in places if place.member == 0]
        return tuple(Comparison((a.replicate, b.replicate), a.key, b.key) for a, b in itertools.combinations(firsts, 2))
    # One replicate alone has no independent repetition but its members: then these are the units.
    alone = replicates.count == 1
    return tuple(
        Comparison((a.member, b.member) if alone else (a.replicate,), a.key, b.key)
        for a, b in itertools.combinations(places, 2)
        if a.replicate == b.replicate
    )


def _merged(design: Design, levels: Mapping[str, Level]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The recipe fields of a cell, and what differs between members there."""
    fields: dict[str, Any] = {**design.recipe, "settings": dict(design.recipe.get("settings", {}))}
    differ = tuple(design.replicates.differ)
    parts = [_set_at(design, name, level) for name, level in levels.items()]
    parts += [one.set for one in design.combinations if all(levels[name] == level for name, level in one.of.items())]
    for part in parts:
        for field, value in part.items():
            if field == "differ":
                differ = tuple(value)
            elif field == "settings":
                fields["settings"] |= value
            elif field.startswith("settings."):
                fields["settings"][field.removeprefix("settings.")] = value
            else:
                fields[field] = value
    return fields, differ


def _set_at(design: Design, name: str, level: Level) -> Mapping[str, Any]:
    """The recipe fields that a level sets by itself; the levels of a combined factor may be plain words."""
    factor = design.factors[name]
    combined = any(name in one.of for one in design.combinations)
    if combined and not isinstance(factor.levels, dict) and name.partition(".")[0] not in _FIELDS:
        return {}
    return factor.settings(name, level)


def _refuse_unknown(design: Design) -> None:
    """Name the field that no recipe has, and the one that was probably meant."""
    if design.engine not in ENGINES:
        raise StudyError(
            f"engine must be one of {listed(ENGINES, 9)}, got {design.engine!r}{near(design.engine, ENGINES)}"
        )
    known = [name for name in _FIELDS if name not in _SEED_FIELDS]
    places = [(f"factors.{n}" if n in design.factors else "combinations", s) for n, s in _set_by(design).items()]
    for where, names in [("recipe", list(design.recipe)), *places]:
        for name in names:
            if name in _SEED_FIELDS:
                raise StudyError(f"{where} must leave seeds to the study (seed, replicates.differ), got {name}")
            if name.split(".")[0] not in (*known, "differ"):
                raise StudyError(f"{where} must set a field of a recipe, got {name!r}{near(name, known)}")
    for name, factor in design.factors.items():
        combined = [one.set for one in design.combinations if name in one.of]
        for level in [*(factor.levels.values() if isinstance(factor.levels, dict) else ()), *combined]:
            given = level.get("differ", [])
            if wrong := [seed for seed in given if seed not in SEEDS]:
                raise StudyError(
                    f"factors.{name}: differ must be some of {listed(SEEDS, 9)}, got {wrong[0]!r}"
                    f"{near(wrong[0], SEEDS)}"
                )


def _refuse_holes(design: Design) -> None:
    """A table over several factors must say what each of its cells is, once."""
    tables: dict[tuple[str, ...], list[dict[str, Level]]] = {}
    for one in design.combinations:
        if len(one.of) < 2:
            raise StudyError(f"combinations must be of two factors or more, got {label(one.of)}; use factors.levels")
        tables.setdefault(tuple(name for name in design.factors if name in one.of), []).append(one.of)
    for names, given in tables.items():
        for levels in itertools.product(*(design.factors[name].names for name in names)):
            wanted = dict(zip(names, levels, strict=True))
            if (times := given.count(wanted)) != 1:
                found = "it is missing" if not times else f"it is there {times} times"
                raise StudyError(
                    f"combinations of {' and '.join(names)} must name each cell once, but for {label(wanted)} {found}"
                )


def _refuse_overlap(design: Design) -> None:
    """Two factors that set one field would overwrite each other silently."""
    owner: dict[str, str] = {}
    for factor, names in _set_by(design).items():
        for name in names:
            if owner.setdefault(name, factor) != factor:
                raise StudyError(f"factors must set different fields, but {owner[name]} and {factor} both set {name}")


def _set_by(design: Design) -> dict[str, list[str]]:
    """Factor, or factors that are combined → the fields that any of their levels sets."""
    found = {
        name: list(dict.fromkeys(f for level in factor.names for f in _flat(_set_at(design, name, level))))
        for name, factor in design.factors.items()
    }
    for one in design.combinations:
        name = " and ".join(name for name in design.factors if name in one.of) + " together"
        found[name] = list(dict.fromkeys([*found.get(name, []), *_flat(one.set)]))
    return found


def _flat(fields: Mapping[str, Any]) -> list[str]:
    nested = fields.get("settings", {})
    inner = [f"settings.{name}" for name in nested] if isinstance(nested, Mapping) else ["settings"]
    return [*(name for name in fields if name != "settings"), *inner]


def _refuse_twins(base: Recipe, differ: tuple[str, ...], replicates: Replicates, cell: str) -> None:
    """Members whose differing seeds change nothing would be one network trained twice."""
    if replicates.members < 2:
        return
    idle = [name for name in differ if name in _IDLE_WITHOUT and not getattr(base, _IDLE_WITHOUT[name])]
    if len(idle) == len(differ):
        reason = f"{idle[0]} seeds change nothing while {_IDLE_WITHOUT[idle[0]]} is off" if idle else "differ is empty"
        raise StudyError(f"the members of a replicate must be different trainings, but in the cell {cell} {reason}")


def _takes_shape(network: Any) -> bool:
    """Whether the network is one of the zoo's, which are told the data's shape."""
    from isthmus.zoo.networks import is_network

    return isinstance(network, str) and is_network(network)
