"""The section about how far an objective can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report.page import Section, Table
from isthmus.report.words import Words


def uncertainty_section(values: Mapping[str, Any], words: Words) -> Section:
    """The risk table, the gradient's noise, the labels to check."""
    return Section(
        words("uncertainty.title"), text=uncertainty_text(values, words), tables=uncertainty_tables(values, words)
    )


def uncertainty_text(values: Mapping[str, Any], words: Words) -> list[str]:
    """Label noise and batch size, in sentences."""
    said = [
        words("uncertainty.labels", share=f"{values['label_noise']:.1%}", disagreement=f"{values['disagreement']:.1%}")
    ]
    scale = values["noise_scale"]
    said.append(words("uncertainty.no_scale") if scale is None else words("uncertainty.scale", scale=f"{scale:.0f}"))
    if values["loudest"]:
        said.append(words("uncertainty.loudest", examples=", ".join(map(str, values["loudest"]))))
    if values["metrics"]:
        stability = min(values["metrics"]["stability"])
        said.append(words("uncertainty.metrics", stability=f"{stability:.0%}"))
    return said


def uncertainty_tables(values: Mapping[str, Any], words: Words) -> list[Table]:
    """By source; by layer; by class; by example."""
    titled = lambda *names: [words(f"uncertainty.column.{name}") for name in names]  # noqa: E731
    spreads = [
        [s["source"], s["measure"], *(f"{s[name]:.4f}" for name in ("value", "mean", "deviation", "low", "high"))]
        for s in values["spreads"]
    ]
    layers = [
        [name, f"{layer['gradient_norm']:.3g}", f"{layer['variance']:.3g}", f"{layer['signal_to_noise']:.3g}"]
        for name, layer in values["layers"].items()
    ]
    tables = [
        Table(
            words("uncertainty.spreads"),
            titled("source", "measure", "value", "mean", "deviation", "low", "high"),
            spreads,
        ),
        Table(words("uncertainty.layers"), titled("layer", "norm", "variance", "signal"), layers),
    ]
    if values["class_share"]:
        rows = [[place, f"{share:.1%}"] for place, share in enumerate(values["class_share"])]
        tables.append(Table(words("uncertainty.classes"), titled("class", "share"), rows))
    if values["suspects"]:
        rows = [[s["example"], s["label"], f"{s['margin']:.3f}"] for s in values["suspects"]]
        tables.append(Table(words("uncertainty.suspects"), titled("example", "class", "margin"), rows))
    return tables
