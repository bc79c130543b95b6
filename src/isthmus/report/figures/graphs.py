"""Charts of things and the steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.report.figures.style import WIDTH, Row, altair, colour, finished


def generations(nodes: Sequence[Row], steps: Sequence[Row], *, order: Sequence[str]) -> dict[str, Any]:
    """Nodes (``x``, ``y``, ``name``, ``series``, ``hollow``) and lines between them (``x``, ``y``, ``x2``, ``y2``).

    ``x`` counts generations, ``y`` places within one; further fields of a node are told when it is hovered over.
    """
    alt = altair()
    told = [field for field in (nodes[0] if nodes else {}) if field not in ("x", "y", "series", "hollow")]
    rows = 1 + max((node["y"] for node in nodes), default=0)
    across = 1 + max((node["x"] for node in nodes), default=0)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.3, across - 0.2]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[rows - 0.4, -0.6]))
    lines = alt.Chart(alt.Data(values=list(steps))).mark_rule(strokeWidth=1.5, opacity=0.75, color="#8a949e").encode(
        x=x, y=y, x2="x2:Q", y2="y2:Q", tooltip=[alt.Tooltip("made_by:N"), alt.Tooltip("role:N")]
    )  # fmt: skip
    layers: Any = lines
    for hollow in (False, True):
        some = alt.Chart(alt.Data(values=[node for node in nodes if node["hollow"] is hollow]))
        layers += some.mark_point(size=110, filled=not hollow, opacity=1, strokeWidth=2).encode(
            x=x, y=y, color=colour("series", order), tooltip=[alt.Tooltip(f"{field}:N") for field in told]
        )
    names = alt.Chart(alt.Data(values=list(nodes))).mark_text(
        align="left", dx=9, dy=-7, fontSize=10, limit=150, color="currentColor"
    )
    layers += names.encode(x=x, y=y, text="name:N")
    width = min(2 * WIDTH, max(WIDTH, 160 * across))
    return finished(layers.properties(width=width, height=max(90, min(900, 34 * rows))))
