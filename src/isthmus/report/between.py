"""Sections about what lies between and around solutions: curves, layers, planes, repaired averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.connectivity import CONVENTIONS, curve_figures, definitions, policy_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

_CURVATURE = ("loss", "largest", "smallest", "trace", "trace_reach")


def paths_section(values: Mapping[str, Any], words: Words) -> Section:
    """A line and a learned curve between two solutions, and the layers one by one."""
    curves = {words(f"path.{name}"): curve for name, curve in values["curves"].items()}
    drawn = curve_figures(curves, words)
    rows = [[words(f"convention.{kind}"), *(curve[kind] for curve in curves.values())] for kind in CONVENTIONS]
    rows.append([words("path.uncertainty"), *(curve["uncertainty"] for curve in curves.values())])
    tables = [Table(words("barrier.heights"), [words("table.convention"), *curves], rows)]
    for metric in (name for name in values["curves"]["line"]["metrics"] if name != "error"):
        points = [
            {"series": name, "t": t, "value": value}
            for name, curve in curves.items()
            for t, value in zip(curve["positions"], curve["metrics"][metric], strict=True)
        ]
        spec = figures.curves(points, x="t", y="value", x_title=words("curve.axis"), y_title=metric, order=list(curves))
        highest = "; ".join(f"{name}: {max(curve['metrics'][metric]):.3g}" for name, curve in curves.items())
        drawn.append(Figure(words(f"path.metric.{metric}"), spec, description=highest))
    if values["layers"]:
        drawn.append(_layers_figure(values["layers"], words))
        heights = values["layers"]["heights"]
        rows = [
            [name, heights["loss_barrier"][i], heights["error_barrier"][i]]
            for i, name in enumerate(values["layers"]["layers"])
        ]
        columns = [words("layers.layer"), words("convention.loss_barrier"), words("convention.error_barrier")]
        tables.append(Table(words(f"layers.{values['layers']['mode']}"), columns, rows))
    if values.get("curvature"):
        drawn += _curvature_figures(values["curvature"], words)
        tables.append(_curvature_table(values["curvature"], words))
    line = values["curves"]["line"]
    text = [words("barrier.text", examples=line["examples"]), policy_text(line, words)]
    if values["learned"]:
        text.append(words("path.learned", **values["learned"]))
    return Section(
        " – ".join(values["names"]),
        text=text,
        figures=drawn,
        tables=tables,
        definitions=definitions(words),
        headline=words("path.headline", **{name: f"{c['loss_barrier']:.3g}" for name, c in values["curves"].items()})
        if "curve" in values["curves"]
        else words("path.headline.line", line=f"{line['loss_barrier']:.3g}", error=_share(line["error_barrier"])),
    )


def surface_section(values: Mapping[str, Any], words: Words) -> Section:
    """The loss on a plane, with the solutions marked."""
    rows = [
        {"x": x, "y": y, "loss": values["loss"][i][j]}
        for i, x in enumerate(values["x"])
        for j, y in enumerate(values["y"])
        if values["loss"][i][j] is not None
    ]
    names = values.get("names") or [str(i) for i in range(len(values["points"]))]
    marks = [{"x": x, "y": y, "name": name} for (x, y), name in zip(values["points"], names, strict=False)]
    spec = figures.plane(rows, marks, x_title=words("plane.x"), y_title=words("plane.y"), title=words("curve.loss"))
    losses = [row["loss"] for row in rows]
    said = words("plane.description", low=f"{min(losses):.3g}", high=f"{max(losses):.3g}")
    table = [
        [mark["name"], mark["x"], mark["y"], score["loss"], score["metrics"].get("error")]
        for mark, score in zip(marks, values["scores"], strict=False)
    ]
    columns = [words("plane.solution"), words("plane.x"), words("plane.y"), words("curve.loss"), words("curve.error")]
    drawn = [Figure(words("plane.title"), spec, description=said)]
    if values.get("curvature"):
        drawn.append(_curvature_map(values["curvature"], marks, words))
    return Section(
        words("plane.title"),
        text=[words("plane.text"), words(f"policy.{values['normalisation']}")],
        figures=drawn,
        tables=[Table(words("plane.solutions"), columns, table)],
        headline=said,
    )


def repaired_section(values: Mapping[str, Any], words: Words) -> Section:
    """An average before and after its repair, and the variance that each layer keeps."""
    scores = [[words(f"repair.{name}"), s["loss"], 1 - s["metrics"]["error"]] for name, s in values["scores"].items()]
    variance = values["variance"]
    rows = [
        {"layer": layer, "series": words(f"repair.{name}"), "ratio": ratio}
        for name in ("average", "repaired")
        for layer, ratio in zip(variance[name]["layers"], variance[name]["ratio"], strict=True)
    ]
    order = [words("repair.average"), words("repair.repaired")]
    spec = figures.bars(rows, x="ratio", y="layer", x_title=words("repair.ratio"), series="series", order=order)
    kept = ", ".join(f"{row['layer']}: {row['ratio']:.2f}" for row in rows if row["series"] == order[0])
    return Section(
        " – ".join(values["names"]),
        text=[words("repair.text", t=values["t"])],
        figures=[Figure(words("repair.variance"), spec, caption=words("repair.caption"), description=kept)],
        tables=[
            Table(
                words("demo.merge.title"),
                [words("demo.merge.what"), words("demo.merge.loss"), words("demo.merge.accuracy")],
                scores,
            )
        ],
        headline=words(
            "repair.headline",
            **{name: f"{1 - values['scores'][name]['metrics']['error']:.3f}" for name in ("average", "repaired")},
        ),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _layers_figure(layers: Mapping[str, Any], words: Words) -> Figure:
    rows = [
        {"layer": name, "t": t, "loss": layers["loss"][i][j]}
        for i, name in enumerate(layers["layers"])
        for j, t in enumerate(layers["positions"])
    ]
    spec = figures.strips(rows, x="t", y="layer", value="loss", x_title=words("curve.axis"), title=words("curve.loss"))
    said = "; ".join(f"{n}: {h:.3g}" for n, h in zip(layers["layers"], layers["heights"]["loss_barrier"], strict=True))
    return Figure(words(f"layers.{layers['mode']}"), spec, description=said)


def _curvature_figures(curves: Mapping[str, Any], words: Words) -> list[Figure]:
    """The largest eigenvalue and the trace along every path."""
    named = {words(f"path.{name}"): curve for name, curve in curves.items()}
    drawn = []
    for kind in ("largest", "trace"):
        rows = [
            {"series": name, "t": t, "value": value}
            for name, curve in named.items()
            for t, value in zip(curve["positions"], curve[kind], strict=True)
        ]
        title = words(f"curvature.{kind}")
        spec = figures.curves(rows, x="t", y="value", x_title=words("curve.axis"), y_title=title, order=list(named))
        said = "; ".join(f"{name}: {min(c[kind]):.3g} … {max(c[kind]):.3g}" for name, c in named.items())
        drawn.append(Figure(title, spec, caption=words("curvature.caption"), description=said))
    return drawn


def _curvature_table(curves: Mapping[str, Any], words: Words) -> Table:
    rows = [
        [words(f"path.{name}"), t, *(curve[kind][place] for kind in _CURVATURE)]
        for name, curve in curves.items()
        for place, t in enumerate(curve["positions"])
    ]
    columns = [
        words("curvature.path"),
        words("curvature.position"),
        *(words(f"curvature.{kind}") for kind in _CURVATURE),
    ]
    return Table(words("curvature.title"), columns, rows)


def _curvature_map(values: Mapping[str, Any], marks: list[dict[str, Any]], words: Words) -> Figure:
    """The largest eigenvalue on a plane; coarser than the loss."""
    rows = [
        {"x": x, "y": y, "loss": values["largest"][i][j]}
        for i, x in enumerate(values["first"])
        for j, y in enumerate(values["second"])
    ]
    title = words("curvature.largest")
    spec = figures.plane(rows, marks, x_title=words("plane.x"), y_title=words("plane.y"), title=title)
    said = f"{min(row['loss'] for row in rows):.3g} … {max(row['loss'] for row in rows):.3g}"
    return Figure(title, spec, caption=words("curvature.caption"), description=said)
