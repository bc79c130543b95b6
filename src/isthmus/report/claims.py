"""The section about the claims of connectivity modulo permutation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def claims_section(values: Mapping[str, Any], words: Words) -> Section:
    """Every claim with its controls: by width, by path length, by the time of the permutation."""
    columns, rows = claims_rows(values, words)
    drawn = [_by_width(values, words), *_by_length(values, words), *_on_simplex(values, words)]
    for tested in values["tested"]:
        for name in ("times", "sparsity"):
            if tested[name]:
                drawn += [_over_time(tested, name, words), _by_time(tested, name, words)]
    return Section(
        words("claims.title"),
        text=[words("claims.text", threshold=values["threshold"])],
        figures=[figure for figure in drawn if figure is not None],
        tables=[Table(words("claims.rows", threshold=values["threshold"]), columns, rows)],
        definitions=[
            (words(f"claims.{name}"), words(f"claims.{name}.meaning")) for name in ("weak", "times", "strong", "cycles")
        ],
        headline=_headline(values, words),
    )


def claims_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each set, method and kind of barrier."""
    columns = [words(f"claims.column.{name}") for name in ("set", "method", "what", "interval", "connected")]
    rows = []
    for tested in values["tested"]:
        place = [tested["label"], words(f"method.{tested['method']}")]
        for claim, kinds in (
            ("weak", ("naive", "aligned", "random", "planted")),
            ("strong", ("direct", "indirect", "random")),
        ):
            if not tested[claim]:
                continue
            for kind in kinds:
                found = tested[claim][kind]
                interval, share = (found, None) if kind == "planted" else (found["interval"], found["connected"])
                shown = "–" if share is None else f"{share:.0%}"
                rows.append([*place, words(f"claims.{claim}.{kind}"), interval_text(interval), shown])
    return columns, rows


def _by_width(values: Mapping[str, Any], words: Words) -> Figure | None:
    kinds = (("weak", "naive"), ("weak", "aligned"), ("strong", "direct"), ("strong", "indirect"), ("weak", "random"))
    rows = []
    for tested in values["tested"]:
        for claim, kind in kinds:
            if not tested[claim]:
                continue
            interval = tested[claim][kind]["interval"]
            estimate = interval["estimate"]
            low, high = (estimate if interval[end] is None else interval[end] for end in ("low", "high"))
            series = f"{words(f'claims.{claim}.{kind}')}, {words('method.' + tested['method'])}"
            if kind in ("naive", "random"):
                series = words(f"claims.{claim}.{kind}")
            rows.append({"series": series, "width": tested["label"], "barrier": estimate, "low": low, "high": high})
    widths = {row["width"] for row in rows}
    if len(widths) < 2 or not all(_is_number(width) for width in widths):
        return None
    rows = [{**row, "width": float(row["width"])} for row in rows]
    order = list(dict.fromkeys(row["series"] for row in rows))
    spec = figures.trend(
        rows, x="width", y="barrier", x_title=words("demo.width.axis"), y_title=words("convention.error_barrier"),
        order=order, floor=1e-3,
    )  # fmt: skip
    said = "; ".join(f"{row['series']}, {row['width']:g}: {row['barrier']:.3g}" for row in rows)
    return Figure(words("claims.by_width"), spec, description=said)


def _by_length(values: Mapping[str, Any], words: Words) -> list[Figure]:
    """What composed permutations lose with every step: the barrier, and the units that find back to their places."""
    heights, shares = [], []
    for tested in values["tested"]:
        if not tested["cycles"]:
            continue
        found = tested["cycles"]
        for place, length in enumerate(found["lengths"]):
            series = f"{tested['label']}, {words('method.' + tested['method'])}"
            control = f"{tested['label']}, {words('claims.weak.random')}"
            known = {name: _mean(found[name][place]) for name in ("heights", "random", "fixed_share")}
            heights.append({"series": series, "length": length, "value": known["heights"]})
            if tested["method"] == values["tested"][0]["method"]:
                heights.append({"series": control, "length": length, "value": known["random"]})
            shares.append({"series": series, "length": length, "value": known["fixed_share"]})
    drawn = []
    for unsorted, name, axis in (
        (heights, "claims.by_length", "convention.error_barrier"),
        (shares, "claims.closed", "claims.closed.axis"),
    ):
        if rows := sorted(unsorted, key=lambda row: row["series"]):
            spec = figures.curves(rows, x="length", y="value", x_title=words("claims.length"), y_title=words(axis))
            said = "; ".join(f"{row['series']}, {row['length']}: {row['value']:.3g}" for row in rows)
            drawn.append(Figure(words(name), spec, description=said))
    return drawn


def _mean(found: Sequence[float | None]) -> float:
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else 0.0


def _on_simplex(values: Mapping[str, Any], words: Words) -> list[Figure]:
    """The loss inside the simplex of the first k networks, one figure a set and method."""
    drawn = []
    for tested in values["tested"]:
        found = tested["strong"] or {}
        kinds = [name for name in ("simplex", "simplex_highest", "naive_simplex") if found.get(name)]
        rows = [
            {"series": words(f"claims.{name}"), "networks": k, "loss": loss}
            for name in kinds
            for k, loss in enumerate(found[name], start=1)
            if loss is not None
        ]
        if rows:
            spec = figures.curves(
                rows, x="networks", y="loss", x_title=words("claims.simplex.axis"), y_title=words("claims.loss")
            )
            said = "; ".join(f"{row['series']}, {row['networks']}: {row['loss']:.3g}" for row in rows)
            title = f"{words('claims.on_simplex')}: {tested['label']}, {words('method.' + tested['method'])}"
            drawn.append(Figure(title, spec, description=said))
    return drawn


def _over_time(tested: Mapping[str, Any], name: str, words: Words) -> Figure:
    """Barrier against the time of use, one curve for the time at which each permutation was found, with controls."""
    found = tested[name]
    labels = found["labels"]
    times = [float(label) for label in labels] if all(map(_is_number, labels)) else list(range(1, len(labels) + 1))
    curves = {
        words("claims.found", at=label): [interval["estimate"] for interval in row]
        for label, row in zip(found["labels"], found["means"], strict=True)
    }
    pairs = {"together": "claims.together", "naive": "claims.weak.naive", "random": "claims.weak.random"}
    for key, text in pairs.items():
        columns = zip(*found[key], strict=True)
        means = [_mean(column) if any(v is not None for v in column) else None for column in map(list, columns)]
        if any(mean is not None for mean in means):
            curves[words(text)] = means
    rows = [
        {"series": series, "time": time, "barrier": height}
        for series, heights in curves.items()
        for time, height in zip(times, heights, strict=True)
        if height is not None
    ]
    spec = figures.curves(
        rows, x="time", y="barrier", x_title=words(f"claims.{name}.axis"), y_title=words("convention.error_barrier"),
        order=list(curves),
    )  # fmt: skip
    title = f"{words(f'claims.{name}')}: {tested['label']}, {words('method.' + tested['method'])}"
    said = "; ".join(f"{row['series']}, {row['time']:g}: {row['barrier']:.3g}" for row in rows)
    return Figure(title, spec, description=said)


def _by_time(tested: Mapping[str, Any], name: str, words: Words) -> Figure:
    """Rows: when the permutation was found; columns: where it is used."""
    found = tested[name]
    rows = [
        {"found": found["labels"][s], "used": found["labels"][t], "barrier": interval["estimate"]}
        for s, row in enumerate(found["means"])
        for t, interval in enumerate(row)
    ]
    high = max(row["barrier"] or 0.0 for row in rows) or 1.0
    spec = figures.matrix(
        rows, row="found", column="used", value="barrier", title=words("convention.error_barrier"), high=high
    )
    title = f"{words(f'claims.{name}')}: {tested['label']}, {words('method.' + tested['method'])}"
    said = "; ".join(f"{row['found']} → {row['used']}: {row['barrier']:.3g}" for row in rows)
    return Figure(title, spec, caption=words("claims.by_time"), description=said)


def _headline(values: Mapping[str, Any], words: Words) -> str:
    parts = []
    widest = values["tested"][-1]["label"]
    for tested in (entry for entry in values["tested"] if entry["label"] == widest):
        shares = {name: tested[name] for name in ("weak", "strong") if tested[name]}
        said = ", ".join(
            words(
                f"claims.{name}.share", share=f"{found['aligned' if name == 'weak' else 'indirect']['connected']:.0%}"
            )
            for name, found in shares.items()
        )
        parts.append(f"{tested['label']}, {words('method.' + tested['method'])}: {said}")
    return words("claims.headline", parts="; ".join(parts))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
