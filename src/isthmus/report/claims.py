"""The section about the claims of connectivity modulo permutation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report import figures
from isthmus.report.connectivity import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def claims_section(values: Mapping[str, Any], words: Words) -> Section:
    """Every claim with its controls: by width, by path length, by the time of the permutation."""
    columns, rows = claims_rows(values, words)
    drawn = [_by_width(values, words), *_by_length(values, words)]
    for tested in values["tested"]:
        for name in ("times", "sparsity"):
            if tested[name]:
                drawn.append(_by_time(tested, name, words))
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
    rows = []
    for tested in values["tested"]:
        if not tested["cycles"]:
            continue
        found = tested["cycles"]
        for length, heights in zip(found["lengths"], found["heights"], strict=True):
            known = [height for height in heights if height is not None]
            series = f"{tested['label']}, {words('method.' + tested['method'])}"
            rows.append({"series": series, "length": length, "barrier": sum(known) / len(known)})
    if not rows:
        return []
    spec = figures.curves(
        rows, x="length", y="barrier", x_title=words("claims.length"), y_title=words("convention.error_barrier")
    )
    said = "; ".join(f"{row['series']}, {row['length']}: {row['barrier']:.3g}" for row in rows)
    return [Figure(words("claims.by_length"), spec, description=said)]


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
