"""How values are spread: histograms and cumulative shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import HEIGHT, PALETTE, WIDTH, Row, altair, colour, finished


def histogram(rows: Sequence[Row], *, x_title: str, y_title: str, null: str) -> dict[str, Any]:
    """A density with its interval (``q1``, ``q2``, ``density``, ``low``, ``high``) and a null (``null``) as a line."""
    alt = altair()
    middle = [{**row, "q": (row["q1"] + row["q2"]) / 2, "series": null} for row in rows]
    base = alt.Chart(alt.Data(values=middle))
    tooltip = [alt.Tooltip(f"{name}:Q", format=".4g") for name in ("q", "density", "low", "high", "null")]
    # A bar with two ends along x would be drawn as a stroke at its height; a rectangle reaches down to zero.
    bars = base.mark_rect(color=PALETTE[1], opacity=0.55).encode(
        x=alt.X("q1:Q", title=x_title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)), x2="q2:Q",
        y=alt.Y("density:Q", title=y_title), y2=alt.datum(0), tooltip=tooltip,
    )  # fmt: skip
    reach = base.mark_rule(color=PALETTE[1], strokeWidth=1.5).encode(x="q:Q", y="low:Q", y2="high:Q")
    layers: Any = bars + reach
    if any(row["null"] is not None for row in rows):
        shown = colour("series", [null], symbol="stroke")
        layers += base.mark_line(strokeWidth=2, strokeDash=[5, 3]).encode(x="q:Q", y="null:Q", color=shown)
    return finished(layers.properties(width=280, height=200))


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


def outliers(
    rows: Sequence[Row], marks: Sequence[Row], *, x_title: str, y_title: str, order: Sequence[str]
) -> dict[str, Any]:
    """A smoothed density on a logarithmic axis, with single values beside it that are marked and named.

    Args:
        rows: ``at`` and ``density``, positive.
        marks: ``at``, ``name`` (may be empty), ``kind`` (one of ``order``) and ``top``, where on the density's axis its
            stem ends.
        x_title: of the values.
        y_title: of the density.
        order: the kinds, as in the legend.
    """
    alt = altair()
    x = alt.X("at:Q", title=x_title)
    scale = alt.Scale(type="log", nice=False)
    heights = [row["density"] for row in rows]
    decades = range(math.ceil(math.log10(min(heights))), math.floor(math.log10(max(heights))) + 1)
    ticks = alt.Axis(values=[10.0**power for power in decades], format="~g")
    y = alt.Y("density:Q", title=y_title, scale=scale, stack=None, axis=ticks)
    bulk = alt.Chart(alt.Data(values=list(rows))).mark_area(
        color=PALETTE[1], opacity=0.35, line={"color": PALETTE[1], "strokeWidth": 1.5}
    ).encode(
        x=x, y=y, y2=alt.value(HEIGHT),
        tooltip=[alt.Tooltip("at:Q", format=".4g"), alt.Tooltip("density:Q", format=".3g")],
    )  # fmt: skip
    base = alt.Chart(alt.Data(values=list(marks))).encode(x=x)
    told = [alt.Tooltip("at:Q", format=".5g"), alt.Tooltip("name:N"), alt.Tooltip("kind:N")]
    stems = base.mark_rule(strokeWidth=1.5).encode(
        y=alt.Y("top:Q", scale=scale), y2=alt.value(HEIGHT), color=colour("kind", order), tooltip=told
    )
    heads = base.mark_point(filled=True, size=40, opacity=1).encode(
        y=alt.Y("top:Q", scale=scale), color=colour("kind", order), tooltip=told
    )
    # Names that would stand on each other move apart; a thread leads from each to its value.
    low, high = min(row["at"] for row in rows), max(row["at"] for row in rows)
    lift = (max(heights) / min(heights)) ** 0.06
    called = [mark for mark in marks if mark["name"]]
    places = spread([mark["at"] for mark in called], least=12 / WIDTH * (high - low), low=low, high=high)
    labels = [
        {**mark, "label_at": place, "label_top": mark["top"] * lift} for mark, place in zip(called, places, strict=True)
    ]
    aside = alt.Chart(alt.Data(values=labels)).encode(y=alt.Y("label_top:Q", scale=scale))
    threads = aside.mark_rule(strokeWidth=0.75, color="#8a949e").encode(
        x="at:Q", x2="label_at:Q", y=alt.Y("top:Q", scale=scale), y2="label_top:Q"
    )
    names = aside.mark_text(angle=270, align="left", dx=3, fontSize=10, color="currentColor").encode(
        x="label_at:Q", text="name:N"
    )
    return finished((bulk + stems + threads + heads + names).properties(width=WIDTH, height=HEIGHT))


def spread(places: Sequence[float], *, least: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Places moved as little as possible, in squares, so that neighbours lie at least so far apart and all in a range.

    Less their ranks times the distance, places must not fall: the regression that pools those that do. Where the range
    is too short for so many, they reach beyond its end.

    Example:
        >>> spread([0.0, 0.0, 9.0], least=1.0)
        [-0.5, 0.5, 9.0]
    """
    order = sorted(range(len(places)), key=lambda number: places[number])
    pools: list[list[float]] = []  # sum and count of what has one value
    for rank, number in enumerate(order):
        pools.append([places[number] - rank * least, 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
    last = max(low, high - (len(places) - 1) * least)
    level = [min(max(total / count, low), last) for total, count in pools for _ in range(int(count))]
    found = {number: value + rank * least for rank, (number, value) in enumerate(zip(order, level, strict=True))}
    return [found[number] for number in range(len(places))]
