"""Sections about paths between solutions: curves and pairwise barriers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

CONVENTIONS = ("loss_barrier", "loss_barrier_over_mean", "error_barrier", "error_barrier_over_mean", "midpoint")


def definitions(words: Words) -> list[tuple[str, str]]:
    """What the barrier's conventions mean."""
    return [(words(f"convention.{name}"), words(f"convention.{name}.meaning")) for name in CONVENTIONS]


def curve_figures(curves: Mapping[str, Mapping[str, Any]], words: Words, *, where: str = "") -> list[Figure]:
    """Loss and error along the path, one line for each named barrier."""
    drawn = []
    for measure in ("loss", "error"):
        rows = [
            {"series": name, "t": t, measure: value}
            for name, curve in curves.items()
            for t, value in zip(curve["positions"], _values(curve, measure), strict=True)
            if value is not None
        ]
        if not rows:
            continue
        title = words(f"curve.{measure}.title")
        spec = figures.curves(
            rows, x="t", y=measure, x_title=words("curve.axis"), y_title=words(f"curve.{measure}"), order=list(curves)
        )
        said = "; ".join(
            f"{name}: {words('curve.highest')} {max(v for v in _values(curve, measure) if v is not None):.3g}"
            for name, curve in curves.items()
        )
        drawn.append(Figure(title, spec, caption=where, description=f"{title}. {said}"))
    return drawn


def matrix_figure(
    title: str, matrix: Sequence[Sequence[float | None]], names: Sequence[str], words: Words, *, high: float
) -> Figure:
    """A heat map of pairwise barriers; ``high`` is shared between maps that are compared."""
    rows = [
        {"first": a, "second": b, "barrier": matrix[i][j]} for i, a in enumerate(names) for j, b in enumerate(names)
    ]
    spec = figures.matrix(rows, row="first", column="second", value="barrier", title=words("matrix.scale"), high=high)
    off = [matrix[i][j] or 0.0 for i in range(len(names)) for j in range(len(names)) if i < j]
    said = words("matrix.description", low=f"{min(off):.3g}", high=f"{max(off):.3g}") if off else ""
    return Figure(title, spec, description=f"{title}. {said}")


def interval_text(interval: Mapping[str, Any]) -> str:
    """An estimate with its interval, as text."""
    if interval.get("low") is None:
        return f"{interval['estimate']:.3g}"
    return f"{interval['estimate']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def barrier_section(values: Mapping[str, Any], words: Words) -> Section:
    """One barrier: curves, heights, policy."""
    name = values.get("label") or words("curve.line")
    heights = [[words(f"convention.{kind}"), values.get(kind)] for kind in CONVENTIONS]
    rows = [[t, *(_values(values, m)[i] for m in ("loss", "error"))] for i, t in enumerate(values["positions"])]
    return Section(
        words("barrier.title"),
        text=[words("barrier.text", policy=values["normalisation"], examples=values["examples"])],
        figures=curve_figures({name: values}, words),
        tables=[
            Table(words("barrier.heights"), [words("table.convention"), words("table.value")], heights),
            Table(words("barrier.points"), ["t", words("curve.loss"), words("curve.error")], rows),
        ],
        definitions=definitions(words),
    )


def pair_barriers_section(values: Mapping[str, Any], words: Words) -> Section:
    """The barriers of all pairs of a set."""
    names, matrix = values["names"], values["heights"]["loss_barrier"]
    high = max((entry or 0.0) for row in matrix for entry in row) or 1.0
    rows = [[words(f"convention.{kind}"), interval_text(values["intervals"][kind])] for kind in CONVENTIONS]
    return Section(
        words("pairs.title"),
        text=[words("pairs.text", n=len(names), policy=values["normalisation"])],
        figures=[matrix_figure(words("pairs.matrix"), matrix, names, words, high=high)],
        tables=[
            Table(words("pairs.means"), [words("table.convention"), words("table.interval")], rows),
            Table(words("pairs.all"), ["", *names], [[name, *row] for name, row in zip(names, matrix, strict=True)]),
        ],
        definitions=definitions(words),
    )


def comparison_section(values: Mapping[str, Any], words: Words) -> Section:
    """Barriers of all pairs, as the solutions are and after alignment."""
    found = values["barriers"]
    names = values["names"]
    high = max(entry or 0.0 for b in found.values() for row in b["heights"]["loss_barrier"] for entry in row) or 1.0
    if len(names) == 2:
        drawn = curve_figures({words(f"method.{name}"): b["curves"]["(0, 1)"] for name, b in found.items()}, words)
    else:
        drawn = [
            matrix_figure(words(f"method.{name}"), b["heights"]["loss_barrier"], names, words, high=high)
            for name, b in found.items()
        ]
    rows = [
        [words(f"convention.{kind}"), *(interval_text(b["intervals"][kind]) for b in found.values())]
        for kind in CONVENTIONS
    ]
    columns = [words("table.convention"), *(words(f"method.{name}") for name in found)]
    policy = next(iter(found.values()))["normalisation"]
    return Section(
        words("pairs.title"),
        text=[words("pairs.text", n=len(names), policy=policy)],
        figures=drawn,
        tables=[Table(words("table.interval"), columns, rows)],
        definitions=definitions(words),
        headline=_headline(found, words),
    )


def _headline(found: Mapping[str, Mapping[str, Any]], words: Words) -> str:
    """The mean loss barrier as the solutions are, and the lowest after an alignment."""
    naive = interval_text(found["naive"]["intervals"]["loss_barrier"])
    aligned = [name for name in found if name != "naive"]
    if not aligned:
        return words("pairs.headline", naive=naive)
    best = min(aligned, key=lambda name: found[name]["intervals"]["loss_barrier"]["estimate"])
    after = interval_text(found[best]["intervals"]["loss_barrier"])
    return words("pairs.headline.aligned", naive=naive, aligned=after, method=words(f"method.{best}"))


def _values(curve: Mapping[str, Any], measure: str) -> list[float | None]:
    if measure in curve:
        return curve[measure]
    return curve["metrics"].get(measure, [None] * len(curve["positions"]))
