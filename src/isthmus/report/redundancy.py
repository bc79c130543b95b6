"""Sections about symmetries: which units may be exchanged, and how many equivalent networks that makes."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from isthmus.core.record import plain
from isthmus.core.symmetry import Symmetry
from isthmus.report import figures
from isthmus.report.numbers import power_of_ten, scientific
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def summary(symmetry: Symmetry, layers: Any = None) -> dict[str, Any]:
    """A symmetry as plain values of the kind ``SymmetrySummary``: what people read; indices stay out.

    ``layers`` is the symmetry's :class:`isthmus.LayerMap`, for the picture.
    """
    groups = [
        {
            "name": group.name,
            "units": group.size,
            "type": group.kind,
            "inside": f"{group.parent.group}, unit {group.parent.unit}" if group.parent else None,
            "tensors": list(group.tensors),
        }
        for group in symmetry.groups
    ]
    return {
        "kind": "SymmetrySummary",
        "groups": groups,
        "map": plain(layers) if layers is not None else None,
        "log10_size": symmetry.log10_size,
        "obstacles": [plain(obstacle) for obstacle in symmetry.obstacles],
        "proof": plain(symmetry.proof) if symmetry.proof else None,
    }


def symmetry_section(values: Mapping[str, Any], words: Words) -> Section:
    """The groups of a symmetry, what was pinned and how it was proved."""
    groups = [[g["name"], g["units"], g["inside"] or "", ", ".join(g["tensors"])] for g in values["groups"]]
    tables = [
        Table(
            words("symmetry.groups"),
            [words("symmetry.group"), words("symmetry.units"), words("symmetry.inside"), words("symmetry.tensors")],
            groups,
        )
    ]
    if values["obstacles"]:
        pinned = [[o["operation"], o["reason"], ", ".join(o["tensors"]), o["where"]] for o in values["obstacles"]]
        columns = [words(f"symmetry.obstacle.{name}") for name in ("operation", "reason", "tensors", "where")]
        tables.append(Table(words("symmetry.obstacles"), columns, pinned))
    text = [words("symmetry.text", groups=len(values["groups"]), copies=power_of_ten(values["log10_size"]))]
    if values.get("proof"):
        proof = values["proof"]
        text.append(
            words("symmetry.proof", draws=proof["draws"], error=scientific(proof["error"]), dtype=proof["dtype"])
        )
    drawn = [sharing_figure(values["map"], words)] if values.get("map") and values["map"]["cells"] else []
    return Section(words("symmetry.title"), text=text, figures=drawn, tables=tables, headline=text[0])


def sharing_figure(layer_map: Mapping[str, Any], words: Words) -> Figure:
    """Which layers share which group."""
    parts = {part: words(f"symmetry.map.{part}") for part in ("writes", "reads", "both", "carries")}
    cells = [{**cell, "part": parts[_part(cell)]} for cell in layer_map["cells"]]
    reached = collections.Counter(cell["group"] for cell in cells)
    spec = figures.sharing(
        cells,
        layer_map["layers"],
        layer_map["groups"],
        order=[part for part in parts.values() if any(cell["part"] == part for cell in cells)],
        titles={
            "layer": words("symmetry.map.layer"),
            "group": words("symmetry.group"),
            "size": words("symmetry.units"),
            "copies": words("symmetry.map.copies"),
            "part": words("symmetry.map.part"),
        },
    )
    said = words(
        "symmetry.map.description",
        groups=len(layer_map["groups"]),
        layers=len(layer_map["layers"]),
        most=max(reached.values()),
    )
    return Figure(words("symmetry.map"), spec, caption=words("symmetry.map.caption"), description=said)


def _part(cell: Mapping[str, Any]) -> str:
    if cell["carries"]:
        return "carries"
    return "both" if cell["writes"] and cell["reads"] else "writes" if cell["writes"] else "reads"
