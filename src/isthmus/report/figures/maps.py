"""Coloured cells: tables of pairs, planes, strips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import PALETTE, WIDTH, Row, altair, finished
from isthmus.report.figures.trees import branches


def matrix(
    rows: Sequence[Row], *, row: str, column: str, value: str, title: str, high: float | None = None, size: int = 200
) -> dict[str, Any]:
    """A heat map of a square table with its numbers in the cells (up to 12 × 12)."""
    alt = altair()
    names = list(dict.fromkeys(str(entry[row]) for entry in rows))
    # Every column keeps its name: upright where it would not fit between its neighbours (7 pixels a letter at most).
    level = 7 * max(map(len, names), default=0) < size / max(1, len(names))
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X(f"{column}:N", title=None, sort=names, axis=alt.Axis(labelAngle=0 if level else -90)),
        y=alt.Y(f"{row}:N", title=None, sort=names),
        tooltip=[f"{row}:N", f"{column}:N", alt.Tooltip(f"{value}:Q", format=".4g")],
    )
    scale = alt.Scale(scheme="viridis", domainMin=0, **({"domainMax": high} if high else {}))
    layers: Any = base.mark_rect().encode(color=alt.Color(f"{value}:Q", title=title, scale=scale))
    if len(names) <= 12:
        middle = (high or max((entry[value] or 0.0) for entry in rows) or 1.0) / 2
        ink = alt.condition(f"datum[{value!r}] > {middle}", alt.value("black"), alt.value("white"))
        layers += base.mark_text(fontSize=10).encode(text=alt.Text(f"{value}:Q", format=".2f"), color=ink)
    return finished(layers.properties(width=size, height=size))


def ordered_matrix(
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    row: str,
    column: str,
    value: str,
    title: str,
    merges: Sequence[Sequence[float]] = (),
    size: int = 240,
) -> dict[str, Any]:
    """A heat map whose rows and columns keep a given order; values may be negative.

    Args:
        rows: one for each cell.
        names: of rows and columns, in their order.
        row: the field that names a cell's row.
        column: the field that names its column.
        value: the field that colours it.
        title: of the value.
        merges: the joins of a tree over the columns, drawn above them: (left, right, height, leaves), leaves counted
            in the order of ``names``.
        size: width and height of the map.
    """
    alt = altair()
    labels = alt.Axis(labels=len(names) <= 24, ticks=False, labelFontSize=9)
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_rect()
        .encode(
            x=alt.X(f"{column}:N", title=None, sort=list(names), axis=labels),
            y=alt.Y(f"{row}:N", title=None, sort=list(names), axis=labels),
            color=alt.Color(f"{value}:Q", title=title, scale=alt.Scale(scheme="viridis")),
            tooltip=[f"{row}:N", f"{column}:N", alt.Tooltip(f"{value}:Q", format=".4g")],
        )
        .properties(width=size, height=size)
    )
    if not merges:
        return finished(chart)
    heights = [float(merge[2]) for merge in merges]
    # Distances between many-dimensional points are all alike: from zero, a tree would be a comb without visible joins.
    floor = min(heights) - 0.2 * ((max(heights) - min(heights)) or 1.0)
    lines = branches(merges, range(len(names)), [floor] * len(names))
    # Cells are centred on whole numbers, half a cell from the edges.
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False))
    tree = (
        alt.Chart(alt.Data(values=lines))
        .mark_rule(color=PALETTE[6], strokeWidth=1)
        .encode(
            x=x,
            x2="x2:Q",
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False, nice=False)),
            y2="y2:Q",
            tooltip=[alt.Tooltip("y2:Q", format=".4g")],
        )
        .properties(width=size, height=size // 5)
    )
    return finished(alt.vconcat(tree, chart, spacing=2))


def strips(rows: Sequence[Row], *, x: str, y: str, value: str, x_title: str, title: str) -> dict[str, Any]:
    """One strip of coloured cells for each name, along a common axis."""
    alt = altair()
    names = list(dict.fromkeys(str(row[y]) for row in rows))
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_rect()
        .encode(
            x=alt.X(f"{x}:O", title=x_title, axis=alt.Axis(format=".2f", labelOverlap=True, labelAngle=0)),
            y=alt.Y(f"{y}:N", title=None, sort=names),
            color=alt.Color(f"{value}:Q", title=title, scale=alt.Scale(scheme="viridis", domainMin=0)),
            tooltip=[f"{y}:N", alt.Tooltip(f"{x}:Q", format=".3f"), alt.Tooltip(f"{value}:Q", format=".4g")],
        )
        .properties(width=WIDTH, height=max(60, 18 * len(names)))
    )
    return finished(chart)


def plane(rows: Sequence[Row], marks: Sequence[Row], *, x_title: str, y_title: str, title: str) -> dict[str, Any]:
    """Values on an even grid of a plane as coloured cells, with marked and named points."""
    alt = altair()
    steps = {name: _step(sorted({row[name] for row in rows})) for name in ("x", "y")}
    cells = [
        {**row, **{f"{n}{end}": row[n] + sign * steps[n] / 2 for n in ("x", "y") for end, sign in ((1, -1), (2, 1))}}
        for row in rows
    ]
    low, high = min(row["loss"] for row in rows), max(row["loss"] for row in rows)
    # Landscapes rise steeply off the basin: a logarithm shows both, where the values allow it.
    kind = {"type": "log"} if low > 0 and high > 20 * low else {}
    scale = alt.Scale(scheme="viridis", **kind)  # dark is low, as in every map
    legend = alt.Legend(values=_decades(low, high)) if kind else alt.Legend()
    base = alt.Chart(alt.Data(values=cells)).mark_rect().encode(
        x=alt.X("x1:Q", title=x_title, scale=alt.Scale(nice=False, zero=False)), x2="x2:Q",
        y=alt.Y("y1:Q", title=y_title, scale=alt.Scale(nice=False, zero=False)), y2="y2:Q",
        color=alt.Color("loss:Q", title=title, scale=scale, legend=legend),
        tooltip=[alt.Tooltip(f"{n}:Q", format=".4g") for n in ("x", "y", "loss")],
    )  # fmt: skip
    points = alt.Chart(alt.Data(values=list(marks))).encode(x="x:Q", y="y:Q", tooltip=["name:N"])
    dots = points.mark_point(filled=True, size=90, color="#D55E00", stroke="white", strokeWidth=1.5, opacity=1)
    # Letters must be read on every colour: white ones, each with a dark rim under it.
    rim = points.mark_text(dy=-13, color="#10151b", stroke="#10151b", strokeWidth=3, strokeJoin="round")
    rim, names = (mark.encode(text="name:N") for mark in (rim, points.mark_text(dy=-13, color="white")))
    return finished((base + dots + rim + names).properties(width=WIDTH, height=WIDTH))


def _decades(low: float, high: float) -> list[float]:
    """Round numbers from low to high, few enough that a small legend can name them all."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) <= 5:
            return found
    return found[:: math.ceil(len(found) / 5)]


def _step(values: Sequence[float]) -> float:
    """The distance between neighbours of an even grid."""
    return (values[-1] - values[0]) / (len(values) - 1) if len(values) > 1 else 1.0
