"""The tables of a check: pairs, models, ways forward, checklist, capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report.check.lines import WAYS, pair_name, share
from isthmus.report.numbers import interval_text, power_of_ten
from isthmus.report.words import Words

Rows = tuple[list[str], list[list[Any]]]


def pair_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Every pair by every way: error barrier with its interval, and the verdict."""
    ways = [way for way in WAYS if any(way in pair["crossings"] for pair in values["pairs"])]
    columns = [words("check.column.pair"), *(words(f"check.way.{way}") for way in ways)]
    columns += [words(f"check.column.{name}") for name in ("verdict", "agreement", "preference")]
    rows = [
        [
            pair_name(values, pair),
            *(share(pair["crossings"][way]["error_barrier"]) if way in pair["crossings"] else None for way in ways),
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
                share(model["accuracy"]),
                interval_text(model["loss"]),
                f"{model['calibration']:.1%}",
                sharpness and sharpness["rise"],
                model["eigenvalue"],
                identity and power_of_ten(identity["log10_distinct"]),
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
                f"{about}{duration(way['seconds'], words)}", f"× {way['inference']:g}", right,
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
            rows.append([pair_name(values, pair), found["name"], *rates, share(found["kept"]), foreseen])
    return [words(f"check.column.{kind}") for kind in kinds], rows


def signal_rows(values: Mapping[str, Any], words: Words) -> Rows:
    """Every model's gradient against its noise."""
    kinds = ("model", "signal", "scale", "gradients")
    rows = [[s["name"], s["to_noise"], s["noise_scale"], s["examples"]] for s in values["doubt"]["signals"]]
    return [words(f"check.column.{kind}") for kind in kinds], rows


def duration(seconds: float, words: Words) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return words(f"check.{unit}", n=f"{seconds / size:.1f}")
    return words("check.seconds", n=f"{seconds:.2g}")
