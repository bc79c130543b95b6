"""Sections about the landscape around solutions: flatness, spectra, walks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

Rows = tuple[list[str], list[list[Any]]]


def flatness_section(values: Mapping[str, Any], words: Words) -> Section:
    """One row of measures for each solution."""
    columns, rows = flatness_rows(values, words)
    drawn = [
        {"name": name, "measure": words(f"flatness.{kind}"), "rise": sharpness["rise"]}
        for kind in ("random", "worst", "adaptive")
        for name, sharpness in zip(values["names"], values[kind], strict=True)
    ]
    order = [words(f"flatness.{kind}") for kind in ("random", "worst", "adaptive")]
    spec = figures.bars(drawn, x="rise", y="name", x_title=words("flatness.rise"), series="measure", order=order)
    said = "; ".join(f"{row['name']}, {row['measure']}: {row['rise']:.3g}" for row in drawn)
    return Section(
        words("flatness.title"),
        text=[words("flatness.scale" if values["scale_removed"] else "flatness.text")],
        figures=[Figure(words("flatness.rise"), spec, description=said)],
        tables=[Table(words("flatness.title"), columns, rows)],
        headline=_flattest(values, words) if len(values["names"]) > 1 else "",
    )


def _flattest(values: Mapping[str, Any], words: Words) -> str:
    """The solution that every perturbation calls the flattest, or that they disagree."""
    kinds = ("random", "worst", "adaptive")
    first = {
        kind: min(zip(values[kind], values["names"], strict=True), key=lambda pair: pair[0]["rise"])[1]
        for kind in kinds
    }
    if len(set(first.values())) == 1:
        return words("flatness.headline", name=first["random"])
    parts = "; ".join(f"{words(f'flatness.{kind}')}: {name}" for kind, name in first.items())
    return words("flatness.headline.disagree", parts=parts)


def flatness_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Loss, curvature and the rises of the loss."""
    kinds = ("name", "loss", "eigenvalue", "trace", "random", "worst", "adaptive")
    rows = []
    for place, name in enumerate(values["names"]):
        random = values["random"][place]
        rows.append(
            [
                name,
                values["scores"][place]["loss"],
                values["eigenvalues"][place]["values"][0],
                interval_text(values["trace"][place]["interval"]),
                interval_text(random["interval"]) if random["interval"] else random["rise"],
                values["worst"][place]["rise"],
                values["adaptive"][place]["rise"],
            ]
        )
    return [words(f"flatness.{kind}") for kind in kinds], rows


def generalisation_section(values: Mapping[str, Any], words: Words) -> Section:
    """Sharpness against the generalisation gap, measure by measure, and the correlations."""
    points = [
        {
            "measure": words(f"flatness.{measure}"),
            "sharpness": column[place],
            "gap": subject["gap"],
            "setting": words("generalisation.setting", rate=f"{subject['rate']:g}", batch=subject["batch_size"]),
            "network": subject["name"],
        }
        for measure, column in values["sharpness"].items()
        for place, subject in enumerate(values["subjects"])
        if subject["matched"]
    ]
    # A chart for each measure: side by side in one, they could not be read on a narrow page.
    specs = {
        measure: figures.scatter(
            [point for point in points if point["measure"] == measure], x="sharpness", y="gap", x_title=measure,
            y_title=words(f"generalisation.gap.{values['gap']}"), series="setting",
            order=figures.distinct(points, "setting"), name="network",
        )
        for measure in figures.distinct(points, "measure")
    }  # fmt: skip
    verdict, grid = values["verdict"], values["grid"]
    columns, rows = correlation_rows(values, words)
    low, high = verdict["loss_range"]
    text = [
        words("generalisation.text", target=grid["target"], low=f"{low:.3g}", high=f"{high:.3g}"),
        words(
            "generalisation.count", used=verdict["networks"], unmatched=verdict["unmatched"], lost=values["diverged"]
        ),
        words("flatness.scale" if values["scale_removed"] else "flatness.text"),
    ]
    said = {row[0]: f"{columns[2]}: {row[2]}" for row in rows}
    return Section(
        words("generalisation.title"),
        text=text,
        figures=[
            Figure(words("generalisation.figure", measure=measure), spec, description=said.get(measure, ""))
            for measure, spec in specs.items()
        ],
        tables=[Table(words("generalisation.table"), columns, rows)],
        headline=_generalisation_headline(verdict, words),
    )


def correlation_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Rank correlations with the gap, one measure a row."""
    names = ("measure", "plain", "partial", "within", "p", "says")
    level = values["verdict"]["level"]
    rows = [
        [
            words(f"flatness.{each['measure']}"),
            *(interval_text(each[kind]) for kind in ("plain", "partial", "within")),
            each["p_corrected"],
            words(f"generalisation.{_says(each, level)}"),
        ]
        for each in values["verdict"]["correlations"]
    ]
    return [words(f"generalisation.{name}") for name in names], rows


def _says(each: Mapping[str, Any], level: float) -> str:
    partial = each["partial"]
    if each["p_corrected"] > 1 - level or partial["low"] is None or not partial["low"] * partial["high"] > 0:
        return "nothing"
    return "flat" if partial["estimate"] > 0 else "sharp"


def _generalisation_headline(verdict: Mapping[str, Any], words: Words) -> str:
    said = [_says(each, verdict["level"]) for each in verdict["correlations"]]
    return words(
        "generalisation.headline", n=len(said), **{name: said.count(name) for name in ("flat", "sharp", "nothing")}
    )
