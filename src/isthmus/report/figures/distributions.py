"""How values are spread: histograms and cumulative shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import HEIGHT, PALETTE, WIDTH, Row, altair, colour, finished


def histogram(rows: Sequence[Row], *, x_title: str, y_title: str, null: str) -> dict[str, Any]:
    """A density with its interval (``q1``, ``q2``, ``density``, ``low``, ``high``) and a null (``null``) as a line."""
    alt = altair()
    middle = [{**row, "q": (row["q1"] + row["q2"]) / 2, "series": null} for row in rows]
    base = alt.Chart(alt.Data(values=middle))
    tooltip = [alt.Tooltip(f"{name}:Q", format=".4g") for name in ("q", "density", "low", "high", "null")]
    bars = base.mark_bar(color=PALETTE[1], opacity=0.55).encode(
        x=alt.X("q1:Q", title=x_title, scale=alt.Scale(zero=False)), x2="q2:Q", y=alt.Y("density:Q", title=y_title),
        tooltip=tooltip,
    )  # fmt: skip
    reach = base.mark_rule(color=PALETTE[1], strokeWidth=1.5).encode(x="q:Q", y="low:Q", y2="high:Q")
    line = base.mark_line(strokeWidth=2, strokeDash=[5, 3]).encode(x="q:Q", y="null:Q", color=colour("series", [null]))
    return finished((bars + reach + line).properties(width=280, height=200))


def steps(rows: Sequence[Row], named: Sequence[Row], *, x_title: str, y_title: str) -> dict[str, Any]:
    """A cumulative distribution with its band (``at``, ``share``, ``low``, ``high``) and marked places (``at``)."""
    alt = altair()
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=alt.X("at:Q", title=x_title))
    band = base.mark_area(interpolate="step-after", opacity=0.25, color=PALETTE[1]).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(interpolate="step-after", color=PALETTE[1], strokeWidth=2).encode(
        y=alt.Y("share:Q", title=y_title),
        tooltip=[alt.Tooltip("at:Q", format=".4g"), alt.Tooltip("share:Q", format=".4g")],
    )
    marks = alt.Chart(alt.Data(values=list(named))).mark_tick(color=PALETTE[0], thickness=2, size=14).encode(
        x="at:Q", y=alt.value(0), tooltip=[alt.Tooltip("at:Q", format=".5g")]
    )  # fmt: skip
    return finished((band + line + marks).properties(width=WIDTH, height=HEIGHT))
