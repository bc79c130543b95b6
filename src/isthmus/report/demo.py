"""The demonstration's page: the verdict, the way between two networks, all pairs, barrier against width, the merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.connectivity import curve_figures, definitions, matrix_figure
from isthmus.report.numbers import interval_text, power_of_ten
from isthmus.report.page import Figure, Mood, Page, Section, Table
from isthmus.report.words import Words, words_for

CONNECTED = 0.02  # error barrier below which a pair counts as linearly connected (Frankle et al., arXiv 1912.05671)
LEARNED = (
    0.2  # of the way from chance to certainty: below it, networks have no solution whose basin could be asked about
)
_METHODS = ("naive", "weights", "activations")


def demo_page(values: Mapping[str, Any], *, language: str = "en") -> Page:
    """The page of a demonstration's ``results.json``."""
    words = words_for(language)
    settings, widest = values["settings"], values["widths"][-1]
    verdict, mood = demo_verdict(values, words)
    sections = [_path(widest, words), _matrices(widest, words)]
    if len(values["widths"]) > 1:
        sections.append(_widths(values, words))
    sections += [_merge(values, words)]
    return Page(
        title=words("demo.title", model=settings["model"], data=settings["data"]),
        verdict=verdict,
        mood=mood,
        reasons=_reasons(values, words),
        sections=sections,
        provenance=values["provenance"],
        guidance=[words("demo.guidance")],
    )


def demo_verdict(values: Mapping[str, Any], words: Words) -> tuple[str, Mood]:
    """What the widest networks' barriers mean, judged by the mean error barrier over pairs and by the intervals."""
    widest = values["widths"][-1]
    naive, aligned = widest["barriers"]["naive"], _better(widest)
    accuracy = sum(widest["accuracy"]) / len(widest["accuracy"])
    chance = 1 / values["data"]["classes"]
    said = {
        "n": len(naive["names"]),
        "width": _width(widest),
        "naive": f"{_mean(naive, 'error_barrier'):.1%}",
        "aligned": f"{_mean(aligned, 'error_barrier'):.1%}",
        "naive_loss": interval_text(naive["intervals"]["loss_barrier"]),
        "aligned_loss": interval_text(aligned["intervals"]["loss_barrier"]),
    }
    if accuracy < chance + LEARNED * (1 - chance):
        return words("demo.verdict.untrained", accuracy=f"{accuracy:.1%}", chance=f"{chance:.1%}", **said), "neutral"
    if _mean(naive, "error_barrier") < CONNECTED:
        return words("demo.verdict.connected", **said), "good"
    if _mean(aligned, "error_barrier") < CONNECTED:
        return words("demo.verdict.permutation", **said), "good"
    lower = _clearly_lower(aligned["intervals"]["error_barrier"], naive["intervals"]["error_barrier"])
    return words("demo.verdict.lower" if lower else "demo.verdict.apart", **said), "mixed" if lower else "bad"


def _clearly_lower(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether intervals do not overlap; without intervals, whether the first estimate is the lower."""
    if first["high"] is None or second["low"] is None:
        return first["estimate"] < second["estimate"]
    return first["high"] < second["low"]


def _better(width: Mapping[str, Any]) -> Mapping[str, Any]:
    """The alignment with the lower barrier; the page shows both, the verdict is about whether any permutation does."""
    return min((width["barriers"][m] for m in ("weights", "activations")), key=lambda b: _mean(b, "error_barrier"))


def _mean(barriers: Mapping[str, Any], convention: str) -> float:
    return barriers["intervals"][convention]["estimate"]


def _width(width: Mapping[str, Any]) -> str:
    return f"{width['width']:g}" if width["width"] is not None else "as given"


def _reasons(values: Mapping[str, Any], words: Words) -> list[str]:
    widths, widest, merged = values["widths"], values["widths"][-1], values["merged"]
    shown = {name: f"{_mean(widest['barriers'][name], 'error_barrier'):.3f}" for name in _METHODS}
    reasons = [words("demo.reason.error", width=_width(widest), **shown)]
    if len(widths) > 1:
        first, last = (
            interval_text(w["barriers"]["weights"]["intervals"]["loss_barrier"]) for w in (widths[0], widest)
        )
        reasons.append(
            words("demo.reason.width", first=first, last=last, narrow=_width(widths[0]), wide=_width(widest))
        )
    family = interval_text(values["family"]["intervals"]["loss_barrier"])
    reasons.append(words("demo.reason.family", family=family))
    accuracy = {name: f"{entry['accuracy']:.3f}" for name, entry in merged.items()}
    ends = f"{accuracy['first']}, {accuracy['second']}"
    reasons.append(
        words(
            "demo.reason.merge",
            naive=accuracy["naive"],
            aligned=accuracy["aligned"],
            ends=ends,
            ensemble=accuracy["ensemble"],
        )
    )
    return reasons


def _path(widest: Mapping[str, Any], words: Words) -> Section:
    curves = {words(f"method.{name}"): widest["barriers"][name]["curves"]["(0, 1)"] for name in _METHODS}
    tables = []
    for measure in ("loss", "error"):
        columns = [curve["loss"] if measure == "loss" else curve["metrics"]["error"] for curve in curves.values()]
        positions = next(iter(curves.values()))["positions"]
        rows = [[t, *(column[i] for column in columns)] for i, t in enumerate(positions)]
        tables.append(Table(words(f"curve.{measure}.title"), ["t", *curves], rows))
    return Section(
        words("demo.path.title"),
        text=[words("demo.path.text", width=_width(widest))],
        figures=curve_figures(curves, words),
        tables=tables,
        definitions=definitions(words),
    )


def _matrices(widest: Mapping[str, Any], words: Words) -> Section:
    found = widest["barriers"]
    high = max(entry or 0.0 for b in found.values() for row in b["heights"]["loss_barrier"] for entry in row) or 1.0
    names = found["naive"]["names"]
    maps = [
        matrix_figure(words(f"method.{name}"), found[name]["heights"]["loss_barrier"], names, words, high=high)
        for name in _METHODS
    ]
    tables = [
        Table(
            f"{words('pairs.all')}, {words(f'method.{name}')}",
            ["", *names],
            [[row_name, *row] for row_name, row in zip(names, found[name]["heights"]["loss_barrier"], strict=True)],
        )
        for name in _METHODS
    ]
    title = words("demo.matrix.title", width=_width(widest))
    return Section(title, text=[words("demo.matrix.text")], figures=maps, tables=tables)


def _widths(values: Mapping[str, Any], words: Words) -> Section:
    rows, table = _width_rows(values, words)
    order = [words(f"method.{name}") for name in (*_METHODS, "family")]
    spec = figures.trend(
        rows,
        floor=1e-4,  # nats; far below anything that would matter
        x="width",
        y="barrier",
        x_title=words("demo.width.axis"),
        y_title=words("demo.width.y"),
        order=order,
    )
    interval = values["widths"][0]["barriers"]["naive"]["intervals"]["loss_barrier"]
    trained = [
        [width["width"], width["parameters"], power_of_ten(width["log10_size"]), max(width["training_loss"]),
         min(width["accuracy"]), max(width["accuracy"]), width["diverged"]]
        for width in values["widths"]
    ]  # fmt: skip
    return Section(
        words("demo.width.title"),
        text=[
            words("demo.width.few")
            if interval["low"] is None
            else words("demo.width.text", level=interval["level"], method=interval["method"])
        ],
        figures=[Figure(words("demo.width.title"), spec, description=_described(rows))],
        tables=[
            Table(
                words("demo.width.table"),
                [words("demo.width.column"), words("demo.way.column"), words("demo.networks.column"),
                 words("convention.loss_barrier"), words("convention.error_barrier")],
                table,
            ),
            Table(words("demo.train.table"), [words(f"demo.train.{name}") for name in _TRAINED], trained),
        ],
    )  # fmt: skip


_TRAINED = ("width", "parameters", "equivalent", "loss", "lowest", "highest", "diverged")


def _width_rows(values: Mapping[str, Any], words: Words) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """The barriers of every width by every way, for the chart and for the table."""
    cells = [(width, name, width["barriers"][name]) for width in values["widths"] for name in _METHODS]
    middle = {**values["widths"][0], "width": values["family_width"]}
    cells.append((middle, "family", values["family"]))
    rows, table = [], []
    for width, name, found in cells:
        interval, way = found["intervals"]["loss_barrier"], words(f"method.{name}")
        estimate = interval["estimate"]
        ends = {end: estimate if interval[end] is None else interval[end] for end in ("low", "high")}
        rows.append({"series": way, "width": width["width"], "barrier": estimate, **ends})
        error = interval_text(found["intervals"]["error_barrier"])
        table.append([width["width"], way, len(found["names"]), interval_text(interval), error])
    return rows, table


def _described(rows: list[dict[str, Any]]) -> str:
    return "; ".join(f"{row['series']}, {row['width']:g}: {row['barrier']:.3g}" for row in rows)


def _merge(values: Mapping[str, Any], words: Words) -> Section:
    order = ("first", "second", "naive", "aligned", "ensemble")
    rows = [
        [words(f"demo.merge.{name}"), values["merged"][name]["loss"], values["merged"][name]["accuracy"]]
        for name in order
    ]
    columns = [words("demo.merge.what"), words("demo.merge.loss"), words("demo.merge.accuracy")]
    return Section(
        words("demo.merge.title"),
        text=[words("demo.merge.text", width=_width(values["widths"][-1]))],
        tables=[Table(words("demo.merge.title"), columns, rows)],
    )
