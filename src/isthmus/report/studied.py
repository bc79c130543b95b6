"""Section about what came out of a factor study: its claims, means by cell, effects and trends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

_MOST = 4  # measures that are drawn; all are in the tables


def study_section(values: Mapping[str, Any], words: Words) -> Section:
    """Claims first, then the means of every cell, then what each factor does."""
    found, verdicts = values["effects"], values["verdicts"]
    measures = list(dict.fromkeys(cell["measure"] for cell in found["cells"]))
    claimed = [m for m in measures if any(verdict["measure"] == m for verdict in verdicts)]
    shown = [m for m in claimed or measures if _points(found["cells"], m)][:_MOST]
    text = [
        values["question"],
        words("study.text", networks=found["networks"], cells=len(_cells(found["cells"])), missing=found["missing"]),
    ]
    if found["diverged"]:
        text.append(words("study.diverged", n=found["diverged"]))
    if found["matching"] and not found["matching"]["matched"]:
        text.append(words("study.unmatched", **{k: _short(v) for k, v in found["matching"].items() if k != "kind"}))
    tables = [_verdicts(verdicts, words)] if verdicts else []
    tables.append(_means(found["cells"], measures, words))
    tables += [t for t in (_contrasts(found, words), _interactions(found, words), _trends(found, words)) if t.rows]
    return Section(
        words("study.title", name=values["study"]),
        text=[line for line in text if line],
        figures=[_figure(found["cells"], measure, words) for measure in shown],
        tables=tables,
        definitions=[
            (words("study.term.interval"), words("study.term.interval.means")),
            (words("study.term.outcome"), words("study.term.outcome.means")),
        ],
        headline=_headline(verdicts, words),
    )


def _headline(verdicts: Sequence[Mapping[str, Any]], words: Words) -> str:
    return " ".join(claim_line(verdict, words) for verdict in verdicts[:3]) or words("study.no_claims")


def claim_line(verdict: Mapping[str, Any], words: Words) -> str:
    """A claim and what became of it, in one sentence."""
    return words("study.verdict", outcome=_outcome(verdict["outcome"], words), claim=verdict["words"])


def _outcome(outcome: str, words: Words) -> str:
    key = f"study.outcome.{outcome.replace(' ', '_')}"
    return words(key) if key in words else outcome


def _figure(cells: Sequence[Mapping[str, Any]], measure: str, words: Words) -> Figure:
    rows = _points(cells, measure)
    unit = next((cell["unit"] for cell in cells if cell["measure"] == measure), "")
    title = f"{measure} ({unit})" if unit else measure
    spec = figures.intervals(rows, x="estimate", y="cell", x_title=title, series="measure", order=[measure], floor=None)
    said = "; ".join(f"{row['cell']}: {row['estimate']:.3g}" for row in rows)
    return Figure(words("study.means", measure=measure), spec, caption=words("study.caption"), description=said)


def _points(cells: Sequence[Mapping[str, Any]], measure: str) -> list[dict[str, Any]]:
    """One row a cell; cells whose networks all diverged have no mean, and one network alone has no interval."""
    rows = []
    for cell in cells:
        mean = cell["interval"]["estimate"]
        if cell["measure"] == measure and mean is not None:
            low, high = (mean if cell["interval"][end] is None else cell["interval"][end] for end in ("low", "high"))
            rows.append({"cell": _name(cell["levels"]), "measure": measure, "estimate": mean, "low": low, "high": high})
    return rows


def _cells(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    named: dict[str, dict[str, Any]] = {}
    for cell in cells:
        named.setdefault(_name(cell["levels"]), {})[cell["measure"]] = cell["interval"]
    return named


def _name(levels: Mapping[str, Any]) -> str:
    return ", ".join(f"{factor} = {level}" for factor, level in levels.items())


def _shown(interval: Mapping[str, Any] | None) -> str:
    if interval is None or interval["estimate"] is None:
        return "–"
    if interval["low"] is None or interval["high"] is None:
        return f"{interval['estimate']:.4g}"
    return f"{interval['estimate']:.4g} [{interval['low']:.4g}, {interval['high']:.4g}]"


def _short(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value


def _verdicts(verdicts: Sequence[Mapping[str, Any]], words: Words) -> Table:
    rows = [[v["words"], _outcome(v["outcome"], words), v["measure"], v["evidence"]] for v in verdicts]
    columns = [words(f"study.column.{name}") for name in ("claim", "outcome", "measure", "evidence")]
    return Table(words("study.claims"), columns, rows)


def _means(cells: Sequence[Mapping[str, Any]], measures: Sequence[str], words: Words) -> Table:
    rows = [[name, *(_shown(means.get(measure)) for measure in measures)] for name, means in _cells(cells).items()]
    return Table(words("study.cells"), [words("study.column.cell"), *measures], rows)


def _contrasts(found: Mapping[str, Any], words: Words) -> Table:
    rows = [
        [c["measure"], c["factor"], f"{c['second']} − {c['first']}", _name(c["at"]) or words("study.averaged"),
         _shown(c["difference"]), _short(c["p_corrected"])]
        for c in found["contrasts"]
    ]  # fmt: skip
    columns = [words(f"study.column.{name}") for name in ("measure", "factor", "levels", "at", "difference", "p")]
    return Table(words("study.effects"), columns, rows, note=words("study.correction"))


def _interactions(found: Mapping[str, Any], words: Words) -> Table:
    rows = [
        [one["measure"], f"{table['rows']} × {table['columns']}", f"({one['second']} − {one['first']})",
         f"{one['there']} − {one['here']}", _shown(one["difference"]), _short(one["p_corrected"])]
        for table in found["two_way"]
        for row in table["interactions"]
        for one in row
    ]  # fmt: skip
    columns = [words(f"study.column.{name}") for name in ("measure", "factor", "levels", "at", "difference", "p")]
    return Table(words("study.interactions"), columns, rows)


def _trends(found: Mapping[str, Any], words: Words) -> Table:
    rows = [
        [t["measure"], t["factor"], t["trend"]["statistic"], t["trend"]["method"], _short(t["p_corrected"])]
        for t in found["trends"]
    ]
    columns = [words(f"study.column.{name}") for name in ("measure", "factor", "statistic", "method", "p")]
    return Table(words("study.trends"), columns, rows, note=words("study.trends.note"))
