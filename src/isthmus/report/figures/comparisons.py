"""Named things beside each other: bars and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import HEIGHT, SHAPES, TICKS, WIDTH, Row, altair, colour, distinct, finished, shape

_BESIDE = 24  # letters of the longest name that stands beside its bar; more would take half of a phone's screen


def bars(
    rows: Sequence[Row], *, x: str, y: str, x_title: str, series: str, order: Sequence[str] = ()
) -> dict[str, Any]:
    """Horizontal bars, grouped by ``y`` and coloured by ``series``."""
    alt = altair()
    names, present = list(dict.fromkeys(str(entry[y]) for entry in rows)), list(order or distinct(rows, series))
    # Room for every series beside its name, where a name has more than one: a single bar stands at its name.
    several = len(names) < len(rows)
    beside = {"yOffset": alt.YOffset(f"{series}:N", sort=list(order) or None)} if several else {}
    down, height = _named(y, names, bars=len(present) if several else 1)
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar()
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, axis=alt.Axis(tickCount=6)),
            y=down,
            color=colour(series, present, legend=len(present) > 1),
            tooltip=[f"{y}:N", f"{series}:N", alt.Tooltip(f"{x}:Q", format=".4g")],
            **beside,
        )
        .properties(width=WIDTH, **height)
    )
    return finished(chart)


def _named(field: str, names: Sequence[str], *, bars: int) -> tuple[Any, dict[str, Any]]:
    """The axis of the names and the chart's height: names stand beside their bars, long ones above, in full width."""
    alt = altair()
    if max(map(len, names), default=0) <= _BESIDE:
        return alt.Y(f"{field}:N", title=None, sort=names), {}
    band, row = 16 * bars, 18
    axis = alt.Axis(
        labelAlign="left", labelBaseline="bottom", labelPadding=-4, labelOffset=-band / 2 - 2, labelLimit=WIDTH,
        labelOverlap=False, ticks=False, zindex=1,
    )  # fmt: skip
    # Of a step, the outer padding counted half at each end, the inner one is all that stands between two bands.
    gap = row / (band + row)
    scale = alt.Scale(paddingInner=gap, paddingOuter=gap / 2, align=1.0)
    return alt.Y(f"{field}:N", title=None, sort=names, scale=scale, axis=axis), {"height": len(names) * (band + row)}


def dots(
    rows: Sequence[Row], *, x: str, y: str, x_title: str, series: str, order: Sequence[str] = ()
) -> dict[str, Any]:
    """A line for each ``y`` with a mark for each ``series`` on it: for values so near each other that bars look alike.

    The axis begins where the values do, not at zero: only places are compared, no lengths.
    """
    alt = altair()
    names = list(dict.fromkeys(str(entry[y]) for entry in rows))
    present = list(order or distinct(rows, series))
    down, height = _named(y, names, bars=1)
    if not height:
        down, height = alt.Y(f"{y}:N", title=None, sort=names, axis=alt.Axis(grid=True)), {"height": alt.Step(20)}
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=down)
    reach = base.mark_rule(color="#8a949e", strokeWidth=1.5, opacity=0.6).encode(x=f"min({x}):Q", x2=f"max({x}):Q")
    marks = base.mark_point(filled=True, size=60, opacity=0.9).encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False, nice=True)),
        color=colour(series, present),
        shape=alt.Shape(f"{series}:N", title=None, sort=present, scale=alt.Scale(domain=present, range=list(SHAPES))),
        tooltip=[f"{y}:N", f"{series}:N", alt.Tooltip(f"{x}:Q", format=".4g")],
    )
    return finished((reach + marks).properties(width=WIDTH, **height))


def scatter(
    rows: Sequence[Row], *, x: str, y: str, x_title: str, y_title: str, series: str, order: Sequence[str], name: str
) -> dict[str, Any]:
    """Points of two quantities, coloured by series; hovering tells which point it is.

    Charts that stand together give one ``order`` of all their series, and each its own rows.
    """
    alt = altair()
    present = distinct(rows, series)
    room = alt.Scale(zero=False, padding=8)  # a point at the edge is drawn whole
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_point(filled=True, size=55, opacity=0.85)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, scale=room, axis=alt.Axis(tickCount=5, labelExpr=TICKS)),
            y=alt.Y(f"{y}:Q", title=y_title, scale=room),
            color=colour(series, order, shown=[each for each in order if each in present]),
            **shape(series, order),
            tooltip=[
                alt.Tooltip(f"{name}:N"),
                alt.Tooltip(f"{series}:N"),
                alt.Tooltip(f"{x}:Q", format=".4g"),
                alt.Tooltip(f"{y}:Q", format=".4g"),
            ],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return finished(chart)
