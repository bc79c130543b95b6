"""Sections about symmetries: which units may be exchanged, and how many equivalent networks that makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.core.record import plain
from isthmus.core.symmetry import Symmetry
from isthmus.report.page import Section, Table
from isthmus.report.words import Words


def summary(symmetry: Symmetry) -> dict[str, Any]:
    """A symmetry as plain values of the kind ``SymmetrySummary``: what people read; indices stay out."""
    groups = [
        {
            "name": group.name,
            "units": group.size,
            "type": group.kind,
            "inside": f"{group.parent.group}, unit {group.parent.unit}" if group.parent else None,
            "tensors": list(dict.fromkeys(site.tensor for site in group.sites)),
        }
        for group in symmetry.groups
    ]
    return {
        "kind": "SymmetrySummary",
        "groups": groups,
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
    text = [words("symmetry.text", groups=len(values["groups"]), log10=f"{values['log10_size']:.1f}")]
    if values.get("proof"):
        proof = values["proof"]
        text.append(words("symmetry.proof", draws=proof["draws"], error=f"{proof['error']:.1e}", dtype=proof["dtype"]))
    return Section(words("symmetry.title"), text=text, tables=tables)
