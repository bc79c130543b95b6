"""The section about a merge that had to keep named capabilities."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from isthmus.report.figures.fronts import front
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

_GROUPS = {
    "linear": "average", "slerp": "average", "fisher": "fisher", "protect": "hybrid", "protect_fisher": "hybrid",
    "layerwise": "layers",
}  # fmt: skip
_ORDER = ("model", "average", "task", "fisher", "hybrid", "layers")
# More panels than this say less, not more; the table holds every capability.
_PANELS = 3
_ROWS = 40


def protected_section(values: Mapping[str, Any], words: Words) -> Section:
    """The front of what can be kept together, the merge that was taken, and whether it holds."""
    names = [one["name"] for one in values["kept"]]
    pairs = list(itertools.combinations(names, 2))[:_PANELS] or [(names[0], None)]
    text = [
        words("protected.text", models=", ".join(values["models"])),
        words("protected.split", merges=values["merges"], passed=values["passed"]),
    ]
    if values["alone"]:
        text.append(words("protected.alone", names=", ".join(values["alone"])))
    return Section(
        words("protected.title"),
        text=text,
        figures=[_figure(values, words, pair, caption=pair == pairs[0]) for pair in pairs],
        tables=[
            Table(words("protected.table"), *kept_rows(values, words), note=words("protected.table.note")),
            Table(words("protected.best"), *_best_rows(values, words), note=words("protected.best.note")),
            Table(words("protected.front"), *_front_rows(values, words), note=words("protected.front.note")),
        ],
        headline=_headline(values, words),
    )


def kept_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each capability."""
    names = (
        "capability", "floor", "priority", "expert", "expert_accuracy", "accuracy", "selection", "verification", "met",
    )  # fmt: skip
    rows = []
    for one in values["kept"]:
        chosen, other = one["selection"], one["verification"]
        met = "yes" if chosen["met"] and other["met"] else "no"
        rows.append([
            one["name"], one["floor"], one["priority"], one["expert"], other["expert"], other["merged"],
            interval_text(chosen["retained"]), interval_text(other["retained"]), words(f"protected.answer.{met}"),
        ])  # fmt: skip
    return [words(f"protected.{name}") for name in names], rows


def _best_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """The best trial of every family, the best family first."""
    aims = values["front"]["aims"]
    best: dict[str, tuple[float, Mapping[str, Any]]] = {}
    for trial in values["front"]["trials"]:
        missed = sum(aim["priority"] * max(0.0, aim["floor"] - trial["retained"][aim["name"]]) for aim in aims)
        if trial["family"] not in best or missed < best[trial["family"]][0]:
            best[trial["family"]] = missed, trial
    columns = [words("protected.family"), words("protected.shortfall"), *(aim["name"] for aim in aims)]
    rows = [
        [_name(trial["family"], words), missed, *(trial["retained"][aim["name"]] for aim in aims)]
        for missed, trial in sorted(best.values(), key=lambda pair: pair[0])
    ]
    return columns, rows


def _front_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    names = [aim["name"] for aim in values["front"]["aims"]]
    rows = []
    for place in values["front"]["front"][:_ROWS]:
        trial = values["front"]["trials"][place]
        settings = trial["settings"] if trial["family"] != "layerwise" else {}
        told = ", ".join(f"{name} {value:.3g}" for name, value in settings.items())
        rows.append([_name(trial["family"], words), told, *(trial["retained"][name] for name in names)])
    return [words("protected.family"), words("protected.settings"), *names], rows


def _figure(values: Mapping[str, Any], words: Words, pair: tuple[str, str | None], *, caption: bool) -> Figure:
    """Two capabilities against each other, or one by kind of merge."""
    first, second = pair
    tried, best = values["front"]["trials"], set(values["front"]["front"])
    floors = {aim["name"]: aim["floor"] for aim in values["front"]["aims"]}
    rows = []
    for place, trial in enumerate(tried):
        group = words(f"protected.group.{_group(trial['family'])}")
        rows.append({
            "x": trial["retained"][first], "y": trial["retained"][second] if second else group, "series": group,
            "name": _name(trial["family"], words), "front": place in best,
        })  # fmt: skip
    kept = {one["name"]: one for one in values["kept"]}
    name = _name(values["best"]["family"], words)
    group = words(f"protected.group.{_group(values['best']['family'])}")
    marked = [
        {
            "x": kept[first][half]["retained"]["estimate"],
            "y": kept[second][half]["retained"]["estimate"] if second else group,
            "name": f"{name}: {words(f'protected.{half}')}", "filled": half == "selection",
        }
        for half in ("selection", "verification")
    ]  # fmt: skip
    order = [words(f"protected.group.{key}") for key in _ORDER]
    spec = front(
        rows, marked, (floors[first], floors[second] if second else None), x_title=words("protected.axis", name=first),
        y_title=words("protected.axis", name=second) if second else "",
        order=[entry for entry in order if any(row["series"] == entry for row in rows)],
    )  # fmt: skip
    said = "; ".join(f"{row['name']}: {row['x']:.3f}" + (f", {row['y']:.3f}" if second else "") for row in marked)
    title = words("protected.panel", first=first, second=second) if second else first
    return Figure(title, spec, caption=words("protected.figure") if caption else "", description=said)


def _headline(values: Mapping[str, Any], words: Words) -> str:
    chosen = all(one["selection"]["met"] for one in values["kept"])
    half = "verification" if chosen else "selection"
    kept = ", ".join(
        words("protected.kept", share=f"{one[half]['retained']['estimate']:.1%}", name=one["name"])
        for one in values["kept"]
    )
    state = "met" if values["met"] else "chance" if chosen else "none"
    return words(f"protected.headline.{state}", family=_name(values["best"]["family"], words), kept=kept)


def _group(family: str) -> str:
    return "model" if family.startswith("model ") else _GROUPS.get(family, "task")


def _name(family: str, words: Words) -> str:
    if _group(family) == "model":
        return words("protected.name.model", number=family.removeprefix("model "))
    key = f"protected.name.{family}"
    return words(key) if key in words else family
