"""Charts: one Altair definition of each, drawn interactive in a page and as SVG or PNG without a browser.

Functions take plain rows and give Vega-Lite definitions. Text and axes use ``currentColor``, so that one definition
reads well on light and on dark paper.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.core.files import atomic

# Okabe and Ito's palette, told apart by readers of every colour vision; the order is that of the methods in a legend.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B2A400")
_WIDTH, _HEIGHT = 350, 250  # two side by side on a page

Row = Mapping[str, Any]


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
    alt = _altair()
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title),
            y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=True)),
            color=_colour(series, order or _names(rows, series), legend=legend),
            tooltip=[
                alt.Tooltip(f"{series}:N"),
                alt.Tooltip(f"{x}:Q", format=".3f"),
                alt.Tooltip(f"{y}:Q", format=".4g"),
            ],
        )
        .properties(width=_WIDTH, height=_HEIGHT)
        .interactive()
    )
    return _finished(chart)


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
    alt = _altair()
    names = (y, "low", "high")
    tooltip = [alt.Tooltip(f"{series}:N"), *(alt.Tooltip(f"{n}:Q", format=".4g") for n in (x, *names))]
    values = sorted({row[x] for row in rows})
    rows = [{**row, **{f"drawn_{n}": row[n] if floor is None else max(row[n], floor) for n in names}} for row in rows]
    scale = alt.Scale(zero=True) if floor is None else alt.Scale(type="log", domainMin=floor)
    ticks = alt.Axis() if floor is None else alt.Axis(tickCount=4, format="~g")
    axis = alt.X(f"{x}:Q", title=x_title, axis=alt.Axis(values=values), scale=alt.Scale(type="log", base=2, padding=16))
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=axis, color=_colour(series, order or _names(rows, series)))
    line = base.mark_line(strokeWidth=2).encode(y=alt.Y(f"drawn_{y}:Q", title=y_title, scale=scale, axis=ticks))
    points = base.mark_point(filled=True, size=55).encode(y=f"drawn_{y}:Q", tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(y="drawn_low:Q", y2="drawn_high:Q")
    return _finished((bars + line + points).properties(width=_WIDTH, height=_HEIGHT))


def matrix(
    rows: Sequence[Row], *, row: str, column: str, value: str, title: str, high: float | None = None, size: int = 200
) -> dict[str, Any]:
    """A heat map of a square table with its numbers in the cells (up to 12 × 12)."""
    alt = _altair()
    names = list(dict.fromkeys(str(entry[row]) for entry in rows))
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X(f"{column}:N", title=None, sort=names, axis=alt.Axis(labelAngle=0 if len(names) <= 12 else -90)),
        y=alt.Y(f"{row}:N", title=None, sort=names),
        tooltip=[f"{row}:N", f"{column}:N", alt.Tooltip(f"{value}:Q", format=".4g")],
    )
    scale = alt.Scale(scheme="viridis", domainMin=0, **({"domainMax": high} if high else {}))
    layers: Any = base.mark_rect().encode(color=alt.Color(f"{value}:Q", title=title, scale=scale))
    if len(names) <= 12:
        middle = (high or max((entry[value] or 0.0) for entry in rows) or 1.0) / 2
        ink = alt.condition(f"datum[{value!r}] > {middle}", alt.value("black"), alt.value("white"))
        layers += base.mark_text(fontSize=10).encode(text=alt.Text(f"{value}:Q", format=".2f"), color=ink)
    return _finished(layers.properties(width=size, height=size))


def plane(rows: Sequence[Row], marks: Sequence[Row], *, x_title: str, y_title: str, title: str) -> dict[str, Any]:
    """Values on an even grid of a plane as coloured cells, with marked and named points."""
    alt = _altair()
    steps = {name: _step(sorted({row[name] for row in rows})) for name in ("x", "y")}
    cells = [
        {**row, **{f"{n}{end}": row[n] + sign * steps[n] / 2 for n in ("x", "y") for end, sign in ((1, -1), (2, 1))}}
        for row in rows
    ]
    low, high = min(row["loss"] for row in rows), max(row["loss"] for row in rows)
    # Landscapes rise steeply off the basin: a logarithm shows both, where the values allow it.
    kind = {"type": "log"} if low > 0 and high > 20 * low else {}
    scale = alt.Scale(scheme="viridis", reverse=True, **kind)
    base = alt.Chart(alt.Data(values=cells)).mark_rect().encode(
        x=alt.X("x1:Q", title=x_title, scale=alt.Scale(nice=False, zero=False)), x2="x2:Q",
        y=alt.Y("y1:Q", title=y_title, scale=alt.Scale(nice=False, zero=False)), y2="y2:Q",
        color=alt.Color("loss:Q", title=title, scale=scale),
        tooltip=[alt.Tooltip(f"{n}:Q", format=".4g") for n in ("x", "y", "loss")],
    )  # fmt: skip
    points = alt.Chart(alt.Data(values=list(marks))).encode(x="x:Q", y="y:Q", tooltip=["name:N"])
    dots = points.mark_point(filled=True, size=90, color="#D55E00", stroke="white", strokeWidth=1.5, opacity=1)
    names = points.mark_text(dy=-12, color="#D55E00", fontWeight="bold").encode(text="name:N")
    return _finished((base + dots + names).properties(width=_WIDTH, height=_WIDTH))


def strips(rows: Sequence[Row], *, x: str, y: str, value: str, x_title: str, title: str) -> dict[str, Any]:
    """One strip of coloured cells for each name, along a common axis."""
    alt = _altair()
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
        .properties(width=_WIDTH, height=max(60, 18 * len(names)))
    )
    return _finished(chart)


def ordered_matrix(
    rows: Sequence[Row], names: Sequence[str], *, row: str, column: str, value: str, title: str, size: int = 240
) -> dict[str, Any]:
    """A heat map whose rows and columns keep a given order; values may be negative."""
    alt = _altair()
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
    return _finished(chart)


def histogram(rows: Sequence[Row], *, x_title: str, y_title: str, null: str) -> dict[str, Any]:
    """A density with its interval (``q1``, ``q2``, ``density``, ``low``, ``high``) and a null (``null``) as a line."""
    alt = _altair()
    middle = [{**row, "q": (row["q1"] + row["q2"]) / 2, "series": null} for row in rows]
    base = alt.Chart(alt.Data(values=middle))
    tooltip = [alt.Tooltip(f"{name}:Q", format=".4g") for name in ("q", "density", "low", "high", "null")]
    bars = base.mark_bar(color=PALETTE[1], opacity=0.55).encode(
        x=alt.X("q1:Q", title=x_title, scale=alt.Scale(zero=False)), x2="q2:Q", y=alt.Y("density:Q", title=y_title),
        tooltip=tooltip,
    )  # fmt: skip
    reach = base.mark_rule(color=PALETTE[1], strokeWidth=1.5).encode(x="q:Q", y="low:Q", y2="high:Q")
    line = base.mark_line(strokeWidth=2, strokeDash=[5, 3]).encode(x="q:Q", y="null:Q", color=_colour("series", [null]))
    return _finished((bars + reach + line).properties(width=280, height=200))


def steps(rows: Sequence[Row], named: Sequence[Row], *, x_title: str, y_title: str) -> dict[str, Any]:
    """A cumulative distribution with its band (``at``, ``share``, ``low``, ``high``) and marked places (``at``)."""
    alt = _altair()
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=alt.X("at:Q", title=x_title))
    band = base.mark_area(interpolate="step-after", opacity=0.25, color=PALETTE[1]).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(interpolate="step-after", color=PALETTE[1], strokeWidth=2).encode(
        y=alt.Y("share:Q", title=y_title),
        tooltip=[alt.Tooltip("at:Q", format=".4g"), alt.Tooltip("share:Q", format=".4g")],
    )
    marks = alt.Chart(alt.Data(values=list(named))).mark_tick(color=PALETTE[0], thickness=2, size=14).encode(
        x="at:Q", y=alt.value(0), tooltip=[alt.Tooltip("at:Q", format=".5g")]
    )  # fmt: skip
    return _finished((band + line + marks).properties(width=_WIDTH, height=_HEIGHT))


def tree(
    merges: Sequence[Sequence[float]],
    order: Sequence[int],
    floor: Sequence[float],
    labels: Sequence[str],
    *,
    y_title: str,
) -> dict[str, Any]:
    """A tree whose leaves hang at their own height and whose branches join at the merges' heights."""
    alt = _altair()
    place = {leaf: float(position) for position, leaf in enumerate(order)}
    height = dict(enumerate(floor))
    lines = []
    for number, (left, right, top, _) in enumerate(merges):
        node = len(labels) + number
        ends = [int(left), int(right)]
        place[node], height[node] = sum(place[end] for end in ends) / 2, top
        lines += [{"x": place[end], "y": height[end], "x2": place[end], "y2": top} for end in ends]
        lines.append({"x": place[ends[0]], "y": top, "x2": place[ends[1]], "y2": top})
    leaves = [{"x": place[leaf], "y": floor[leaf], "name": labels[leaf]} for leaf in order]
    scale = alt.Scale(zero=False)
    branches = alt.Chart(alt.Data(values=lines)).mark_rule(color=PALETTE[1], strokeWidth=1.5).encode(
        x=alt.X("x:Q", axis=None), x2="x2:Q", y=alt.Y("y:Q", title=y_title, scale=scale), y2="y2:Q",
        tooltip=[alt.Tooltip("y2:Q", format=".4g", title=y_title)],
    )  # fmt: skip
    named = alt.Chart(alt.Data(values=leaves)).encode(
        x="x:Q", y="y:Q", tooltip=["name:N", alt.Tooltip("y:Q", format=".4g")]
    )
    dots = named.mark_point(filled=True, size=40, color=PALETTE[0], opacity=1)
    return _finished((branches + dots).properties(width=_WIDTH, height=_HEIGHT))


def bars(
    rows: Sequence[Row], *, x: str, y: str, x_title: str, series: str, order: Sequence[str] = ()
) -> dict[str, Any]:
    """Horizontal bars, grouped by ``y`` and coloured by ``series``."""
    alt = _altair()
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar()
        .encode(
            x=alt.X(f"{x}:Q", title=x_title),
            y=alt.Y(f"{y}:N", title=None, sort=list(dict.fromkeys(str(entry[y]) for entry in rows))),
            yOffset=alt.YOffset(f"{series}:N", sort=list(order) or None),
            color=_colour(series, order or _names(rows, series)),
            tooltip=[f"{y}:N", f"{series}:N", alt.Tooltip(f"{x}:Q", format=".4g")],
        )
        .properties(width=_WIDTH)
    )
    return _finished(chart)


def scatter(
    rows: Sequence[Row], *, x: str, y: str, y_title: str, panel: str, series: str, name: str, columns: int = 3
) -> dict[str, Any]:
    """Points in panels side by side, each with an axis of its own for ``x``; hovering tells which point it is."""
    alt = _altair()
    width = 2 * _WIDTH // columns
    panels = [
        alt.Chart(alt.Data(values=[row for row in rows if row[panel] == title]))
        .mark_point(filled=True, size=45, opacity=0.85)
        .encode(
            x=alt.X(f"{x}:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4, format="~g")),
            y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=False)),
            color=_colour(series, _names(rows, series)),
            tooltip=[
                alt.Tooltip(f"{name}:N"),
                alt.Tooltip(f"{x}:Q", format=".4g"),
                alt.Tooltip(f"{y}:Q", format=".4g"),
            ],
        )
        .properties(width=width, height=width)
        for title in dict.fromkeys(row[panel] for row in rows)
    ]
    return _finished(alt.concat(*panels, columns=columns))


def sharing(  # noqa: D417
    rows: Sequence[Row],
    layers: Sequence[str],
    groups: Sequence[str],
    *,
    order: Sequence[str],
    titles: Mapping[str, str],
) -> dict[str, Any]:
    """Layers down, groups across, a cell where they meet and a thread through the cells of each group.

    Args:
        rows: ``layer``, ``group``, ``part`` (one of ``order``), and what hovering tells, by the keys of ``titles``.
    """
    alt = _altair()
    place = {layer: number for number, layer in enumerate(layers)}
    met: dict[str, list[int]] = {}
    for row in rows:
        met.setdefault(row["group"], []).append(place[row["layer"]])
    threads = [{"group": name, "layer": layers[min(at)], "last": layers[max(at)]} for name, at in met.items()]
    down, across = (max(4, min(18, most // max(1, n))) for n, most in ((len(layers), 1800), (len(groups), 420)))
    names = [alt.Axis(labelLimit=300, labelFontSize=min(11, step), labels=step >= 7) for step in (down, across)]
    names[1].labelAngle = -90
    y = alt.Y("layer:N", title=None, sort=list(layers), axis=names[0], scale=alt.Scale(domain=list(layers)))
    x = alt.X("group:N", title=None, sort=list(groups), axis=names[1], scale=alt.Scale(domain=list(groups)))
    rule = alt.Chart(alt.Data(values=threads)).mark_rule(color="#8a949e", strokeWidth=1.5, opacity=0.6).encode(
        x=x, y=y, y2="last:N", tooltip=[alt.Tooltip("group:N", title=titles["group"])]
    )  # fmt: skip
    cells = alt.Chart(alt.Data(values=list(rows))).mark_rect(stroke="white", strokeWidth=0.5).encode(
        x=x, y=y, color=_colour("part", order),
        tooltip=[alt.Tooltip(f"{key}:N", title=title) for key, title in titles.items()],
    )  # fmt: skip
    return _finished((rule + cells).properties(width=alt.Step(across), height=alt.Step(down)))


def chosen(spec: Mapping[str, Any], *, field: str, value: str) -> dict[str, Any]:
    """A chart that shows only the rows whose ``field`` is chosen; the page's own menu sets the parameter."""
    parameter = {"name": f"chosen_{field}", "value": value}
    keep = {"filter": f"datum[{field!r}] === chosen_{field}"}
    return {**spec, "params": [*spec.get("params", []), parameter], "transform": [keep, *spec.get("transform", [])]}


def write_picture(spec: Mapping[str, Any], path: str | Path) -> Path:
    """Write a chart as ``.svg``, ``.png`` or ``.pdf``, without a browser; text in black on white.

    Raises:
        SettingError: another suffix.
    """
    import json

    import vl_convert

    target = Path(path)
    text = json.dumps(spec).replace("currentColor", "black")
    if target.suffix == ".svg":
        content = vl_convert.vegalite_to_svg(text).encode()
    elif target.suffix == ".png":
        content = vl_convert.vegalite_to_png(
            text.replace('"background": "transparent"', '"background": "white"'), scale=2
        )
    elif target.suffix == ".pdf":
        content = vl_convert.vegalite_to_pdf(text)
    else:
        raise SettingError(f"a picture is written as .svg, .png or .pdf, got {target.name}")
    with atomic(target) as temporary:
        temporary.write_bytes(content)
    return target


def _step(values: Sequence[float]) -> float:
    """The distance between neighbours of an even grid."""
    return (values[-1] - values[0]) / (len(values) - 1) if len(values) > 1 else 1.0


def _altair() -> Any:
    """Altair, imported where a chart is drawn; untyped, since its generated signatures refuse plain dictionaries."""
    return importlib.import_module("altair")


def _colour(series: str, order: Sequence[str], *, legend: bool = True) -> Any:
    alt = _altair()
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(order))]
    longest, whole = max(map(len, order)), sum(map(len, order))
    # A legend wider than the chart would shrink it: long names get lines of their own.
    columns = len(order) if whole <= 48 else 2 if longest <= 24 else 1
    return alt.Color(
        f"{series}:N",
        title=None,
        sort=list(order),
        scale=alt.Scale(domain=list(order), range=colours),
        legend=alt.Legend(columns=columns) if legend else None,
    )


def _names(rows: Sequence[Row], series: str) -> list[str]:
    return list(dict.fromkeys(str(row[series]) for row in rows))


def _finished(chart: Any) -> dict[str, Any]:
    """The definition with the house style: transparent paper, ink in the reader's colour, legend below."""
    ink = {"labelColor": "currentColor", "titleColor": "currentColor"}
    styled = (
        chart.configure(background="transparent", font="system-ui, sans-serif", padding=4)
        .configure_axis(
            **ink,
            domainColor="#8a949e",
            tickColor="#8a949e",
            gridColor="#8a949e",
            gridOpacity=0.25,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
        )
        .configure_legend(**ink, orient="bottom", symbolType="circle", labelLimit=320, labelFontSize=11)
        .configure_view(stroke=None)
    )
    return styled.to_dict()
