"""The section about what a merge gained or lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def appraisal_section(values: Mapping[str, Any], words: Words) -> Section:
    """Ends, merge and ensemble side by side."""
    scores = {
        **values["ends"],
        words("merging.merged"): values["merged"],
        words("merging.ensemble"): values["ensemble"],
    }
    names = ["loss", *values["merged"]["metrics"]]
    rows = [[name, *(_value(score, metric) for metric in names)] for name, score in scores.items()]
    drawn = []
    for metric in names:
        points = [
            {"solution": name, "value": _value(score, metric), "series": metric} for name, score in scores.items()
        ]
        title = words(f"curve.{metric}") if f"curve.{metric}" in words else metric
        spec = figures.bars(points, x="value", y="solution", x_title=title, series="series")
        said = "; ".join(f"{point['solution']}: {point['value']:.4g}" for point in points)
        drawn.append(Figure(title, spec, caption=words("merging.smaller"), description=said))
    return Section(
        words("merging.title"),
        text=[words("merging.text", examples=values["merged"]["examples"])],
        figures=drawn,
        tables=[Table(words("merging.title"), [words("demo.merge.what"), *names], rows)],
        headline=values["verdict"],
    )


def prediction_section(values: Mapping[str, Any], words: Words) -> Section:
    """What each model is expected to lose, the most endangered first."""
    scores = list(values["scores"][0])
    rows = [
        [name, *(found[score] for score in scores)]
        for name, found in zip(values["names"], values["scores"], strict=True)
    ]
    by = words(f"continual.score.{values['by']}")
    points = [
        {"model": name, "value": found[values["by"]], "series": by}
        for name, found in zip(values["names"], values["scores"], strict=True)
    ]
    spec = figures.bars(points, x="value", y="model", x_title=by, series="series")
    said = "; ".join(f"{point['model']}: {point['value']:.4g}" for point in points)
    return Section(
        words("merging.prediction"),
        text=[words("merging.prediction.text", score=by)],
        figures=[Figure(by, spec, caption=words("merging.smaller"), description=said)],
        tables=[
            Table(
                words("merging.prediction.table"),
                [words("merging.prediction.model"), *(words(f"continual.score.{score}") for score in scores)],
                rows,
            )
        ],
        headline=words("merging.prediction.headline", name=values["names"][0], score=by),
    )


def _value(score: Mapping[str, Any], metric: str) -> float:
    return score["loss"] if metric == "loss" else score["metrics"][metric]
