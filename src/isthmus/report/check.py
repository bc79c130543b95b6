"""The page of a check: the verdict, why, what to do, then paths, capabilities, costs and the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from isthmus.report import figures
from isthmus.report.connectivity import definitions, interval_text
from isthmus.report.page import Choice, Figure, Mood, Page, Section, Table
from isthmus.report.words import Words, words_for

WAYS = ("naive", "weights", "activations", "repair")
_MOODS: Mapping[str, Mood] = {"as_they_are": "good", "permutation": "good", "repair": "mixed", "apart": "bad"}
Rows = tuple[list[str], list[list[Any]]]


def check_page(values: Mapping[str, Any], *, language: str = "en") -> Page:
    """The page of one check."""
    words = words_for(language)
    return Page(
        title=words("check.title", names=", ".join(_names(values))),
        verdict=verdict_line(values, words),
        mood=_MOODS[values["verdict"]] if values["compatible"] else "bad",
        reasons=reason_lines(values, words),
        guidance=[*guidance_lines(values, words), *change_lines(values, words)],
        sections=[
            _crossings(values, words),
            _capabilities(values, words),
            _ways(values, words),
            _models(values, words),
            _items(values, words),
        ],
        provenance=_reproduction(values),
        scale=[words(f"check.scale.{verdict}") for verdict in _MOODS],
        place=list(_MOODS).index(values["verdict"]),
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


def verdict_line(values: Mapping[str, Any], words: Words) -> str:
    """The answer in plain words."""
    said = words(f"check.verdict.{values['verdict']}")
    if values["verdict"] != "apart" and not values["compatible"]:
        said = words("check.verdict.unsound")
    if not values["established"]:
        said = f"{said} {words('check.verdict.open')}"
    return said


def reason_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """Why: the deciding pair by every way, agreement, what is lost, what fails."""
    pair = _deciding(values)
    lines = [words("check.reason.pair", pair=_pair_name(values, pair), threshold=f"{_rule(values):.1%}")]
    for way in WAYS:
        if way in pair["crossings"]:
            crossing = pair["crossings"][way]
            said = {"way": words(f"check.way.{way}"), "barrier": _share(crossing["error_barrier"])}
            lines.append(words("check.reason.way", **said, accuracy=f"{crossing['accuracy']:.1%}"))
    agreed = {"share": f"{pair['agreement']:.1%}", "chance": f"{pair['chance_agreement']:.1%}"}
    lines.append(words("check.reason.agreement", pair=_pair_name(values, pair), **agreed))
    known = [c for c in pair["retention"]["capabilities"] if c["kept"]["estimate"] is not None]
    if known:
        least = min(known, key=lambda c: c["kept"]["estimate"])
        kept = _share(least["kept"])
        lines.append(
            words("check.reason.retention", way=words(f"check.way.{pair['best']}"), name=least["name"], kept=kept)
        )
    for item in values["items"]:
        if item["point"] == "chance" and not item["passed"]:
            lines.append(words("check.reason.chance", names=", ".join(item["models"])))
        if item["point"] == "floors" and not item["passed"] and values["thresholds"]["floors"]:
            lines.append(words("check.reason.floors", names=", ".join(item["models"])))
    return lines


def guidance_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """What to do, for who does not know the field."""
    key = values["verdict"] if values["compatible"] or values["verdict"] == "apart" else "unsound"
    return [words(f"check.guidance.{key}"), words("check.guidance.same")]


def change_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """What would change the verdict."""
    lines = []
    for change in values["changes"]:
        shown = {
            "threshold": lambda v: f"{v:.2%}",
            "stricter": lambda v: f"{v:.2%}",
            "examples": lambda v: f"{v:,.0f}",
            "without": lambda v: _names(values)[int(v)],
        }[change["what"]](change["value"])
        short = words(f"check.short.{change['verdict']}")
        lines.append(words(f"check.change.{change['what']}", value=shown, verdict=short))
    return lines


def pair_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Every pair by every way: error barrier with its interval, and the verdict."""
    ways = [way for way in WAYS if any(way in pair["crossings"] for pair in values["pairs"])]
    columns = [words("check.column.pair"), *(words(f"check.way.{way}") for way in ways)]
    columns += [words(f"check.column.{name}") for name in ("verdict", "agreement", "preference")]
    rows = [
        [
            _pair_name(values, pair),
            *(_share(pair["crossings"][way]["error_barrier"]) if way in pair["crossings"] else None for way in ways),
            words(f"check.short.{pair['verdict']}"),
            f"{pair['agreement']:.1%}",
            f"{pair['preference']:.0%}",
        ]
        for pair in values["pairs"]
    ]
    return columns, rows


def model_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Every model by itself."""
    kinds = ("model", "accuracy", "loss", "calibration", "flatness", "eigenvalue", "distinct")
    rows = []
    for model in values["models"]:
        identity, sharpness = model["redundancy"], model["sharpness"]
        rows.append(
            [
                model["name"],
                _share(model["accuracy"]),
                interval_text(model["loss"]),
                f"{model['calibration']:.1%}",
                sharpness and sharpness["rise"],
                model["eigenvalue"],
                identity and f"10^{identity['log10_distinct']:.0f}",
            ]
        )
    return [words(f"check.column.{kind}") for kind in kinds], rows


def way_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Every way forward with its cost."""
    kinds = ("way", "open", "seconds", "inference", "accuracy")
    rows = []
    for way in values["ways"]:
        about = "≈ " if way["estimated"] else ""
        right = "–" if way["accuracy"] is None else f"{way['accuracy']:.1%}"
        rows.append(
            [
                words(f"check.forward.{way['name']}"), words("check.yes" if way["open"] else "check.no"),
                f"{about}{_duration(way['seconds'], words)}", f"× {way['inference']:g}", right,
            ]
        )  # fmt: skip
    return [words(f"check.column.{kind}") for kind in kinds], rows


def item_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """The checklist with ticks and crosses, and why each point matters."""
    rows = []
    for item in values["items"]:
        tick = words("check.tick") if item["passed"] else words("check.cross")
        failing = ", ".join(item["models"]) or "–"
        rows.append([words(f"check.item.{item['point']}"), tick, failing, words(f"check.item.{item['point']}.why")])
    return [words(f"check.column.{name}") for name in ("item", "passed", "failing", "why")], rows


def capability_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Every capability of every pair: the ends, their average, what is kept, what was foreseen."""
    kinds = ("pair", "capability", "first", "second", "average", "kept", "foreseen")
    rows = []
    for pair in values["pairs"]:
        for found in pair["retention"]["capabilities"]:
            rates = [f"{found[name]:.1%}" for name in ("first", "second", "average")]
            foreseen = "–" if found["foreseen_kept"] is None else f"{found['foreseen_kept']:.0%}"
            rows.append([_pair_name(values, pair), found["name"], *rates, _share(found["kept"]), foreseen])
    return [words(f"check.column.{kind}") for kind in kinds], rows


def junit(values: Mapping[str, Any], words: Words) -> str:
    """The answer as JUnit XML: one case for each pair, and one for each point of the checklist.

    A pair that must be kept apart fails, and so do models at chance and floors that are not reached; points of the
    checklist that the verdict does not depend on are skipped with their reason.
    """
    cases: list[tuple[str, str, str, str]] = []
    for pair in values["pairs"]:
        fails = pair["verdict"] == "apart"
        heights = "; ".join(
            f"{words(f'check.way.{way}')}: {_share(c['error_barrier'])}" for way, c in pair["crossings"].items()
        )
        cases.append(("isthmus.check.pair", _pair_name(values, pair), "failure" if fails else "", heights))
    for item in values["items"]:
        binding = item["point"] == "chance" or (item["point"] == "floors" and values["thresholds"]["floors"])
        kind = "" if item["passed"] else "failure" if binding else "skipped"
        meaning = words(f"check.item.{item['point']}.why")
        why = f"{meaning} ({', '.join(item['models']) or '–'})"
        cases.append(("isthmus.check.item", words(f"check.item.{item['point']}"), kind, why))
    count = {kind: str(sum(case[2] == kind for case in cases)) for kind in ("failure", "skipped")}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root, "testsuite", name="isthmus check", tests=str(len(cases)), failures=count["failure"],
        skipped=count["skipped"], errors="0",
    )  # fmt: skip
    for group, name, kind, said in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=group, name=_printable(name))
        if kind:
            ElementTree.SubElement(case, kind, message=_printable(said))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters, not even escaped."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _crossings(values: Mapping[str, Any], words: Words) -> Section:
    """Loss and error on the way between two models, one pair at a time."""
    order = [words(f"check.way.{way}") for way in WAYS]
    named = {_pair_name(values, pair): pair for pair in values["pairs"]}
    first = _pair_name(values, _deciding(values))
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
        text=[words("check.pairs.text", examples=examples, threshold=f"{_rule(values):.1%}")],
        figures=drawn,
        tables=[Table(words("check.pairs.table"), columns, rows, note=words("check.pairs.note"))],
        definitions=[*definitions(words), *((words(f"check.term.{t}"), words(f"check.meaning.{t}")) for t in _TERMS)],
        choice=_choice(values, words),
    )


_TERMS = ("permutation", "repair", "retention", "distil")


def _capabilities(values: Mapping[str, Any], words: Words) -> Section:
    pair = _deciding(values)
    retention, first = pair["retention"], _pair_name(values, pair)
    named = {_pair_name(values, each): each for each in values["pairs"]}
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
    names = tuple(_pair_name(values, pair) for pair in values["pairs"])
    if len(names) < 2:
        return None
    return Choice(words("check.choose"), "pair", names, _pair_name(values, _deciding(values)))


def _ways(values: Mapping[str, Any], words: Words) -> Section:
    columns, rows = way_rows(values, words)
    return Section(words("check.ways"), [words("check.ways.text")], (), [Table(words("check.ways"), columns, rows)])


def _models(values: Mapping[str, Any], words: Words) -> Section:
    columns, rows = model_rows(values, words)
    copies = values["log10_copies"]
    text = [words("check.models.text", examples=values["examples"])]
    text.append(
        words("check.models.copies", log10=f"{copies:.0f}") if copies is not None else words("check.models.no_copies")
    )
    tables = [Table(words("check.models"), columns, rows)]
    if values["obstacles"]:
        tables.append(
            Table(words("symmetry.obstacles"), [words("symmetry.obstacle.reason")], [[o] for o in values["obstacles"]])
        )
    return Section(words("check.models"), text, (), tables)


def _items(values: Mapping[str, Any], words: Words) -> Section:
    columns, rows = item_rows(values, words)
    passed = sum(item["passed"] for item in values["items"])
    text = words("check.items.text", passed=passed, total=len(values["items"]))
    return Section(words("check.items"), [text], (), [Table(words("check.items"), columns, rows)])


def _reproduction(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**values["provenance"], "thresholds": values["thresholds"], "effort": values["effort"]}


def _names(values: Mapping[str, Any]) -> list[str]:
    return [model["name"] for model in values["models"]]


def _pair_name(values: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    names = _names(values)
    return f"{names[pair['first']]} – {names[pair['second']]}"


def _deciding(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pair that is hardest to connect: of the last verdict, with the highest barrier."""
    order = list(_MOODS)

    def hardness(pair: Mapping[str, Any]) -> tuple[int, float]:
        height = pair["crossings"][pair["best"]]["error_barrier"]["estimate"]
        return order.index(pair["verdict"]), float("inf") if height is None else height

    return max(values["pairs"], key=hardness)


def _rule(values: Mapping[str, Any]) -> float:
    return values["thresholds"]["barrier"]


def _share(interval: Mapping[str, Any]) -> str:
    """An interval of a share, in per cent."""
    if interval["estimate"] is None:
        return "–"
    if interval["low"] is None:
        return f"{interval['estimate']:.1%}"
    return f"{interval['estimate']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"


def _duration(seconds: float, words: Words) -> str:
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return words(f"check.{unit}", n=f"{seconds / size:.1f}")
    return words("check.seconds", n=f"{seconds:.2g}")
