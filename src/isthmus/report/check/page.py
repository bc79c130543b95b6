"""The page of a check: the verdict, why, what to do, then paths, capabilities, costs and the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.check.lines import (
    MOODS,
    WAYS,
    change_lines,
    deciding,
    doubt_lines,
    guidance_lines,
    names,
    pair_name,
    reason_lines,
    rule,
    verdict_line,
)
from isthmus.report.check.rows import capability_rows, item_rows, model_rows, pair_rows, signal_rows, way_rows
from isthmus.report.connectivity import definitions
from isthmus.report.numbers import power_of_ten
from isthmus.report.page import Choice, Figure, Page, Section, Table
from isthmus.report.words import Words, words_for

_TERMS = ("permutation", "repair", "retention", "distil")


def check_page(values: Mapping[str, Any], *, language: str = "en") -> Page:
    """The page of one check."""
    words = words_for(language)
    return Page(
        title=words("check.title", names=", ".join(names(values))),
        verdict=verdict_line(values, words),
        mood=MOODS[values["verdict"]] if values["compatible"] else "bad",
        reasons=reason_lines(values, words),
        guidance=[*guidance_lines(values, words), *change_lines(values, words)],
        sections=[
            _crossings(values, words),
            _capabilities(values, words),
            _ways(values, words),
            _models(values, words),
            *_doubt(values, words),
            _items(values, words),
        ],
        provenance=_reproduction(values),
        scale=[words(f"check.scale.{verdict}") for verdict in MOODS],
        place=list(MOODS).index(values["verdict"]),
    )


def check_section(values: Mapping[str, Any], words: Words) -> Section:
    """A check among other results: its paths, and every table."""
    section = _crossings(values, words)
    further = [part.tables for part in (_capabilities(values, words), _ways(values, words), _models(values, words))]
    tables = [*section.tables, *(table for part in further for table in part), *_items(values, words).tables]
    return Section(
        section.title, [verdict_line(values, words), *section.text], section.figures, tables, section.definitions,
        headline=verdict_line(values, words), choice=section.choice,
    )  # fmt: skip


def _crossings(values: Mapping[str, Any], words: Words) -> Section:
    """Loss and error on the way between two models, one pair at a time."""
    order = [words(f"check.way.{way}") for way in WAYS]
    named = {pair_name(values, pair): pair for pair in values["pairs"]}
    first = pair_name(values, deciding(values))
    drawn = []
    for measure in ("error", "loss"):
        rows = [
            {"pair": name, "series": words(f"check.way.{way}"), "t": t, measure: value}
            for name, pair in named.items()
            for way in WAYS
            if way in pair["crossings"]
            for t, value in zip(pair["crossings"][way]["positions"], pair["crossings"][way][measure], strict=True)
            if value is not None
        ]
        present = [name for name in order if any(row["series"] == name for row in rows)]
        if not rows:
            continue
        spec = figures.curves(
            rows, x="t", y=measure, x_title=words("curve.axis"), y_title=words(f"curve.{measure}"), order=present
        )
        if len(named) > 1:
            spec = figures.chosen(spec, field="pair", value=first)
        ways = named[first]["crossings"]
        tops = [
            f"{words(f'check.way.{way}')}: {max(v for v in c[measure] if v is not None):.3g}" for way, c in ways.items()
        ]
        title = words(f"curve.{measure}.title")
        drawn.append(Figure(title, spec, description=f"{title}. {first}. {words('curve.highest')}: {'; '.join(tops)}"))
    examples = next(iter(values["pairs"][0]["crossings"].values()))["examples"]
    columns, rows = pair_rows(values, words)
    return Section(
        words("check.pairs"),
        text=[words("check.pairs.text", examples=examples, threshold=f"{rule(values):.1%}")],
        figures=drawn,
        tables=[Table(words("check.pairs.table"), columns, rows, note=words("check.pairs.note"))],
        definitions=[*definitions(words), *((words(f"check.term.{t}"), words(f"check.meaning.{t}")) for t in _TERMS)],
        choice=_choice(values, words),
    )


def _capabilities(values: Mapping[str, Any], words: Words) -> Section:
    pair = deciding(values)
    retention, first = pair["retention"], pair_name(values, pair)
    named = {pair_name(values, each): each for each in values["pairs"]}
    kinds = ("first", "second", "average", "foreseen")
    labels = {kind: words(f"check.column.{kind}") for kind in kinds}
    rows = [
        {"pair": name, "capability": found["name"], "series": labels[kind], "accuracy": found[kind]}
        for name, each in named.items()
        for found in each["retention"]["capabilities"][:20]
        for kind in kinds
        if found[kind] is not None
    ]
    spec = figures.dots(
        rows, x="accuracy", y="capability", x_title=words("check.column.accuracy"), series="series",
        order=list(labels.values()),
    )  # fmt: skip
    if len(named) > 1:
        spec = figures.chosen(spec, field="pair", value=first)
    said = "; ".join(f"{c['name']}: {c['average']:.0%}" for c in retention["capabilities"][:20])
    text = [words("check.capabilities.text", floor=f"{retention['floor']:.1%}")]
    if retention["rank_correlation"] is not None:
        text.append(words("check.capabilities.rank", value=f"{retention['rank_correlation']:.2f}"))
    columns, table = capability_rows(values, words)
    caption = words("check.capabilities.caption", pair=first, way=words(f"check.way.{pair['best']}"))
    figure = Figure(words("check.capabilities.figure"), spec, caption=caption, description=f"{caption} {said}")
    tables = [Table(words("check.capabilities"), columns, table)]
    return Section(words("check.capabilities"), text, [figure], tables, choice=_choice(values, words))


def _choice(values: Mapping[str, Any], words: Words) -> Choice | None:
    """A menu of the pairs, where there are several; it opens on the one that decides."""
    names = tuple(pair_name(values, pair) for pair in values["pairs"])
    if len(names) < 2:
        return None
    return Choice(words("check.choose"), "pair", names, pair_name(values, deciding(values)))


def _ways(values: Mapping[str, Any], words: Words) -> Section:
    columns, rows = way_rows(values, words)
    return Section(words("check.ways"), [words("check.ways.text")], (), [Table(words("check.ways"), columns, rows)])


def _models(values: Mapping[str, Any], words: Words) -> Section:
    columns, rows = model_rows(values, words)
    copies = values["log10_copies"]
    text = [words("check.models.text", examples=values["examples"])]
    text.append(
        words("check.models.copies", copies=power_of_ten(copies))
        if copies is not None
        else words("check.models.no_copies")
    )
    tables = [Table(words("check.models"), columns, rows)]
    if values["obstacles"]:
        tables.append(
            Table(words("symmetry.obstacles"), [words("symmetry.obstacle.reason")], [[o] for o in values["obstacles"]])
        )
    return Section(words("check.models"), text, (), tables)


def _doubt(values: Mapping[str, Any], words: Words) -> list[Section]:
    lines = doubt_lines(values, words)
    if not lines:
        return []
    columns, rows = signal_rows(values, words)
    table = Table(words("check.doubt.table"), columns, rows, note=words("check.doubt.note"))
    return [Section(words("check.doubt"), lines, (), [table] if rows else [])]


def _items(values: Mapping[str, Any], words: Words) -> Section:
    columns, rows = item_rows(values, words)
    passed = sum(item["passed"] for item in values["items"])
    text = words("check.items.text", passed=passed, total=len(values["items"]))
    return Section(words("check.items"), [text], (), [Table(words("check.items"), columns, rows)])


def _reproduction(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**values["provenance"], "thresholds": values["thresholds"], "effort": values["effort"]}
