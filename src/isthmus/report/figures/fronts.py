"""Charts of what can be had together: points by two shares, floors, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import HEIGHT, WIDTH, Row, altair, colour, finished


def front(
    rows: Sequence[Row],
    marked: Sequence[Row],
    floors: tuple[float | None, float | None],
    *,
    x_title: str,
    y_title: str,
    order: Sequence[str],
) -> dict[str, Any]:
    """Points (``x``, ``y``, ``series``, ``name``, ``front``), marked ones (``x``, ``y``, ``name``, ``filled``), floors.

    ``y`` may also be a name: then each name is a row of its own.
    """
    alt = altair()
    low = min([row["x"] for row in [*rows, *marked]], default=0.0)
    across = alt.X("x:Q", title=x_title, scale=alt.Scale(domain=_domain([*rows, *marked], "x", low)))
    if rows and isinstance(rows[0]["y"], str):
        names = list(dict.fromkeys(row["y"] for row in rows))
        up = alt.Y("y:N", title=None, sort=names)
    else:
        bottom = min([row["y"] for row in [*rows, *marked]], default=0.0)
        up = alt.Y("y:Q", title=y_title, scale=alt.Scale(domain=_domain([*rows, *marked], "y", bottom)))
    tooltip = [alt.Tooltip("name:N"), *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("x", "y"))]
    hue = colour("series", order)
    layers: Any = (
        alt.Chart(alt.Data(values=[row for row in rows if not row["front"]]))
        .mark_point(size=28, opacity=0.45, strokeWidth=1.2)
        .encode(x=across, y=up, color=hue, tooltip=tooltip)
    )
    layers += (
        alt.Chart(alt.Data(values=[row for row in rows if row["front"]]))
        .mark_point(size=55, filled=True, opacity=0.95)
        .encode(x=across, y=up, color=hue, tooltip=tooltip)
    )
    for channel, floor in zip(("x", "y"), floors, strict=True):
        if floor is not None:
            rule = alt.Chart(alt.Data(values=[{channel: floor}])).mark_rule(
                strokeDash=[5, 3], color="#8a949e", size=1.5
            )
            layers += rule.encode(x=across) if channel == "x" else rule.encode(y=up)
    for filled in (True, False):
        some = alt.Chart(alt.Data(values=[row for row in marked if row["filled"] is filled]))
        layers += some.mark_point(
            shape="diamond", size=170, filled=filled, opacity=1, strokeWidth=2.2, color="currentColor"
        ).encode(x=across, y=up, tooltip=tooltip)
    return finished(layers.properties(width=WIDTH, height=HEIGHT))


def _domain(rows: Sequence[Row], name: str, low: float) -> list[float]:
    """A little room on both sides, so that no point is cut."""
    high = max([row[name] for row in rows], default=1.0)
    room = 0.04 * max(high - low, 0.05)
    return [low - room, high + room]
