"""Any result as figures and a table, read off its fields alone; for kinds that have no section of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.page import Figure, Section, Table

# Fields that are an axis for others of their length, the most telling first.
_AXES = ("positions", "steps", "at", "lags", "edges", "x", "densities", "widths", "times")
_NAMES = ("names", "labels", "layers", "tensors")
_MOST_FIGURES, _MOST_POINTS = 8, 400  # beyond that nobody looks, and a notebook grows slow


def plain_section(values: Mapping[str, Any]) -> Section:
    """A section with a line for each vector, a map for each matrix, bars for named numbers, and a table of the rest.

    Titles are the names of the fields: their meaning stands in the docstring of the result's class.

    Args:
        values: what ``to_dict()`` gave.
    """
    fields = {name: value for name, value in values.items() if name not in ("kind", "provenance")}
    drawn = {name: figure for name, value in fields.items() if (figure := _figure(name, value, fields)) is not None}
    rest = [[_title(name), _cell(value)] for name, value in fields.items() if name not in drawn]
    return Section(
        title=str(values.get("kind", "Result")),
        figures=list(drawn.values())[:_MOST_FIGURES],
        tables=[Table("", ["", ""], [row for row in rest if row[1] is not None])] if rest else [],
    )


def _figure(name: str, value: Any, fields: Mapping[str, Any]) -> Figure | None:
    if name in _AXES:
        return None
    if _is_vector(value):
        rows = _points({"": value}, fields)
        return _lines(name, rows, fields, len(value)) if rows else None
    if _is_matrix(value):
        return _map(name, value, fields) if len(value) > 12 or _square(value) else _many(name, value, fields)
    if isinstance(value, Mapping) and value:
        if all(_is_number(entry) for entry in value.values()) and len(value) > 1:
            rows = [{"name": str(key), "value": entry, "series": _title(name)} for key, entry in value.items()]
            spec = figures.bars(rows, x="value", y="name", x_title=_title(name), series="series")
            return Figure(_title(name), spec)
        if all(_is_matrix(entry) and len(entry) == 1 for entry in value.values()):
            value = {key: entry[0] for key, entry in value.items()}
        if all(_is_vector(entry) for entry in value.values()):
            rows = _points(value, fields)
            return _lines(name, rows, fields, len(next(iter(value.values())))) if rows else None
    return None


def _many(name: str, value: Sequence[Sequence[Any]], fields: Mapping[str, Any]) -> Figure | None:
    """A few rows: one line for each."""
    names = _row_names(len(value), fields)
    rows = _points(dict(zip(names, value, strict=True)), fields)
    return _lines(name, rows, fields, len(value[0])) if rows else None


def _map(name: str, value: Sequence[Sequence[Any]], fields: Mapping[str, Any]) -> Figure:
    down = _row_names(len(value), fields)
    across = down if _square(value) else [str(place) for place in range(len(value[0]))]
    rows = [
        {"row": one, "column": other, "value": value[i][j]}
        for i, one in enumerate(down)
        for j, other in enumerate(across)
    ]
    names = down if _square(value) else [*dict.fromkeys([*down, *across])]
    spec = figures.ordered_matrix(rows, names, row="row", column="column", value="value", title=_title(name))
    return Figure(_title(name), spec)


def _lines(name: str, rows: list[dict[str, Any]], fields: Mapping[str, Any], length: int) -> Figure:
    axis = _axis(length, fields)
    spec = figures.curves(
        rows,
        x="x",
        y="y",
        x_title=_title(axis or ""),
        y_title=_title(name),
        legend=len({r["series"] for r in rows}) > 1,
    )
    return Figure(_title(name), spec)


def _points(lines: Mapping[Any, Sequence[Any]], fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for series, values in lines.items():
        axis = _axis(len(values), fields)
        places = fields[axis] if axis else range(len(values))
        every = math.ceil(len(values) / _MOST_POINTS)
        rows += [
            {"series": str(series), "x": places[i], "y": values[i]}
            for i in range(0, len(values), every)
            if values[i] is not None
        ]
    return rows


def _axis(length: int, fields: Mapping[str, Any]) -> str | None:
    return next((name for name in _AXES if _is_vector(fields.get(name)) and len(fields[name]) == length), None)


def _row_names(count: int, fields: Mapping[str, Any]) -> list[str]:
    for name in _NAMES:
        found = fields.get(name)
        if isinstance(found, list) and len(found) == count and len(set(map(str, found))) == count:
            return [str(entry) for entry in found]
    return [str(place) for place in range(count)]


def _cell(value: Any) -> Any:
    """A field as one cell: numbers and short texts as they are, intervals as one, everything else left out."""
    if isinstance(value, Mapping) and {"estimate", "low", "high"} <= value.keys():
        ends = [value[end] for end in ("estimate", "low", "high")]
        return "{} [{}, {}]".format(*("–" if end is None else f"{end:.4g}" for end in ends))
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if (
        isinstance(value, list)
        and 0 < len(value) <= 12
        and all(isinstance(entry, str | int | float) for entry in value)
    ):
        return ", ".join(f"{entry:.4g}" if isinstance(entry, float) else str(entry) for entry in value)
    return None


def _title(name: str) -> str:
    return name.replace("_", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(_is_number(entry) or entry is None for entry in value)


def _is_matrix(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0  # one walker's looks are a matrix of one row
        and all(_is_vector(row) for row in value)
        and len({len(row) for row in value}) == 1
    )


def _square(value: Sequence[Sequence[Any]]) -> bool:
    return len(value) == len(value[0])
