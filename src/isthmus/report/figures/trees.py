"""What belongs to what: trees of joins, layers that share a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report.figures.style import HEIGHT, PALETTE, WIDTH, Row, altair, colour, finished


def tree(
    merges: Sequence[Sequence[float]],
    order: Sequence[int],
    floor: Sequence[float],
    labels: Sequence[str],
    *,
    y_title: str,
) -> dict[str, Any]:
    """A tree whose leaves hang at their own height and whose branches join at the merges' heights."""
    alt = altair()
    lines = branches(merges, order, floor)
    place = {leaf: float(position) for position, leaf in enumerate(order)}
    leaves = [{"x": place[leaf], "y": floor[leaf], "name": labels[leaf]} for leaf in order]
    scale = alt.Scale(zero=False)
    wood = alt.Chart(alt.Data(values=lines)).mark_rule(color=PALETTE[1], strokeWidth=1.5).encode(
        x=alt.X("x:Q", axis=None), x2="x2:Q", y=alt.Y("y:Q", title=y_title, scale=scale), y2="y2:Q",
        tooltip=[alt.Tooltip("y2:Q", format=".4g", title=y_title)],
    )  # fmt: skip
    named = alt.Chart(alt.Data(values=leaves)).encode(
        x="x:Q", y="y:Q", tooltip=["name:N", alt.Tooltip("y:Q", format=".4g")]
    )
    dots = named.mark_point(filled=True, size=40, color=PALETTE[0], opacity=1)
    return finished((wood + dots).properties(width=WIDTH, height=HEIGHT))


def branches(merges: Sequence[Sequence[float]], order: Sequence[int], floor: Sequence[float]) -> list[dict[str, float]]:
    """The straight pieces of a tree, from each end up to its join and across; leaves stand in the given order."""
    place = {leaf: float(position) for position, leaf in enumerate(order)}
    height = dict(enumerate(floor))
    lines = []
    for number, (left, right, top, _) in enumerate(merges):
        node = len(floor) + number
        ends = [int(left), int(right)]
        place[node], height[node] = sum(place[end] for end in ends) / 2, top
        lines += [{"x": place[end], "y": height[end], "x2": place[end], "y2": top} for end in ends]
        lines.append({"x": place[ends[0]], "y": top, "x2": place[ends[1]], "y2": top})
    return lines


def sharing(
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
        layers: from the top.
        groups: from the left.
        order: the parts, in the legend's order.
        titles: what people read for each key.
    """
    alt = altair()
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
        x=x, y=y, color=colour("part", order),
        tooltip=[alt.Tooltip(f"{key}:N", title=title) for key, title in titles.items()],
    )  # fmt: skip
    return finished((rule + cells).properties(width=alt.Step(across), height=alt.Step(down)))
