"""The section about walks from one solution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

Rows = tuple[list[str], list[list[Any]]]


def walk_section(values: Mapping[str, Any], words: Words) -> Section:
    """What walkers saw against steps and against distance; whether they came back; partly permuted copies."""
    walk = values["walk"]
    last = [losses[-1] for losses in walk["loss"] if losses[-1] is not None]
    said = f"{min(last):.3g} … {max(last):.3g}" if last else ""
    drawn = [_fan(walk, "step", words, said), _fan(walk, "distance", words, said)]
    columns, table = walk_rows(values, words)
    tables = [Table(words("walk.table"), columns, table)]
    if values["returns"]:
        drawn.append(_rates(values["returns"], words))
        columns, table = return_rows(values["returns"], words)
        tables.append(Table(words("walk.returns"), columns, table))
    if values["permutations"]:
        drawn.append(_permuted(values["permutations"], words))
        columns, table = permutation_rows(values["permutations"], words)
        tables.append(Table(words("walk.permuted"), columns, table))
    headline = ""
    if last:
        end = sum(last) / len(last)
        headline = words("walk.headline", steps=walk["steps"][-1], start=f"{walk['loss'][0][0]:.3g}", end=f"{end:.3g}")
    title = words("walk.title", name=values["name"])
    notes = [*walk["notes"], *(values["returns"] or {}).get("notes", ())]
    return Section(title, text=notes, figures=drawn, tables=tables, headline=headline)


def walk_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """What the walk amounts to, one quantity a row."""
    walk, rugged, spread = values["walk"], values["ruggedness"], values["displacement"]
    means = {name: [row[-1] for row in walk[name] if row[-1] is not None] for name in ("loss", "overlap", "distance")}
    rows: list[list[Any]] = [[words("walk.start"), walk["loss"][0][0]]]
    rows += [[words(f"walk.end.{name}"), sum(v) / len(v) if v else None] for name, v in means.items()]
    rows.append([words("walk.acceptance"), sum(walk["acceptance"]) / len(walk["acceptance"])])
    if rugged:
        rows.append([words("walk.length"), interval_text(rugged["length"])])
    if values["effective"]:
        found = values["effective"]
        rows.append([words("walk.effective", looks=found["looks"]), found["total"]])
        rows.append([words("walk.agreement"), found["agreement"]])
    if spread:
        rows.append([words("walk.exponent"), interval_text(spread["exponent"])])
    return [words("walk.quantity"), words("table.value")], rows


def return_rows(found: Mapping[str, Any], words: Words) -> Rows:
    """For every number of steps the share of walkers that fell back into the start's basin."""
    rows = [
        [steps, f"{rate:.0%} [{low:.0%}, {high:.0%}]", sum(undecided), _mean(heights), _mean(overlaps)]
        for steps, rate, low, high, undecided, heights, overlaps in zip(
            *(found[name] for name in ("steps", "rate", "low", "high", "undecided", "barrier", "overlap")), strict=True
        )
    ]
    names = ("steps", "came_back", "undecided", "return_barrier", "return_overlap")
    return [words(f"walk.{name}") for name in names], rows


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def permutation_rows(found: Mapping[str, Any], words: Words) -> Rows:
    """Barriers to copies with k of h units permuted, network by network."""
    rows = [
        [name, moved, moved / each["units"], sum(heights) / len(heights), min(heights), max(heights)]
        for name, each in found.items()
        for moved, heights in zip(each["moved"], each["barrier"], strict=True)
    ]
    names = ["walk.network", "walk.moved", "walk.share", "convention.loss_barrier", "walk.lowest", "walk.highest"]
    return [words(name) for name in names], rows


def _fan(walk: Mapping[str, Any], across: str, words: Words, said: str) -> Figure:
    """Every walker's loss, thin, and their mean at each look over it."""
    rows, middle = [], []
    for place, step in enumerate(walk["steps"]):
        here = [
            {"series": str(number), "step": step, "distance": walk["distance"][number][place], "loss": losses[place]}
            for number, losses in enumerate(walk["loss"])
            if losses[place] is not None and walk["distance"][number][place] is not None
        ]
        rows += here
        if here:
            middle.append({name: sum(row[name] for row in here) / len(here) for name in ("step", "distance", "loss")})
    title = words("walk.steps" if across == "step" else "walk.distance")
    names = [words("walk.each"), words("walk.mean")]
    spec = figures.fan(rows, middle, x=across, y="loss", x_title=title, y_title=words("curve.loss"), names=names)
    return Figure(words(f"walk.by_{across}"), spec, description=said)


def _rates(found: Mapping[str, Any], words: Words) -> Figure:
    rows = [
        {"series": words("walk.came_back"), "steps": steps, "rate": rate, "low": low, "high": high}
        for steps, rate, low, high in zip(*(found[name] for name in ("steps", "rate", "low", "high")), strict=True)
    ]
    spec = figures.trend(rows, x="steps", y="rate", x_title=words("walk.steps"), y_title=words("walk.came_back"))
    said = "; ".join(f"{row['steps']}: {row['rate']:.0%}" for row in rows)
    caption = words("walk.returns_caption", tolerance=f"{found['tolerance']:g}", n=len(found["returned"][0]))
    return Figure(words("walk.returns"), spec, caption=caption, description=said)


def _permuted(found: Mapping[str, Any], words: Words) -> Figure:
    """Barriers against k/h on a logarithmic axis, one line for each network."""
    rows = [
        {"series": name, "share": moved / each["units"], "barrier": sum(h) / len(h), "low": min(h), "high": max(h)}
        for name, each in found.items()
        for moved, h in zip(each["moved"], each["barrier"], strict=True)
    ]
    highest = max(row["high"] for row in rows)
    # Four decades show what a barrier of a wide network is; rounding lies below.
    floor = max(highest * 1e-4, 1e-8)
    spec = figures.trend(
        rows, x="share", y="barrier", x_title=words("walk.share"), y_title=words("convention.loss_barrier"),
        floor=floor,
    )  # fmt: skip
    said = "; ".join(f"{row['series']}, {row['share']:.3g}: {row['barrier']:.3g}" for row in rows)
    return Figure(words("walk.permuted"), spec, caption=words("walk.permuted_caption"), description=said)
