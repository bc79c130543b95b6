"""Measured points with their intervals: against a law that predicts them, or by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import HEIGHT, WIDTH, Row, altair, colour, distinct, finished

# Pixels kept for names: pictures are measured with one font and read with another. What is kept beyond need shrinks
# all the rest where a page is narrow.
_NAMES, _LETTER = 210, 8


def law(
    rows: Sequence[Row], *, x: str, y: str, x_title: str, y_title: str, line: str, series: str, order: Sequence[str]
) -> dict[str, Any]:
    """Points with intervals (``low``, ``high``) on two logarithmic axes, and the predicted values as a dashed line.

    Each row has its measured value under ``y``, the predicted one under ``line``, and its kind under ``series``.
    """
    alt = altair()
    low = min(min(row[name] for name in (y, "low", line)) for row in rows)
    logarithmic = lambda **more: alt.Scale(type="log", nice=False, padding=12, **more)  # noqa: E731
    ticks = alt.Axis(tickCount=5, format="~g")
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=logarithmic(), axis=ticks)
    )
    down = alt.Y(f"{line}:Q", title=y_title, scale=logarithmic(domainMin=low), axis=ticks)
    tooltip = [
        alt.Tooltip(f"{series}:N"),
        *(alt.Tooltip(f"{name}:Q", format=".4g") for name in (x, y, "low", "high", line)),
    ]
    dashed = base.mark_line(strokeDash=[5, 3], strokeWidth=1.5, color="#7F7F7F").encode(y=down)
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=f"{y}:Q", color=colour(series, order or distinct(rows, series)), tooltip=tooltip
    )
    reach = base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(
        y="low:Q", y2="high:Q", color=colour(series, order or distinct(rows, series))
    )
    return finished((dashed + reach + points).properties(width=WIDTH, height=HEIGHT))


def intervals(
    rows: Sequence[Row], *, x: str, y: str, x_title: str, series: str, order: Sequence[str], floor: float | None
) -> dict[str, Any]:
    """Estimates with intervals (``low``, ``high`` in each row) by name, coloured by series.

    With a ``floor`` the axis is logarithmic, and what lies below the floor is drawn on it; hovering tells the true
    values.
    """
    alt = altair()
    names = (x, "low", "high")
    kept = min(_NAMES, _LETTER * max((len(str(row[y])) for row in rows), default=0))
    least = -math.inf if floor is None else floor
    rows = [{**row, **{f"drawn_{name}": max(row[name], least) for name in names}} for row in rows]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(f"{y}:N", title=None, sort=distinct(rows, y), axis=alt.Axis(labelLimit=240, grid=True, minExtent=kept)),
        yOffset=alt.YOffset(f"{series}:N", sort=list(order)),
        color=colour(series, order, legend=len(order) > 1),
    )
    tooltip = [f"{y}:N", f"{series}:N", *(alt.Tooltip(f"{name}:Q", format=".4g") for name in names)]
    scale = alt.Scale(zero=False) if floor is None else alt.Scale(type="log", domainMin=floor)
    axis = alt.X(f"drawn_{x}:Q", title=x_title, scale=scale, axis=alt.Axis(tickCount=4, format="~g"))
    reach = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("drawn_low:Q"), x2="drawn_high:Q")
    points = base.mark_point(filled=True, size=50, opacity=1).encode(x=axis, tooltip=tooltip)
    return finished((reach + points).properties(width=WIDTH, height=alt.Step(9 if len(order) > 1 else 18)))
