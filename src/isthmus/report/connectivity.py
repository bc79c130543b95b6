"""Sections about paths between solutions: curves and pairwise barriers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

CONVENTIONS = ("loss_barrier", "loss_barrier_over_mean", "error_barrier", "error_barrier_over_mean", "midpoint")
CONNECTED = 0.02  # of the error, as in Frankle et al. 2020 and Sharma et al. 2024


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


def policy_text(curve: Mapping[str, Any], words: Words) -> str:
    """What was done to running statistics between the solutions; of the ends, what that changes."""
    policy = curve["normalisation"]
    if policy == "reestimate" and not curve.get("treated", True):  # older results do not say
        return words("policy.none")
    said = words(f"policy.{policy}")
    if curve.get("treated_ends"):
        own, treated = ((curve["loss"][0], curve["loss"][-1]), [end["loss"] for end in curve["treated_ends"]])
        places = {"own": own, "treated": treated}
        said += " " + words(
            "policy.ends", **{f"{n}_{i}": f"{v:.3g}" for n, both in places.items() for i, v in enumerate(both)}
        )
    return said


def barrier_section(values: Mapping[str, Any], words: Words) -> Section:
    """One barrier: curves, heights, policy."""
    name = values.get("label") or words("curve.line")
    heights = [[words(f"convention.{kind}"), values.get(kind)] for kind in CONVENTIONS]
    rows = [[t, *(_values(values, m)[i] for m in ("loss", "error"))] for i, t in enumerate(values["positions"])]
    return Section(
        words("barrier.title"),
        text=[words("barrier.text", examples=values["examples"]), policy_text(values, words)],
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
        text=[words("pairs.text", n=len(names)), *_policies(values, words)],
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
    return Section(
        words("pairs.title"),
        text=[words("pairs.text", n=len(names)), *_policies(found["naive"], words)],
        figures=drawn,
        tables=[Table(words("table.interval"), columns, rows)],
        definitions=definitions(words),
        headline=_headline(found, words),
    )


def _policies(pairs: Mapping[str, Any], words: Words) -> list[str]:
    """Of many pairs what holds for all; of one pair also what its ends would score."""
    curves = list(pairs["curves"].values())
    one = curves[0] if len(curves) == 1 else {**curves[0], "treated_ends": None} if curves else None
    return [] if one is None else [policy_text(one, words)]


def _headline(found: Mapping[str, Mapping[str, Any]], words: Words) -> str:
    """Whether the solutions are connected: as they are, after the best alignment, or not."""
    kind = "loss_barrier" if _mean(found["naive"], "error_barrier") is None else "error_barrier"
    best = min(([n for n in found if n != "naive"] or ["naive"]), key=lambda name: _mean(found[name], kind))
    naive, aligned = found["naive"]["intervals"], found[best]["intervals"]
    said = {
        "naive_loss": interval_text(naive["loss_barrier"]),
        "aligned_loss": interval_text(aligned["loss_barrier"]),
        "method": words(f"method.{best}"),
    }
    if kind == "loss_barrier":  # a regression: nothing says how high is too high
        return words("pairs.headline" if len(found) == 1 else "pairs.headline.aligned", **said)
    said |= {
        "quantity": words("pairs.one" if len(found["naive"]["names"]) == 2 else "pairs.mean"),
        "threshold": f"{CONNECTED:.0%}",
        "naive": interval_text(naive["error_barrier"], ".1%"),
        "aligned": interval_text(aligned["error_barrier"], ".1%"),
    }
    if _mean(found["naive"], "error_barrier") <= CONNECTED:
        return words("pairs.connected", **said)
    if len(found) == 1:
        return words("pairs.apart.naive", **said)
    return words("pairs.permuted" if _mean(found[best], "error_barrier") <= CONNECTED else "pairs.apart", **said)


def _mean(pairs: Mapping[str, Any], kind: str) -> Any:
    return pairs["intervals"].get(kind, {}).get("estimate")


def _values(curve: Mapping[str, Any], measure: str) -> list[float | None]:
    if measure in curve:
        return curve[measure]
    return curve["metrics"].get(measure, [None] * len(curve["positions"]))
