"""``isthmus history``: where checkpoints come from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options


def history(
    checkpoints: Annotated[list[str], typer.Argument(help="Checkpoints, or folders that are searched for them.")],
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Draw the graph of updates and merges: who was made from whom, how, and what each can do."""
    with console.progress("history") as told:
        from isthmus.studies.history import history as read

        values = read([inputs.here(path) for path in checkpoints], unsafe_pickle=unsafe_pickle, progress=told).to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.history import headline, short
    from isthmus.report.words import words_for

    words = words_for("en")
    names = {node["content"]: node["name"] for node in values["nodes"]}
    parents: dict[str, list[str]] = {}
    for edge in values["edges"]:
        role = "" if edge["role"] == "model" else f" ({edge['role']})"
        parents.setdefault(edge["child"], []).append(f"{names[edge['parent']]}{role}")
    for node in values["nodes"]:
        found = node["lineage"] or {}
        made = " ".join([found.get("made_by", ""), *([found["created"]] if found.get("created") else [])]).strip()
        notes = [words(f"history.note.{note}") for note in node["notes"]]
        notes += [] if node["known"] else [words("history.unknown")]
        known = ", ".join(f"{name} {value:.4g}" for name, value in list(found.get("capabilities", {}).items())[:8])
        told = "; ".join(part for part in [made, known, *notes] if part)
        origin = f" ← {', '.join(parents[node['content']])}" if node["content"] in parents else ""
        lead = "  " * node["generation"]
        console.say(f"{lead}{node['name']} [{short(node['content'])}]{origin}" + (f": {told}" if told else ""))
    for file, reason in values["unread"]:
        console.note(f"{file} was not read: {reason}")
    console.say(headline(values, words))
