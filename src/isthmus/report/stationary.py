"""The section about the stationary law: measured variances against the predicted ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def stationary_section(values: Mapping[str, Any], words: Words) -> Section:
    """One figure and one table of directions for each kind of noise and each place."""
    kinds = list(dict.fromkeys(law["kind"] for _, law in _laws(values, words)))
    return Section(
        words("stationary.title"),
        text=stationary_text(values, words),
        figures=[_figure(place, law, words) for place, law in _laws(values, words)],
        tables=[stationary_table(values, words), *_directions(values, words)],
        definitions=[(words(f"stationary.kind.{kind}"), words(f"stationary.meaning.{kind}")) for kind in kinds],
        headline=headline(values, words),
        leading=1,
    )


def stationary_text(values: Mapping[str, Any], words: Words) -> list[str]:
    """The law, where the walkers start, and what was done to get there."""
    said = [words("stationary.text")]
    if values["gradient_norm"] is not None:
        norm, lowest = (_short(values[name]) for name in ("gradient_norm", "lowest"))
        said.append(words("stationary.minimum", norm=norm, lowest=lowest, decay=f"{values['weight_decay']:g}"))
    if values["settling"]:
        before, after = (_short(values["settling"][name]) for name in ("before", "gradient_norm"))
        said.append(
            words("stationary.settled", before=before, after=after, iterations=values["settling"]["iterations"])
        )
    if values["forced"]:
        said.append(words("stationary.forced"))
    return said


def stationary_table(values: Mapping[str, Any], words: Words) -> Table:
    """One row for each kind of noise and place."""
    rows = []
    for place, law in _laws(values, words):
        found, ratio = law["found"], law["ratio"]
        kept = [value for value in found["ratio"] if value is not None]
        within = sum(abs(value - 1) <= 0.05 for value in kept)
        rows.append([
            place,
            words(f"stationary.kind.{law['kind']}"),
            interval_text(ratio) if ratio else "–",
            f"{len(kept)} / {len(found['ratio'])}",
            f"{within} / {len(kept)}",
            _short(law["spread"]),
            _short(law["expected_spread"]),
            f"{found['rate']:.3g}, {found['batch_size']}, {found['walkers']}, {found['steps']}",
        ])  # fmt: skip
    names = ("place", "kind", "ratio", "relaxed", "within", "spread", "expected", "setting")
    return Table(words("stationary.summary"), [words(f"stationary.column.{name}") for name in names], rows)


def headline(values: Mapping[str, Any], words: Words) -> str:
    """The mean ratios, those of the network where there is one."""
    parts = []
    for law in values["network"] or values["quadratic"]:
        kind = words(f"stationary.kind.{law['kind']}")
        said = "stationary.said" if law["ratio"] else "stationary.said.none"
        parts.append(
            words(said, kind=kind, ratio=interval_text(law["ratio"])) if law["ratio"] else words(said, kind=kind)
        )
    return words("stationary.headline", parts="; ".join(parts))


def _laws(values: Mapping[str, Any], words: Words) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for law in values["network"]:
        yield values["name"], law
    for law in values["quadratic"]:
        yield words("stationary.quadratic"), law


def _figure(place: str, law: Mapping[str, Any], words: Words) -> Figure:
    found = law["found"]
    states = {True: words("stationary.relaxed"), False: words("stationary.unrelaxed")}
    rows = []
    for index, curvature in enumerate(found["values"]):
        measured, predicted, error = (found[name][index] for name in ("measured", "predicted", "errors"))
        if curvature <= 0 or not predicted or measured <= 0:
            continue
        interval = law["intervals"][index]
        ends = [interval["low"] * predicted, interval["high"] * predicted] if interval else [measured] * 2
        rows.append({
            "curvature": curvature, "measured": measured, "predicted": predicted,
            "state": states[found["relaxed"][index]],
            "low": max(ends[0], measured - 3 * error, 1e-3 * measured), "high": ends[1],
        })  # fmt: skip
    names = {"kind": words(f"stationary.kind.{law['kind']}"), "place": place}
    spec = figures.law(
        rows, x="curvature", y="measured", line="predicted", x_title=words("stationary.column.curvature"),
        y_title=words("stationary.axis"), series="state", order=[state for state in states.values() if any(
            row["state"] == state for row in rows)],
    )  # fmt: skip
    said = "; ".join(f"λ {row['curvature']:.3g}: {row['measured']:.3g} ({row['predicted']:.3g})" for row in rows)
    # Where no direction relaxed there is no spread to speak of.
    known = law["spread"] is not None and law["expected_spread"] is not None
    spread = {"spread": _short(law["spread"]), "expected": _short(law["expected_spread"])} if known else {}
    caption = words("stationary.caption" if known else "stationary.caption.unknown", **spread)
    return Figure(words("stationary.figure", **names), spec, caption=caption, description=said)


def _directions(values: Mapping[str, Any], words: Words) -> list[Table]:
    names = ("curvature", "predicted", "measured", "ratio", "drift", "state")
    columns = [words(f"stationary.column.{name}") for name in names]
    tables = []
    for place, law in _laws(values, words):
        found = law["found"]
        rows = [
            [
                *(_short(found[name][index]) for name in ("values", "predicted", "measured")),
                interval_text(interval) if interval else "–",
                _short(found["drift"][index]),
                words("stationary.relaxed" if found["relaxed"][index] else "stationary.unrelaxed"),
            ]
            for index, interval in enumerate(law["intervals"])
        ]
        kind = words(f"stationary.kind.{law['kind']}")
        tables.append(Table(words("stationary.directions", kind=kind, place=place), columns, rows))
    return tables


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
