"""The section about where checkpoints come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report.figures.graphs import generations
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

# Beyond, a picture is a thicket; the table still lists them.
_DRAWN, _LISTED = 150, 500


def history_section(values: Mapping[str, Any], words: Words) -> Section:
    """The graph of updates and merges, and what every checkpoint says of itself."""
    nodes = values["nodes"]
    tables = [Table(words("history.table"), *history_rows(values, words))]
    if values["unread"]:
        columns = [words("history.file"), words("history.reason")]
        tables.append(Table(words("history.unread"), columns, [list(row) for row in values["unread"]]))
    return Section(
        words("history.title"),
        text=[
            words(
                "history.text", nodes=len(nodes), files=sum(len(node["files"]) for node in nodes),
                edges=len(values["edges"]),
            )
        ],
        figures=[_figure(values, words)],
        tables=tables,
        headline=headline(values, words),
    )  # fmt: skip


def history_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each set of weights."""
    names = {node["content"]: node["name"] for node in values["nodes"]}
    parents: dict[str, list[str]] = {}
    for edge in values["edges"]:
        role = "" if edge["role"] == "model" else f" ({edge['role']})"
        parents.setdefault(edge["child"], []).append(f"{names[edge['parent']]}{role}")
    rows = []
    for node in values["nodes"][:_LISTED]:
        found = node["lineage"] or {}
        notes = [words(f"history.note.{note}") for note in node["notes"]]
        notes += [] if node["known"] else [words("history.unknown")]
        rows.append([
            node["name"], short(node["content"]), node["generation"], found.get("made_by"),
            ", ".join(parents.get(node["content"], ())) or None, _told(found.get("recipe"), 8), _data(found),
            _told(found.get("capabilities"), 12), _told(found.get("measures"), 12), found.get("created"),
            "; ".join(notes) or None,
        ])  # fmt: skip
    columns = (
        "checkpoint", "content", "generation", "made_by", "parents", "recipe", "data", "capabilities", "measures",
        "created", "notes",
    )  # fmt: skip
    return [words(f"history.{name}") for name in columns], rows


def headline(values: Mapping[str, Any], words: Words) -> str:
    """How many there are, in how many generations."""
    nodes = values["nodes"]
    known = {node["content"] for node in nodes if node["known"]}
    several: dict[str, set[str]] = {}
    for edge in values["edges"]:
        if edge["role"] == "model":
            several.setdefault(edge["child"], set()).add(edge["parent"])
    return words(
        "history.headline", known=len(known), generations=1 + max((node["generation"] for node in nodes), default=0),
        merged=sum(len(parents) > 1 for child, parents in several.items() if child in known),
        unknown=len(nodes) - len(known),
    )  # fmt: skip


def short(content: str) -> str:
    """An identity as people tell it: the first digits."""
    return content.partition(":")[2][:10]


def _figure(values: Mapping[str, Any], words: Words) -> Figure:
    drawn = values["nodes"][:_DRAWN]
    place = _places(drawn, values["edges"])
    children = {edge["child"] for edge in values["edges"]}
    series = [words(f"history.series.{key}") for key in ("root", "made", "unknown")]
    nodes = [
        {
            "x": place[node["content"]][0], "y": place[node["content"]][1],
            "name": node["name"].removesuffix(".safetensors"),
            "series": series[(1 if node["content"] in children else 0) if node["known"] else 2],
            "hollow": not node["known"], "content": short(node["content"]),
            "made by": (node["lineage"] or {}).get("made_by") or "–",
            "capabilities": _told((node["lineage"] or {}).get("capabilities"), 6) or "–",
        }
        for node in drawn
    ]  # fmt: skip
    steps = []
    for edge in values["edges"]:
        if edge["parent"] in place and edge["child"] in place:
            (x, y), (x2, y2) = place[edge["parent"]], place[edge["child"]]
            steps.append({"x": x, "y": y, "x2": x2, "y2": y2, "made_by": edge["made_by"], "role": edge["role"]})
    names = {node["content"]: node["name"] for node in drawn}
    said = "; ".join(
        f"{names[edge['parent']]} → {names[edge['child']]}"
        for edge in values["edges"]
        if edge["parent"] in names and edge["child"] in names
    )
    order = [entry for entry in series if any(node["series"] == entry for node in nodes)]
    spec = generations(nodes, steps, order=order)
    return Figure(words("history.graph"), spec, caption=words("history.figure"), description=said[:2000])


def _places(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, float]]:
    """Generation across; down, each near the mean of its parents, so that few lines cross."""
    parents: dict[str, list[str]] = {}
    for edge in edges:
        parents.setdefault(edge["child"], []).append(edge["parent"])
    columns: dict[int, list[str]] = {}
    for node in nodes:
        columns.setdefault(node["generation"], []).append(node["content"])
    place: dict[str, tuple[int, float]] = {}
    tallest = max((len(column) for column in columns.values()), default=1)
    for across, generation in enumerate(sorted(columns)):
        known = {
            content: [place[parent][1] for parent in parents.get(content, ()) if parent in place]
            for content in columns[generation]
        }
        wanted = {content: sum(rows) / len(rows) if rows else float("inf") for content, rows in known.items()}
        column = sorted(columns[generation], key=lambda content: wanted[content])
        shift = (tallest - len(column)) / 2
        place |= {content: (across, row + shift) for row, content in enumerate(column)}
    return place


def _told(given: Mapping[str, Any] | None, most: int) -> str | None:
    """Settings or numbers on one line, the first few."""
    pairs = list((given or {}).items())
    shown = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in pairs[:most]]
    return ", ".join(shown + (["…"] if len(pairs) > most else [])) or None


def _data(found: Mapping[str, Any]) -> str | None:
    return str(found["data"])[:10] if found.get("data") else None
