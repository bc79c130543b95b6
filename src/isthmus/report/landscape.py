"""Sections about the landscape around solutions: flatness, spectra, walks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.connectivity import interval_text
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
    first = min(zip(values["random"], values["names"], strict=True), key=lambda pair: pair[0]["rise"])[1]
    return Section(
        words("flatness.title"),
        text=[words("flatness.scale" if values["scale_removed"] else "flatness.text")],
        figures=[Figure(words("flatness.rise"), spec, description=said)],
        tables=[Table(words("flatness.title"), columns, rows)],
        headline=words("flatness.headline", name=first) if len(values["names"]) > 1 else "",
    )


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
    spec = figures.scatter(
        points, x="sharpness", y="gap", y_title=words(f"generalisation.gap.{values['gap']}"), panel="measure",
        series="setting", name="network",
    )  # fmt: skip
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
    said = "; ".join(f"{row[0]}: {row[2]}" for row in rows)
    return Section(
        words("generalisation.title"),
        text=text,
        figures=[Figure(words("generalisation.figure"), spec, description=said)],
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


def spectrum_section(values: Mapping[str, Any], words: Words) -> Section:
    """The cumulative density with its interval, and the eigenvalues at the ends."""
    found = values["density"]
    rows = [
        {"at": at, "share": share, "low": low, "high": high}
        for at, share, low, high in zip(found["at"], found["cumulative"], found["low"], found["high"], strict=True)
    ]
    named = [{"at": value} for value in values["largest"]["values"]]
    spec = figures.steps(rows, named, x_title=words("spectrum.value"), y_title=words("spectrum.share"))
    columns, table = eigenvalue_rows(values, words)
    text = [words("spectrum.text", matrix=words(f"spectrum.{values['matrix']}"), size=found["size"])]
    if values["classes"]:
        overlaps = values["classes"]["class_overlap"]
        text.append(words("spectrum.classes", share=f"{sum(overlaps) / len(overlaps):.0%}", n=len(overlaps)))
    top = values["largest"]["values"][0]
    return Section(
        words("spectrum.title"),
        text=text,
        figures=[Figure(words("spectrum.title"), spec, caption=words("spectrum.caption"), description=f"{top:.4g}")],
        tables=[Table(words("spectrum.ends"), columns, table)],
        headline=words("spectrum.headline", top=f"{top:.4g}"),
    )


def eigenvalue_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Eigenvalues, residuals, and the share of each eigenvector that the classes span."""
    overlaps = values["classes"]["class_overlap"] if values["classes"] else []
    rows = []
    for place, (value, residual) in enumerate(
        zip(values["largest"]["values"], values["largest"]["residuals"], strict=True)
    ):
        rows.append([value, residual, overlaps[place] if place < len(overlaps) else None])
    for value, residual in zip(
        *((values["smallest"] or {}).get(name, []) for name in ("values", "residuals")), strict=True
    ):
        rows.append([value, residual, None])
    return [words(f"spectrum.{name}") for name in ("value", "residual", "overlap")], rows


def walk_section(values: Mapping[str, Any], words: Words) -> Section:
    """What walkers saw against steps and against distance; barriers to partly permuted copies."""
    walk = values["walk"]
    rows = [
        {"series": str(number), "step": step, "distance": walk["distance"][number][place], "loss": loss}
        for number, losses in enumerate(walk["loss"])
        for place, (step, loss) in enumerate(zip(walk["steps"], losses, strict=True))
        if loss is not None
    ]
    by_step = figures.curves(
        rows, x="step", y="loss", x_title=words("walk.steps"), y_title=words("curve.loss"), legend=False
    )
    by_distance = figures.curves(
        rows, x="distance", y="loss", x_title=words("walk.distance"), y_title=words("curve.loss"), legend=False
    )
    last = [losses[-1] for losses in walk["loss"] if losses[-1] is not None]
    said = f"{min(last):.3g} … {max(last):.3g}" if last else ""
    drawn = [
        Figure(words("walk.by_step"), by_step, description=said),
        Figure(words("walk.by_distance"), by_distance, description=said),
    ]
    columns, table = walk_rows(values, words)
    tables = [Table(words("walk.table"), columns, table)]
    if values["permutations"]:
        columns, table = permutation_rows(values["permutations"], words)
        points = [{"series": values["permutations"]["group"], "share": row[1], "barrier": row[2]} for row in table]
        spec = figures.curves(
            points, x="share", y="barrier", x_title=words("walk.share"), y_title=words("convention.loss_barrier")
        )
        drawn.append(Figure(words("walk.permuted"), spec, description="; ".join(f"{r[0]}: {r[2]:.3g}" for r in table)))
        tables.append(Table(words("walk.permuted"), columns, table))
    headline = ""
    if last:
        end = sum(last) / len(last)
        headline = words("walk.headline", steps=walk["steps"][-1], start=f"{walk['loss'][0][0]:.3g}", end=f"{end:.3g}")
    title = words("walk.title", name=values["name"])
    return Section(title, text=walk["notes"], figures=drawn, tables=tables, headline=headline)


def walk_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """What the walk amounts to, one quantity a row."""
    walk, rugged, spread = values["walk"], values["ruggedness"], values["displacement"]
    means = {name: [row[-1] for row in walk[name] if row[-1] is not None] for name in ("loss", "overlap", "distance")}
    rows: list[list[Any]] = [[words("walk.start"), walk["loss"][0][0]]]
    rows += [[words(f"walk.end.{name}"), sum(v) / len(v) if v else None] for name, v in means.items()]
    rows.append([words("walk.acceptance"), sum(walk["acceptance"]) / len(walk["acceptance"])])
    if rugged:
        rows.append([words("walk.length"), interval_text(rugged["length"])])
    if spread:
        rows.append([words("walk.exponent"), interval_text(spread["exponent"])])
    return [words("walk.quantity"), words("table.value")], rows


def permutation_rows(found: Mapping[str, Any], words: Words) -> Rows:
    """Mean barrier to copies with k of h units permuted."""
    rows = [
        [moved, moved / found["units"], sum(barriers) / len(barriers)]
        for moved, barriers in zip(found["moved"], found["barrier"], strict=True)
    ]
    return [words("walk.moved"), words("walk.share"), words("convention.loss_barrier")], rows
