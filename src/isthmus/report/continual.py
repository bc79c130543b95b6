"""The section about what survives a merge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.figures import altair, colour, finished
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words

_ARMS = ("shared", "parallel", "incremental", "doubled")


def continual_section(values: Mapping[str, Any], words: Words) -> Section:
    """Accuracy against α for each cue and arm, what of it is retained, and the contrasts over seeds."""
    first, second = (cue["kind"] for cue in values["cues"])
    drawn = [
        _figure(values, words, capability, probe)
        for capability, probe in [
            *((cue, probe) for cue in (first, second) for probe in ("cue_only", "with_cue")),
            ("base", "base_only"),
        ]
    ]
    tables = [
        Table(words("continual.contrasts"), *contrast_rows(values, words), note=words("continual.contrasts.note")),
        Table(words("continual.retention"), *retention_rows(values, words), note=words("continual.retention.note")),
        Table(words("continual.controls"), *_control_rows(values, words)),
    ]
    if values["forecast"]:
        tables.append(
            Table(words("continual.forecast"), *forecast_rows(values, words), note=words("continual.forecast.note"))
        )
    terms = (*_ARMS, "joint", "replay", "probe.cue_only", "probe.with_cue", "probe.wrong_cue")
    return Section(
        words("continual.title"),
        text=[
            words("continual.text", first=_cue(first, words), second=_cue(second, words), replicas=values["replicas"]),
            *verdicts(values, words),
        ],
        figures=drawn,
        tables=tables,
        definitions=[(words(f"continual.{name}"), words(f"continual.{name}.meaning")) for name in terms],
        headline=_headline(values, words),
    )


def verdicts(values: Mapping[str, Any], words: Words) -> list[str]:
    """The claims with their sign tests, one sentence each; the controls beside what they control."""
    lines = []
    for found in values["contrasts"]:
        name = "base" if found["capability"] == "base" else found["name"]
        # Normalised by what each end had learned, where there is such a number: differences between ends are out of it.
        if (name != "base" and found["probe"] != "retention") or name == "merge_over_sequential":
            continue
        direction = "answer" if found["alternative"] == "greater" else "two_sided"
        difference = _percent(found["interval"], "+" if name == "base" else "")
        against = words(f"continual.{'doubled' if found['name'].endswith('doubled') else 'parallel'}")
        lines.append(
            words(
                f"continual.verdict.{name}", capability=_cue(found["capability"], words), against=against,
                difference=difference, above=found["above"], below=found["below"],
                seeds=len(found["differences"]), p=f"{found['p']:.2g}",
                answer=words(f"continual.{direction}.{'yes' if found['holds'] else 'no'}"),
            )
        )  # fmt: skip
    return lines


def _percent(interval: Mapping[str, Any], sign: str) -> str:
    if interval["low"] is None:
        return f"{interval['estimate']:{sign}.1%}"
    return f"{interval['estimate']:{sign}.1%} [{interval['low']:{sign}.1%}, {interval['high']:{sign}.1%}]"


def contrast_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each paired contrast."""
    names = ("contrast", "capability", "probe", "difference", "seeds", "p", "holds")
    rows = []
    for found in values["contrasts"]:
        direction = "answer" if found["alternative"] == "greater" else "two_sided"
        rows.append([
            words(f"continual.contrast.{found['name']}"), _cue(found["capability"], words),
            words(f"continual.probe.{found['probe']}"), interval_text(found["interval"]),
            f"{found['above']} / {found['below']}", found["p"],
            words(f"continual.{direction}.{'yes' if found['holds'] else 'no'}"),
        ])  # fmt: skip
    return [words(f"continual.column.{name}") for name in names], rows


def retention_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each arm and cue: how much is kept in the middle."""
    rows = []
    for found in values["retention"]:
        middle = found["mean"][len(found["mean"]) // 2]
        rows.append([
            words(f"continual.{found['arm']}"), _cue(found["cue"], words),
            words(f"continual.holder.{found['holder']}"), interval_text(middle),
            words(f"continual.answer.{'yes' if found['kept'] else 'no'}"),
        ])  # fmt: skip
    names = ("arm", "capability", "holder", "retention", "kept")
    return [words(f"continual.column.{name}") for name in names], rows


def forecast_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each score, best first."""
    rows = [
        [words(f"continual.score.{found['score']}"), *(interval_text(found[n]) for n in ("correlation", "over_naive"))]
        for found in values["forecast"]["rankings"]
    ]
    return [words(f"continual.column.{name}") for name in ("score", "correlation", "over_naive")], rows


def _control_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [words(f"continual.network.{found['arm']}"), _cue(found["capability"], words),
         words(f"continual.probe.{found['probe']}"), interval_text(found["mean"][0])]
        for found in values["controls"]
    ]  # fmt: skip
    for found in values["curves"]:
        if found["arm"] == "incremental":
            rows.append([
                words("continual.network.sequential"), _cue(found["capability"], words),
                words(f"continual.probe.{found['probe']}"), interval_text(found["mean"][-1]),
            ])  # fmt: skip
    return [words(f"continual.column.{name}") for name in ("network", "capability", "probe", "accuracy")], rows


def _figure(values: Mapping[str, Any], words: Words, capability: str, probe: str) -> Figure:
    positions = values["positions"]
    rows = []
    order = []
    for found in values["curves"]:
        if (found["capability"], found["probe"]) != (capability, probe):
            continue
        # The shared arm says nothing about a cue that neither of its ends has seen.
        if found["arm"] == "shared" and capability == values["cues"][1]["kind"]:
            continue
        order.append(words(f"continual.{found['arm']}"))
        rows += _band(order[-1], positions, found["mean"])
    lines = []
    for found in values["controls"]:
        if (found["capability"], found["probe"]) == (capability, probe):
            name = words(f"continual.network.{found['arm']}")
            order.append(name)
            lines += _band(name, (positions[0], positions[-1]), [found["mean"][0]] * 2)
    said = "; ".join(f"{row['series']}, {row['alpha']:g}: {row['accuracy']:.3f}" for row in [*rows, *lines])
    title = f"{_cue(capability, words)}: {words(f'continual.probe.{probe}')}"
    return Figure(title, _chart(rows, lines, order, words), caption=words("continual.figure"), description=said)


def _band(series: str, positions: Sequence[float], means: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one curve; without an interval its band has no width. Accuracies end at 0 and 1, so bands do too."""
    rows = []
    for alpha, mean in zip(positions, means, strict=True):
        low, high = (
            mean["estimate"] if mean[end] is None else min(1.0, max(0.0, mean[end])) for end in ("low", "high")
        )
        rows.append({"series": series, "alpha": alpha, "accuracy": mean["estimate"], "low": low, "high": high})
    return rows


def _chart(
    rows: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]], order: Sequence[str], words: Words
) -> dict[str, Any]:
    """Curves with bands, and dashed level lines for networks that are not on any path."""
    alt = altair()
    x = alt.X("alpha:Q", title=words("continual.axis.alpha"))
    lowest = min(row["low"] for row in [*rows, *lines])
    # From zero, unless all lies in the upper half: there differences of a point would not be seen.
    scale = alt.Scale(domain=[0 if lowest < 0.5 else math.floor(lowest * 20 - 0.5) / 20, 1])
    every = [words(f"continual.{arm}") for arm in _ARMS]
    every += [words(f"continual.network.{name}") for name in ("base", "joint", "replay")]
    shade = colour("series", every, shown=order)
    tooltip = [
        alt.Tooltip("series:N"),
        *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("alpha", "accuracy", "low", "high")),
    ]
    arms = alt.Chart(alt.Data(values=list(rows))).encode(x=x, color=shade)
    y = alt.Y("accuracy:Q", title=words("continual.axis.accuracy"), scale=scale)
    band = arms.mark_area(fillOpacity=0.15).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    line = arms.mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=2).encode(y=y, tooltip=tooltip)
    level = (
        alt.Chart(alt.Data(values=list(lines)))
        .mark_line(strokeWidth=2, strokeDash=[5, 3])
        .encode(x=x, y=y, color=shade, tooltip=tooltip)
    )
    return finished((band + line + level).properties(width=350, height=250))


def _cue(kind: str, words: Words) -> str:
    return words(f"continual.capability.{kind}")


def _headline(values: Mapping[str, Any], words: Words) -> str:
    first = values["cues"][0]["kind"]
    middle = {
        (found["arm"], found["cue"]): found["mean"][len(found["mean"]) // 2]["estimate"]
        for found in values["retention"]
    }
    shown = {arm: f"{middle[arm, first]:.0%}" for arm in ("shared", "parallel", "incremental")}
    return words("continual.headline", cue=_cue(first, words), **shown)


def merges_section(values: Mapping[str, Any], words: Words) -> Section:
    """Accuracy after every task for each merger, with what was forgotten and how connected the steps are."""
    drawn = []
    for found in values["outcomes"]:
        rows = matrix_rows(found, values["tasks"], words)
        spec = figures.matrix(
            rows, row="after", column="task", value="accuracy", title=words("continual.axis.accuracy"), high=1.0
        )
        said = "; ".join(f"{row['after']}, {row['task']}: {row['accuracy']:.3f}" for row in rows)
        drawn.append(Figure(_merger(found["merger"], words), spec, caption=words("merges.figure"), description=said))
    return Section(
        words("merges.title"),
        text=[
            words("merges.text", tasks=len(values["tasks"]), names=", ".join(values["tasks"])),
            words(f"merges.start.{values['start']}"), words(f"merges.heads.{values['heads']}"),
        ],
        figures=drawn,
        tables=[
            Table(words("merges.table"), *merges_rows(values, words)),
            Table(words("merges.barriers"), *barrier_rows(values, words), note=words("merges.barriers.note")),
        ],
        definitions=[
            (words(f"merges.{name}"), words(f"merges.{name}.meaning"))
            for name in ("final", "forgetting", "backward", "forward")
        ],
        headline=_merges_headline(values, words),
    )  # fmt: skip


def merges_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each merger, and one for joint training."""
    measures = ("final", "forgetting", "backward", "forward")
    rows: list[list[Any]] = [
        [_merger(f["merger"], words), *(interval_text(f[name]) for name in measures)] for f in values["outcomes"]
    ]
    if values["joint"]:
        each = [value for row in values["joint"] for value in row]
        rows.append([words("continual.network.joint"), f"{sum(each) / len(each):.3g}", None, None, None])
    return [words("merges.merger"), *(words(f"merges.{name}") for name in measures)], rows


def barrier_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """For each merger and target, the mean error barrier after every later task."""
    rows = []
    for found in values["outcomes"]:
        for other, table in found["barriers"].items():
            means = [sum(column) / len(column) for column in zip(*table, strict=True)]
            rows.append([_merger(found["merger"], words), words(f"merges.to.{other}"), *means])
    return [words("merges.merger"), words("merges.to"), *values["tasks"][1:]], rows


def matrix_rows(found: Mapping[str, Any], tasks: Sequence[str], words: Words) -> list[dict[str, Any]]:
    """The accuracy on each task after each, as means over replicas."""
    replicas = found["accuracy"]
    return [
        {
            "after": words("merges.after", task=after),
            "task": task,
            "accuracy": sum(matrix[k][j] for matrix in replicas) / len(replicas),
        }
        for k, after in enumerate(tasks)
        for j, task in enumerate(tasks)
    ]


def _merger(name: str, words: Words) -> str:
    key = f"merges.merger.{name}"
    return words(key) if key in words else name


def _merges_headline(values: Mapping[str, Any], words: Words) -> str:
    best = max(values["outcomes"], key=lambda found: found["final"]["estimate"])
    return words(
        "merges.headline", merger=_merger(best["merger"], words), final=f"{best['final']['estimate']:.1%}",
        forgetting=f"{best['forgetting']['estimate']:.1%}",
    )  # fmt: skip
