"""The section about remedies against redundancy: which one removes the barrier, and at what price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

_SHORT = 12  # rows of a table that stands above the figures


def remedies_section(values: Mapping[str, Any], words: Words) -> Section:
    """Verdicts and prices as tables, barriers against size as figures."""
    return Section(
        words("remedies.title"),
        text=remedies_text(values, words),
        figures=_figures(values, words),
        tables=[summary_table(values, words), *remedies_tables(values, words)],
        definitions=[
            (words(f"remedies.verdict.{name}"), words(f"remedies.meaning.{name}"))
            for name in ("removes", "lowers", "does not")
        ],
        headline=headline(values, words),
        leading=int(len(values["trials"]) <= _SHORT),
    )


def remedies_text(values: Mapping[str, Any], words: Words) -> list[str]:
    """How it was tried, and what became of the known surprise."""
    said = [words("remedies.text", threshold=f"{values['threshold']:.0%}", target=f"{values['target']:.0%}")]
    if values["model"]:
        matched = "remedies.model" if values["matched"] else "remedies.unmatched"
        said.append(words(matched, model=values["model"]))
    said += [
        words("remedies.left_out", remedy=words(f"remedies.{name}"), reason=reason)
        for name, reason in values["left_out"].items()
    ]
    said += [
        words(
            f"remedies.claim.{claim['name']}", verdict=words(f"remedies.claim.{claim['verdict']}"),
            removed=claim["removed"], lowered=claim["lowered"], trials=claim["trials"],
        )
        for claim in values["claims"]
    ]  # fmt: skip
    return said


def summary_table(values: Mapping[str, Any], words: Words) -> Table:
    """Which remedy removes the barrier, and at what price: means only."""
    rows = []
    for trial in values["trials"]:
        after, cost, slowdown = trial["aligned"], trial["cost"], trial["slowdown"]
        rows.append([
            words(f"remedies.{trial['remedy']}"),
            trial["size"],
            f"{trial['label_noise']:g}",
            f"{trial['naive']['loss']['estimate']:.3f}",
            words(f"remedies.verdict.{trial['verdict']}"),
            f"{after['loss']['estimate']:.3f}" if after else "–",
            words(f"remedies.verdict.{trial['verdict_aligned']}") if after else "–",
            f"{cost['estimate']:+.3f}" if cost else "–",
            "–" if slowdown is None else f"{slowdown:.2f}",
        ])  # fmt: skip
    names = ("remedy", "size", "noise", "loss", "verdict", "loss.aligned", "verdict.aligned", "cost", "slowdown")
    return Table(words("remedies.summary"), [words(f"remedies.column.{name}") for name in names], rows)


def remedies_tables(values: Mapping[str, Any], words: Words) -> list[Table]:
    """What each remedy does to the barrier; what it costs; how the barrier goes with size."""

    def table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
        return Table(words(f"remedies.{name}"), [words(f"remedies.column.{column}") for column in columns], rows)

    trials = [
        ([words(f"remedies.{trial['remedy']}"), trial["size"], f"{trial['label_noise']:g}"], trial)
        for trial in values["trials"]
    ]
    place = ("remedy", "size", "noise")
    does = ("copies", "loss", "error", "verdict", "loss.aligned", "error.aligned", "verdict.aligned")
    costs = ("width", "parameters", "accuracy", "cost", "deviation", "disagreement", "steps", "slowdown")
    tables = [
        table("does", (*place, *does), [[*where, *_done(trial, words)] for where, trial in trials]),
        table("costs", (*place, *costs), [[*where, *_paid(trial)] for where, trial in trials]),
    ]
    scaling = [
        [words(f"remedies.{found['remedy']}"), f"{found['label_noise']:g}", _power(found["exponent"]),
         _power(found["aligned_exponent"])]
        for found in values["scaling"]
        if found["exponent"] is not None
    ]  # fmt: skip
    if scaling:
        tables.append(table("scaling", ("remedy", "noise", "exponent", "exponent.aligned"), scaling))
    return tables


def _done(trial: Mapping[str, Any], words: Words) -> list[str]:
    """Copies, barriers and verdicts, as trained and after aligning."""
    after = trial["aligned"]
    return [
        f"{trial['log10_copies']:.1f}",
        interval_text(trial["naive"]["loss"]),
        interval_text(trial["naive"]["error"]),
        words(f"remedies.verdict.{trial['verdict']}"),
        interval_text(after["loss"]) if after else "–",
        interval_text(after["error"]) if after else "–",
        words(f"remedies.verdict.{trial['verdict_aligned']}") if after else "–",
    ]


def _paid(trial: Mapping[str, Any]) -> list[Any]:
    """Size, accuracy and time."""
    slowdown = trial["slowdown"]
    return [
        "–" if trial["width"] is None else trial["width"],
        trial["parameters"],
        f"{trial['accuracy']['estimate']:.3f}",
        interval_text(trial["cost"]) if trial["cost"] else "–",
        f"{trial['deviation']:.3f}",
        interval_text(trial["disagreement"]),
        f"{trial['steps']['estimate']:.0f} ({trial['reached']}/{trial['networks']})" if trial["steps"] else "–",
        "–" if slowdown is None else f"{slowdown:.2f}",
    ]


def headline(values: Mapping[str, Any], words: Words) -> str:
    """Which remedies remove and which lower the barrier at the largest size, without label noise if that was tried."""
    noise = min(trial["label_noise"] for trial in values["trials"])
    size = max(trial["size"] for trial in values["trials"])
    cells = [t for t in values["trials"] if t["label_noise"] == noise and t["size"] == size]
    parts = []
    for kind in ("removes", "lowers", "does not", "unknown"):
        names = [words(f"remedies.{t['remedy']}") for t in cells if t["verdict"] == kind and t["remedy"] != "plain"]
        if names:
            parts.append(words(f"remedies.said.{kind}", names=", ".join(names)))
    plain = next(t for t in cells if t["remedy"] == "plain")
    if plain["remaining_aligned"] and plain["remaining_aligned"]["estimate"] is not None:  # None: too few networks
        parts.append(words("remedies.said.aligning", share=f"{plain['remaining_aligned']['estimate']:.0%}"))
    return words("remedies.headline", size=size, parts="; ".join(parts))


def _figures(values: Mapping[str, Any], words: Words) -> list[Figure]:
    """One figure for each level of label noise: the barrier of each remedy at each size."""
    drawn = []
    for noise in sorted({trial["label_noise"] for trial in values["trials"]}):
        rows = []
        for trial in (t for t in values["trials"] if t["label_noise"] == noise):
            size = words("remedies.at_size", size=trial["size"])
            rows.append(_row(words(f"remedies.{trial['remedy']}"), size, trial["naive"]["loss"]))
            if trial["remedy"] == "plain" and trial["aligned"]:
                rows.append(_row(words("remedies.plain.aligned"), size, trial["aligned"]["loss"]))
        spec = figures.intervals(
            rows, x="barrier", y="remedy", x_title=words("convention.loss_barrier"), series="size",
            order=list(dict.fromkeys(row["size"] for row in rows)), floor=1e-3,
        )  # fmt: skip
        said = "; ".join(f"{row['remedy']}, {row['size']}: {row['barrier']:.3g}" for row in rows)
        drawn.append(Figure(words("remedies.by_size", noise=f"{noise:g}"), spec, description=said))
    return drawn


def _row(remedy: str, size: str, interval: Mapping[str, Any]) -> dict[str, Any]:
    estimate = interval["estimate"]
    low, high = (estimate if interval[end] is None else interval[end] for end in ("low", "high"))
    return {"remedy": remedy, "size": size, "barrier": estimate, "low": low, "high": high}


def _power(exponent: float | None) -> str:
    return "–" if exponent is None else f"{exponent:.2f}"
