"""Lines: along a path, over an ordered quantity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import (
    HEIGHT,
    PALETTE,
    SHAPES,
    TICKS,
    WIDTH,
    Row,
    altair,
    colour,
    dash,
    distinct,
    finished,
    zoom,
)


def curves(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    x_title: str,
    y_title: str,
    series: str = "series",
    order: Sequence[str] = (),
    legend: bool = True,
) -> dict[str, Any]:
    """Lines over a common axis, one for each series; hovering tells the values."""
    alt = altair()
    present = list(order or distinct(rows, series))
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_line(point=alt.OverlayMarkDef(size=34), strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, axis=_whole(rows, x)),
            y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=True)),
            color=colour(series, present, legend=legend, symbol=_symbol(present)),
            **dash(series, present),
            **_shapes(series, present),
            tooltip=[
                alt.Tooltip(f"{series}:N"),
                alt.Tooltip(f"{x}:Q", format=".3f"),
                alt.Tooltip(f"{y}:Q", format=".4g"),
            ],
        )
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(zoom())
    )
    return finished(chart)


def _shapes(series: str, order: Sequence[str]) -> dict[str, Any]:
    """Another shape for each of a few lines' points: whoever sees no colours, or prints in grey, tells them apart."""
    if not 1 < len(order) <= len(SHAPES):
        return {}
    alt = altair()
    scale = alt.Scale(domain=list(order), range=list(SHAPES[: len(order)]))
    return {"shape": alt.Shape(f"{series}:N", title=None, sort=list(order), scale=scale)}


def _symbol(order: Sequence[str]) -> str | None:
    """Dashes are shown by the legend only where its symbols are strokes."""
    return "stroke" if len(order) > len(PALETTE) else None


def _whole(rows: Sequence[Row], field: str) -> Any:
    """An axis of few counts has its ticks at these, and none between them."""
    values = sorted({row[field] for row in rows})
    few = len(values) <= 12 and all(float(value).is_integer() for value in values) and max(values, default=0) > 1
    return altair().Axis(values=values, format="d") if few else altair().Axis()


def fan(
    rows: Sequence[Row], middle: Sequence[Row], *, x: str, y: str, x_title: str, y_title: str, names: Sequence[str]
) -> dict[str, Any]:
    """Many alike lines, thin, one for each ``series`` of ``rows``, under one that stands for them all (``middle``).

    Args:
        rows: ``series`` and the two quantities.
        middle: the two quantities.
        x: the horizontal quantity.
        y: the vertical quantity.
        x_title: its title.
        y_title: its title.
        names: what the thin lines and the bold line are called.
    """
    alt = altair()
    drawn = colour("what", [names[1], names[0]], symbol="stroke")
    many = alt.Chart(alt.Data(values=[{**row, "what": names[0]} for row in rows])).mark_line(
        strokeWidth=1, opacity=0.45
    )
    one = alt.Chart(alt.Data(values=[{**row, "what": names[1]} for row in middle])).mark_line(strokeWidth=2.5)
    across = alt.X(f"{x}:Q", title=x_title)
    up = alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=True))
    told = [alt.Tooltip(f"{name}:Q", format=".4g") for name in (x, y)]
    many = many.encode(x=across, y=up, color=drawn, detail="series:N", tooltip=[alt.Tooltip("series:N"), *told])
    one = one.encode(x=across, y=up, color=drawn, order=f"{x}:Q", tooltip=told)
    return finished((many + one).properties(width=WIDTH, height=HEIGHT))


def trend(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    x_title: str,
    y_title: str,
    series: str = "series",
    order: Sequence[str] = (),
    floor: float | None = None,
) -> dict[str, Any]:
    """Estimates with intervals (``low``, ``high`` in each row) over an ordered quantity, one line for each series.

    With a ``floor`` the axis is logarithmic, and what lies below the floor (or at zero) is drawn on it; hovering tells
    the true values.
    """
    alt = altair()
    names = (y, "low", "high")
    tooltip = [alt.Tooltip(f"{series}:N"), *(alt.Tooltip(f"{n}:Q", format=".4g") for n in (x, *names))]
    values, present = sorted({row[x] for row in rows}), list(order or distinct(rows, series))
    rows = [{**row, **{f"drawn_{n}": row[n] if floor is None else max(row[n], floor) for n in names}} for row in rows]
    scale = alt.Scale(zero=True) if floor is None else alt.Scale(type="log", domainMin=floor)
    ticks = alt.Axis() if floor is None else alt.Axis(tickCount=4, format="~g")
    axis = alt.X(
        f"{x}:Q",
        title=x_title,
        axis=alt.Axis(values=values, labelExpr=TICKS),
        scale=alt.Scale(type="log", base=2, padding=16),
    )
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=axis, color=colour(series, present, symbol=_symbol(present)))
    up = alt.Y(f"drawn_{y}:Q", title=y_title, scale=scale, axis=ticks)
    line = base.mark_line(strokeWidth=2).encode(y=up, **dash(series, present))
    points = base.mark_point(filled=True, size=55).encode(y=f"drawn_{y}:Q", tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(y="drawn_low:Q", y2="drawn_high:Q")
    return finished((bars + line + points).properties(width=WIDTH, height=HEIGHT))
