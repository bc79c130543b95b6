"""Trends whose series stand a little apart, so that intervals over the same place do not hide each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures

STEP = 0.07  # between neighbours, in powers of two


def trend(rows: Sequence[Mapping[str, Any]], *, x: str, **settings: Any) -> dict[str, Any]:
    """What :func:`isthmus.report.figures.trend` draws, its series beside each other and the ticks where they belong."""
    series = list(dict.fromkeys(row["series"] for row in rows))
    places = {name: STEP * (place - (len(series) - 1) / 2) for place, name in enumerate(series)}
    spec = figures.trend([{**row, x: row[x] * 2 ** places[row["series"]]} for row in rows], x=x, **settings)
    _mended(spec, sorted({row[x] for row in rows}))
    return spec


def _mended(part: Any, ticks: Sequence[float]) -> None:
    """Ticks at the true places; room between names for fonts wider than the one they were measured in."""
    if isinstance(part, dict):
        if isinstance(part.get("axis"), dict):
            part["axis"] |= {"titlePadding": 10} | ({"values": ticks} if "values" in part["axis"] else {})
        if isinstance(part.get("legend"), dict):
            part["legend"]["columnPadding"] = 40
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _mended(inner, ticks)
