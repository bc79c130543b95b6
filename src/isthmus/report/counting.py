"""The section about how many equal copies a network has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import power_of_ten
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def counting_section(values: Mapping[str, Any], words: Words) -> Section:
    """Copies by layer, by size, and what the weights tell apart."""
    return Section(
        words("counting.title", model=values["model"]),
        text=counting_text(values, words),
        figures=_figures(values, words),
        tables=counting_tables(values, words),
        headline=words("counting.headline", copies=power_of_ten(values["total"]["log10_copies"])),
    )


def counting_text(values: Mapping[str, Any], words: Words) -> list[str]:
    """What was counted, in sentences."""
    total = values["total"]
    said = [
        words(
            "counting.text", copies=power_of_ten(total["log10_copies"]), floored=total["log10_floored"],
            scales=total["scale_dimensions"], parameters=values["parameters"],
        )
    ]  # fmt: skip
    if not values["factors"]:
        said.append(words("counting.without_factors"))
    if values["obstacles"]:
        said.append(words("counting.obstacles", count=values["obstacles"]))
    return said


def counting_tables(values: Mapping[str, Any], words: Words) -> list[Table]:
    """By layer; by width and depth; by checkpoint."""
    names = ("layer", "units", "groups", "permutations", "floored", "signs", "scales")
    rows = [
        [layer["layer"], layer["units"], layer["groups"], f"{layer['log10_permutations']:.1f}", layer["floored"],
         f"{layer['log10_signs']:.1f}", layer["scale_dimensions"]]
        for layer in values["layers"]
    ]  # fmt: skip
    tables = [Table(words("counting.layers"), [words(f"counting.column.{name}") for name in names], rows)]
    if values["sizes"]:
        names = ("width", "depth", "parameters", "copies", "scales")
        rows = [
            [s["width"], s["depth"], s["parameters"], f"{s['log10_copies']:.1f}", s["scale_dimensions"]]
            for s in values["sizes"]
        ]
        tables.append(Table(words("counting.sizes"), [words(f"counting.column.{name}") for name in names], rows))
    if values["effective"]:
        names = ("checkpoint", "dead", "silent", "duplicates", "distinct", "share")
        rows = [
            [name, *(sum(g[field] for g in found["groups"]) for field in ("dead", "silent", "duplicates")),
             f"{found['log10_distinct']:.1f}", f"{found['share']:.1%}"]
            for name, found in values["effective"].items()
        ]  # fmt: skip
        title = words(
            "counting.effective", noise=f"{values['noise']:.3g}", source=words(_SOURCES[values["noise_from"]])
        )
        note = words("counting.silent", examples=values["examples"]) if values["examples"] else words("counting.unseen")
        tables.append(Table(title, [words(f"counting.column.{name}") for name in names], rows, note=note))
    rows = [[one["name"], one["counted"], one["published"]] for one in values["references"]]
    rows.append([values["model"], sum(layer["floored"] for layer in values["layers"]), "–"])
    names = ("network", "floored", "published")
    tables.append(Table(words("counting.references"), [words(f"counting.column.{name}") for name in names], rows))
    return tables


_SOURCES = {
    "given": "counting.noise.given",
    "aligned checkpoints": "counting.noise.aligned",
    "exact equality": "counting.noise.exact",
}


def _figures(values: Mapping[str, Any], words: Words) -> list[Figure]:
    sizes = values["sizes"]
    if len({size["width"] for size in sizes}) < 2:
        return []
    rows = [
        {"series": words("counting.deep", depth=size["depth"]), "width": size["width"], "copies": size["log10_copies"],
         "low": size["log10_copies"], "high": size["log10_copies"]}
        for size in sizes
    ]  # fmt: skip
    spec = figures.trend(
        rows, x="width", y="copies", x_title=words("counting.column.width"), y_title=words("counting.column.copies"),
        order=list(dict.fromkeys(row["series"] for row in rows)),
    )  # fmt: skip
    said = "; ".join(f"{row['series']}, {row['width']}: {row['copies']:.1f}" for row in rows)
    return [Figure(words("counting.sizes"), spec, description=said)]
