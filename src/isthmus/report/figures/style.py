"""The house style that all charts share, and what they are made with."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report.figures.colours import PALETTE, colours

WIDTH, HEIGHT = 350, 250  # two side by side on a page

# Ticks of any size: no zeros that say nothing, and no powers where plain digits are as short.
TICKS = "abs(datum.value) < 10000 ? format(datum.value, '.4~r') : format(datum.value, '~g')"

# Told apart at the size of a point; the first is what a legend shows where there is no more than one.
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])

Row = Mapping[str, Any]


def chosen(spec: Mapping[str, Any], *, field: str, value: str) -> dict[str, Any]:
    """A chart that shows only the rows whose ``field`` is chosen; the page's own menu sets the parameter."""
    parameter = {"name": f"chosen_{field}", "value": value}
    keep = {"filter": f"datum[{field!r}] === chosen_{field}"}
    return {**spec, "params": [*spec.get("params", []), parameter], "transform": [keep, *spec.get("transform", [])]}


def zoom() -> Any:
    """Moving by dragging, zooming by the wheel with Shift held: the wheel alone must go on scrolling the page."""
    return altair().selection_interval(bind="scales", zoom="wheel![event.shiftKey]", name="zoom")


def altair() -> Any:
    """Altair, imported where a chart is drawn; untyped, since its generated signatures refuse plain dictionaries."""
    return importlib.import_module("altair")


def colour(
    series: str,
    order: Sequence[str],
    *,
    legend: bool = True,
    shown: Sequence[str] | None = None,
    symbol: str | None = None,
) -> Any:
    """The colour of each series, in the palette's order and beyond it, with a legend that fits under a chart.

    Charts that stand together give one ``order`` and each its own series as ``shown``: then colours mean the same in
    all, and each legend names what its chart holds. ``symbol`` is ``stroke`` for lines without points.
    """
    alt = altair()
    longest, whole = max(map(len, order)), sum(map(len, order))
    # A legend wider than the chart would shrink it: long names get lines of their own.
    columns = len(order) if whole <= 48 else 2 if longest <= 24 else 1
    return alt.Color(
        f"{series}:N",
        title=None,
        sort=list(order),
        scale=alt.Scale(domain=list(order), range=colours(len(order))),
        legend=alt.Legend(
            columns=columns,
            **({"values": list(shown)} if shown is not None else {}),
            **({"symbolType": symbol} if symbol else {}),
        )
        if legend
        else None,
    )


def shape(series: str, order: Sequence[str]) -> dict[str, Any]:
    """The shape of each series' points, beside its :func:`colour`, where the palette does not suffice."""
    return _beyond("shape", altair().Shape, SHAPES, series, order)


def dash(series: str, order: Sequence[str]) -> dict[str, Any]:
    """The dashes of each series' line, beside its :func:`colour`, where the palette does not suffice."""
    return _beyond("strokeDash", altair().StrokeDash, DASHES, series, order)


def _beyond(channel: str, encoding: Any, kinds: Sequence[Any], series: str, order: Sequence[str]) -> dict[str, Any]:
    """Another kind for every turn through the palette; nothing where one turn is enough."""
    if len(order) <= len(PALETTE):
        return {}
    turns = [kinds[place // len(PALETTE) % len(kinds)] for place in range(len(order))]
    scale = altair().Scale(domain=list(order), range=turns)
    return {channel: encoding(f"{series}:N", title=None, sort=list(order), scale=scale)}


def distinct(rows: Sequence[Row], series: str) -> list[str]:
    """The values of a field, each once, in the order of the rows."""
    return list(dict.fromkeys(str(row[series]) for row in rows))


def finished(chart: Any) -> dict[str, Any]:
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
            labelFlush=False,
            labelOverlap="greedy",
        )
        .configure_legend(**ink, orient="bottom", symbolType="circle", labelLimit=320, labelFontSize=11)
        .configure_view(stroke=None)
    )
    return styled.to_dict()
