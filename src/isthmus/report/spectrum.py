"""The section about the spectrum of the curvature at one solution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

Rows = tuple[list[str], list[list[Any]]]

_GRID = 400  # points of the drawn density
_WIDTH = 0.004  # of a bump, as a share of the whole range: narrower than a mark is wide
_NAMED = 0.5  # of an eigenvector's square along one class mean, from which on the outlier bears that class's name


def spectrum_section(values: Mapping[str, Any], words: Words) -> Section:
    """The density with its outliers named, the cumulative one with its interval, and the eigenvalues at the ends."""
    found = values["density"]
    rows = [
        {"at": at, "share": share, "low": low, "high": high}
        for at, share, low, high in zip(found["at"], found["cumulative"], found["low"], found["high"], strict=True)
    ]
    ends = [{"at": value} for value in values["largest"]["values"]]
    cumulative = figures.steps(rows, ends, x_title=words("spectrum.value"), y_title=words("spectrum.share"))
    columns, table = eigenvalue_rows(values, words)
    text = [words("spectrum.text", matrix=words(f"spectrum.{values['matrix']}"), size=found["size"])]
    if values["classes"]:
        overlaps = values["classes"]["class_overlap"]
        text.append(words("spectrum.classes", share=f"{sum(overlaps) / len(overlaps):.0%}", n=len(overlaps)))
    top = values["largest"]["values"][0]
    drawn = [
        _density(values, words),
        Figure(words("spectrum.cumulative"), cumulative, caption=words("spectrum.caption"), description=f"{top:.4g}"),
    ]
    tables = [Table(words("spectrum.ends"), columns, table)]
    if values["layers"]:
        columns, table = layer_rows(values, words)
        bars = [{"name": row[0], "measure": columns[2], "value": row[2]} for row in table]
        spec = figures.bars(bars, x="value", y="name", x_title=columns[2], series="measure")
        said = "; ".join(f"{row[0]}: {row[2]:.3g}" for row in table)
        drawn.append(Figure(words("spectrum.layers"), spec, description=said))
        tables.append(Table(words("spectrum.layers"), columns, table))
    return Section(
        words("spectrum.title"),
        text=text,
        figures=drawn,
        tables=tables,
        headline=words("spectrum.headline", top=f"{top:.4g}"),
    )


def eigenvalue_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Eigenvalues, residuals, the share of each eigenvector that the classes span, and its class if it has one."""
    classes = values["classes"]
    rows: list[list[Any]] = []
    for place, (value, residual) in enumerate(
        zip(values["largest"]["values"], values["largest"]["residuals"], strict=True)
    ):
        if classes is None or place >= len(classes["class_overlap"]):
            rows.append([value, residual, None, None])
        else:
            rows.append([value, residual, classes["class_overlap"][place], _name(classes, place, words)])
    for value, residual in zip(
        *((values["smallest"] or {}).get(name, []) for name in ("values", "residuals")), strict=True
    ):
        rows.append([value, residual, None, None])
    return [words(f"spectrum.{name}") for name in ("value", "residual", "overlap", "class")], rows


def layer_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """The block of every layer: its size, largest eigenvalue and trace."""
    rows = [
        [name, block["size"], next(iter(block["largest"]["values"]), None), interval_text(block["trace"]["interval"])]
        for name, block in values["layers"].items()
    ]
    return [words(f"spectrum.{name}") for name in ("layer", "size", "largest", "trace")], rows


def _name(classes: Mapping[str, Any], place: int, words: Words) -> str:
    """``class 3`` where one class's mean gradient makes up most of the eigenvector, else nothing."""
    if classes["nearest_share"][place] < _NAMED:
        return ""
    return words("spectrum.of_class", n=classes["nearest"][place])


def _density(values: Mapping[str, Any], words: Words) -> Figure:
    """Gaussian bumps in place of the nodes, for drawing only; outliers stand beside them under their names."""
    found, top = values["density"], values["largest"]["values"]
    nodes, weights = (np.array(found[name], dtype=float).ravel() for name in ("nodes", "weights"))
    weights = weights / max(len(found["nodes"]), 1)
    low, high = min(nodes.min(), *top), max(nodes.max(), *top)
    reach = max(high - low, 1e-12)
    at = np.linspace(low - 0.03 * reach, high + 0.03 * reach, _GRID)
    width = _WIDTH * reach
    bumps = np.exp(-0.5 * ((at[:, None] - nodes) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    heights = (bumps * weights).sum(1)
    # An eigenvalue's own share is 1/size: a bump of that weight is the lowest that means anything.
    floor = 0.1 / (found["size"] * width * math.sqrt(2 * math.pi))
    rows = [{"at": float(a), "density": float(max(d, floor))} for a, d in zip(at, heights, strict=True)]
    peak = max(float(heights.max()), 100 * floor)
    stem = float(floor * (peak / floor) ** 0.45)
    kinds = [words("spectrum.by_class"), words("spectrum.by_rival"), words("spectrum.unexplained")]
    marks = [
        {"at": value, "top": stem, "name": _mark(values, place, words), "kind": kinds[_kind(values, place)]}
        for place, value in enumerate(top)
    ]
    order = [kind for kind in kinds if any(mark["kind"] == kind for mark in marks)]
    spec = figures.outliers(
        rows, marks, x_title=words("spectrum.value"), y_title=words("spectrum.density"), order=order
    )
    said = "; ".join(f"{mark['at']:.4g} {mark['name']}".strip() for mark in marks)
    return Figure(words("spectrum.drawn"), spec, caption=words("spectrum.drawn_caption"), description=said)


def _kind(values: Mapping[str, Any], place: int) -> int:
    """What most of an eigenvector is: class means (0), differences between rivals (1), neither (2)."""
    classes = values["classes"]
    if classes is None or place >= len(classes["class_overlap"]):
        return 2
    shares = [classes["class_overlap"][place], classes["rival_overlap"][place]]
    return shares.index(max(shares)) if max(shares) >= _NAMED else 2


def _mark(values: Mapping[str, Any], place: int, words: Words) -> str:
    classes = values["classes"]
    return _name(classes, place, words) if classes is not None and place < len(classes["class_overlap"]) else ""
