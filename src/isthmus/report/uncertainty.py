"""The section about how far an objective can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

_PATTERN = " of labels wrong"  # ends the name of a source


def uncertainty_section(values: Mapping[str, Any], words: Words) -> Section:
    """The risk table first, then the labels to check, then what was measured at the solution."""
    return Section(
        words("uncertainty.title"),
        text=uncertainty_text(values, words),
        figures=_figures(values, words),
        tables=uncertainty_tables(values, words),
        headline=headline(values, words),
        leading=2 if values["risks"]["suspects"] else 1,
    )


def headline(values: Mapping[str, Any], words: Words) -> str:
    """How far an error can be trusted, and which label to check first."""
    risks = values["risks"]
    by_name = {risk["name"]: risk for risk in risks["risks"]}
    # Test examples and training examples are drawn apart: their intervals add in squares.
    reach = (by_name["error"]["reach"] ** 2 + by_name["data"]["reach"] ** 2) ** 0.5
    first = ""
    if risks["suspects"]:
        first = words("uncertainty.headline.first", example=risks["suspects"][0]["example"])
    return words(
        "uncertainty.headline", error=_percent(by_name["error"]["value"]), reach=_percent(reach),
        share=_percent(risks["labels"]["share"]), first=first,
    )  # fmt: skip


def uncertainty_text(values: Mapping[str, Any], words: Words) -> list[str]:
    """Labels, batch size and where the noise lies, in sentences."""
    risks = values["risks"]
    said = [
        words(
            "uncertainty.labels", share=_percent(risks["labels"]["share"]), floor=_percent(risks["floor"]),
            disagreement=_percent(risks["labels"]["disagreement"]), loss=f"{risks['loss_floor']:.3f}",
        )
    ]  # fmt: skip
    if values["start_scale"] is not None:
        said.append(words("uncertainty.start", scale=f"{values['start_scale']:.0f}"))
    if not values["layers"]:
        return [*said, words("uncertainty.before")]
    scale = values["noise_scale"]
    said.append(words("uncertainty.no_scale") if scale is None else words("uncertainty.scale", scale=f"{scale:.0f}"))
    if values["noise_rank"]:
        said.append(words("uncertainty.rank", rank=values["noise_rank"]))
    if basis := values["eigenbasis"]:
        correlation = basis["rank_correlation"]
        said.append(
            words(
                "uncertainty.basis", pairs=len(basis["values"]), share=_percent(basis["share"]),
                correlation="–" if correlation is None else f"{correlation:.2f}",
                inside=_percent(sum(basis["inside"]) / len(basis["inside"])), chance=_percent(basis["expected_inside"]),
            )
        )  # fmt: skip
    if values["metrics"]:
        said.append(words("uncertainty.metrics", stability=f"{min(values['metrics']['stability']):.0%}"))
    return said


def uncertainty_tables(values: Mapping[str, Any], words: Words) -> list[Table]:
    """Before training: risks, labels, classes. At the solution: by source, metric, layer, example, direction."""
    risks = values["risks"]
    tables = [risk_table(values, words)]
    if risks["suspects"]:
        rows = [[s["example"], s["label"], s["likely"], f"{s['margin']:.3f}"] for s in risks["suspects"]]
        tables.append(_table("suspects", ("example", "class", "likely", "margin"), rows, words))
    rows = [
        [c["label"], c["examples"], _percent(c["wrong"]), _percent(c["error"])]
        + ([] if c["noise"] is None else [_percent(c["noise"]), f"{c['relative_noise']:.2f}"])
        for c in risks["classes"]
    ]
    columns = ("class", "examples", "wrong", "contradicted", "share", "loudness")
    tables.append(_table("classes", columns[: len(rows[0])], rows, words))
    if values["layers"]:
        tables += _measured(values, words)
    return tables


def risk_table(values: Mapping[str, Any], words: Words) -> Table:
    """What is known before training."""
    rows = [
        [
            words(f"uncertainty.risk.{risk['name']}"),
            f"{risk['value']:.4f}",
            f"± {risk['reach']:.4f}" if risk["name"] != "labels" else f"{risk['reach']:.4f}",
            "–" if risk["relative"] is None else f"{risk['relative']:.0%}",
            words(f"uncertainty.grade.{risk['grade']}"),
        ]
        for risk in values["risks"]["risks"]
    ]
    note = words("uncertainty.risks.note", folds=values["risks"]["folds"])
    return _table("risks", ("risk", "value", "reach", "relative", "grade"), rows, words, note=note)


def _measured(values: Mapping[str, Any], words: Words) -> list[Table]:
    """Everything that needs a solution."""
    spreads = [
        [_source(s["source"], words), words(f"uncertainty.measure.{s['measure']}"),
         *(f"{s[name]:.4f}" for name in ("value", "mean", "deviation", "low", "high"))]
        for s in values["spreads"]
    ]  # fmt: skip
    layers = [
        [name, f"{layer['gradient_norm']:.3g}", f"{layer['variance']:.3g}", _number(layer["signal_to_noise"])]
        for name, layer in values["layers"].items()
    ]
    columns = ("source", "measure", "value", "mean", "deviation", "low", "high")
    tables = [
        _table("spreads", columns, spreads, words, note=words("uncertainty.spreads.note")),
        _table("layers", ("layer", "norm", "variance", "signal"), layers, words),
    ]
    rows = [
        [e["example"], e["label"], f"{e['share']:.1f}", words("uncertainty.yes" if e["suspect"] else "uncertainty.no")]
        for e in values["loudest"]
    ]
    tables.append(_table("loudest", ("example", "class", "times", "suspect"), rows, words))
    if choice := values["metrics"]:
        rows = [
            [words(f"uncertainty.measure.{name}"), best, f"{stability:.0%}"]
            for name, best, stability in zip(choice["measures"], choice["best"], choice["stability"], strict=True)
        ]
        tables.append(_table("choice", ("measure", "best", "stability"), rows, words))
    if basis := values["eigenbasis"]:
        rows = [
            [_number(value), _number(noise), _number(noise / value) if value else "–", _percent(inside)]
            for value, noise, inside in zip(basis["values"], basis["noise"], basis["inside"], strict=True)
        ]
        tables.append(_table("eigenbasis", ("curvature", "noise", "ratio", "inside"), rows, words))
    return tables


def _figures(values: Mapping[str, Any], words: Words) -> list[Figure]:
    """Noise against curvature, on two logarithmic axes."""
    basis = values["eigenbasis"] or {"values": [], "noise": []}
    pairs = [(x, y) for x, y in zip(basis["values"], basis["noise"], strict=True) if x > 0 and y > 0]
    if len(pairs) < 2:
        return []
    slope = sum(y for _, y in pairs) / sum(x for x, _ in pairs)
    name = words("uncertainty.eigenbasis.point")
    rows = [{"curvature": x, "noise": y, "low": y, "high": y, "line": slope * x, "series": name} for x, y in pairs]
    spec = figures.law(
        rows, x="curvature", y="noise", line="line", x_title=words("uncertainty.column.curvature"),
        y_title=words("uncertainty.column.noise"), series="series", order=[name],
    )  # fmt: skip
    said = "; ".join(f"λ {x:.3g}: {y:.3g}" for x, y in pairs)
    title, caption = words("uncertainty.eigenbasis.figure"), words("uncertainty.eigenbasis.caption")
    return [Figure(title, spec, caption=caption, description=said)]


def _source(name: str, words: Words) -> str:
    """A source's name in words."""
    if name.endswith(_PATTERN):
        return words("uncertainty.source.labels", share=_percent(float(name.removesuffix(_PATTERN))))
    return words(f"uncertainty.source.{name}")


def _table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], words: Words, *, note: str = "") -> Table:
    titled = [words(f"uncertainty.column.{column}") for column in columns]
    return Table(words(f"uncertainty.{name}"), titled, rows, note=note)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
