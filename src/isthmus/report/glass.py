"""The section about solutions as a spin glass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report import figures
from isthmus.report.numbers import interval_text
from isthmus.report.page import Figure, Section, Table
from isthmus.report.words import Words


def glass_section(values: Mapping[str, Any], words: Words) -> Section:
    """Overlap matrices, P(q) against its null, the verdicts, the tree of passes."""
    drawn = [_matrix(each, words) for each in values["arrangements"]]
    drawn += [_histogram(each, words) for each in values["arrangements"]]
    drawn += [_passes(values[name], words) for name in ("disconnectivity", "minimax") if values.get(name)]
    if values.get("sizes"):
        drawn.append(_sizes(values["sizes"], words))
    columns, rows = arrangement_rows(values, words)
    tests = [
        [words(f"glass.{each['label']}"), words(f"glass.measure.{test['measure']}"),
         words(f"glass.null.{test['null']}"),
         test["observed"], test["expected"], test["low"], test["high"], test["p"]]
        for each in values["arrangements"] if each["verdict"] for test in each["verdict"]["tests"]
    ]  # fmt: skip
    names = ("set", "measure", "null", "observed", "expected", "low", "high", "p")
    text = [words("glass.text"), words("glass.scale" if values["scale_removed"] else "glass.no_scale")]
    text += family_lines(values, words)
    if left_out := values["arrangements"][0]["overlaps"]["left_out"]:
        said = "; ".join(f"{each['name']} ({each['reason']})" for each in left_out)
        text.append(words("glass.left_out", n=len(left_out), names=said))
    return Section(
        words("glass.title"),
        text=text,
        figures=drawn,
        tables=[
            Table(words("glass.table"), columns, rows),
            Table(words("glass.tests"), [words(f"glass.column.{name}") for name in names], tests),
        ],
        definitions=[
            (words(f"glass.term.{name}"), words(f"glass.meaning.{name}")) for name in ("q", "gap", "cophenetic")
        ],
        headline=_headline(values, words),
    )


def arrangement_rows(values: Mapping[str, Any], words: Words) -> tuple[list[str], list[list[Any]]]:
    """One row for each set of solutions."""
    names = ("set", "networks", "mean", "spread", "gap", "cophenetic", "p", "hierarchical", "recovered")
    rows = []
    for each in values["arrangements"]:
        verdict, spread = each["verdict"], each["distribution"]
        row = [words(f"glass.{each['label']}"), len(each["overlaps"]["names"]), interval_text(spread["mean"])]
        row.append(interval_text(spread["spread"]))
        if verdict:
            row += [interval_text(verdict["gap"]), interval_text(verdict["cophenetic"]), verdict["p"]]
            row.append(words("glass.yes") if verdict["hierarchical"] else words("glass.no"))
        else:
            row += [None, None, None, None]
        row.append(each["recovery"]["score"] if each["recovery"] else None)
        rows.append(row)
    return [words(f"glass.column.{name}") for name in names], rows


def family_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """Who belongs together in every hierarchical set but the controls: its tree, cut at the widest gap of its joins."""
    lines = []
    for each in values["arrangements"]:
        if not (each["verdict"] and each["verdict"]["hierarchical"]) or each["label"] in _CONTROLS:
            continue
        names = each["overlaps"]["names"]
        found = [", ".join(names[leaf] for leaf in family) for family in families(each["states"]["merges"], len(names))]
        of = words(f"glass.{each['label']}")
        lines.append(words("glass.families", name=of, n=len(found), families="; ".join(found)))
    return lines


def families(merges: Sequence[Sequence[float]], leaves: int) -> list[list[int]]:
    """The parts of a tree that is cut where its joins lie farthest apart, leaves in the order of their numbers.

    Example:
        >>> families([[0, 1, 0.1, 2], [2, 3, 0.2, 2], [4, 5, 0.9, 4]], 4)
        [[0, 1], [2, 3]]
    """
    heights = [merge[2] for merge in merges]
    gaps = [after - before for before, after in itertools.pairwise(heights)]
    kept = gaps.index(max(gaps)) + 1 if gaps else 0
    parts = {leaf: [leaf] for leaf in range(leaves)}
    for number, (left, right, *_) in enumerate(merges[:kept]):
        parts[leaves + number] = sorted(parts.pop(int(left)) + parts.pop(int(right)))
    return sorted(parts.values())


def _matrix(each: Mapping[str, Any], words: Words) -> Figure:
    """Overlaps with the solutions in the order of the dendrogram."""
    order, names, q = each["states"]["order"], each["overlaps"]["names"], each["overlaps"]["q"]
    rows = [{"first": names[i], "second": names[j], "q": q[i][j] if i != j else None} for i in order for j in order]
    off = [row["q"] for row in rows if row["q"] is not None]
    place = {leaf: float(position) for position, leaf in enumerate(order)}
    merges = [
        [place.get(int(left), left), place.get(int(right), right), height, leaves]
        for left, right, height, leaves in each["states"]["merges"]
    ]
    shown = [names[leaf] for leaf in order]
    spec = figures.ordered_matrix(rows, shown, row="first", column="second", value="q", title="q", merges=merges)
    title = words("glass." + each["label"])
    return Figure(title, spec, caption=words("glass.matrix"), description=f"{title}: {min(off):.3g} … {max(off):.3g}")


def _histogram(each: Mapping[str, Any], words: Words) -> Figure:
    """P(q) with its interval, and the structureless null as a line."""
    found = each["distribution"]
    rows = [
        {"q1": a, "q2": b, "density": d, "low": lo, "high": hi, "null": n}
        for a, b, d, lo, hi, n in zip(
            found["edges"],
            found["edges"][1:],
            found["density"],
            found["low"],
            found["high"],
            found["null"],
            strict=False,
        )
    ]
    spec = figures.histogram(rows, x_title=words("glass.q"), y_title="P(q)", null=words("glass.null.cloud"))
    title = f"P(q), {words('glass.' + each['label'])}"
    said = f"{title}: {interval_text(found['mean'])}, {interval_text(found['spread'])}"
    return Figure(title, spec, caption=words("glass.histogram"), description=said)


def _passes(graph: Mapping[str, Any], words: Words) -> Figure:
    spec = figures.tree(graph["merges"], graph["order"], graph["loss"], graph["names"], y_title=words("curve.loss"))
    kind = words("glass.by_construction") if graph["ultrametric_by_construction"] else words("glass.linear_passes")
    title = words(f"glass.passes.{graph['source']}")
    low, high = min(graph["loss"]), max(merge[2] for merge in graph["merges"])
    return Figure(title, spec, caption=kind, description=f"{title}: {low:.3g} … {high:.3g}")


def _sizes(found: Mapping[str, Any], words: Words) -> Figure:
    """The spread of overlaps against the networks' size, and what chance alone would make of the smallest one's."""
    pairs = sorted(zip(found["entries"], found["spread"], strict=True), key=lambda pair: pair[0])
    names = [words("glass.sizes.found"), words("glass.sizes.chance")]
    first = pairs[0]
    rows = [
        {"series": names[0], "entries": entries, "spread": spread["estimate"],
         "low": max(spread["low"], 0.0), "high": spread["high"]}
        for entries, spread in pairs
    ]  # fmt: skip
    for entries, _ in pairs:
        chance = first[1]["estimate"] * (first[0] / entries) ** 0.5
        rows.append({"series": names[1], "entries": entries, "spread": chance, "low": chance, "high": chance})
    floor = min(row["spread"] for row in rows) / 4
    spec = figures.trend(
        rows, x="entries", y="spread", x_title=words("glass.sizes.entries"), y_title=words("glass.column.spread"),
        order=names, floor=floor,
    )  # fmt: skip
    said = words("glass.sizes.said", exponent=interval_text(found["exponent"]))
    return Figure(words("glass.sizes"), spec, caption=f"{said} {words('glass.sizes.caption')}", description=said)


_CONTROLS = ("planted", "spawned")


def _headline(values: Mapping[str, Any], words: Words) -> str:
    """What holds for the solutions; then the controls, which must be recognised."""
    parts, controls = [], []
    for each in values["arrangements"]:
        if each["verdict"]:
            control, found = each["label"] in _CONTROLS, each["verdict"]["hierarchical"]
            answer = ("glass.control" if found else "glass.control.missed") if control else None
            said = words(
                answer or ("glass.is" if found else "glass.is_not"),
                name=words(f"glass.{each['label']}"), p=f"{each['verdict']['p']:.3g}",
            )  # fmt: skip
            (controls if control else parts).append(said)
    if not parts:
        parts.append(words("glass.too_few", n=len(values["arrangements"][0]["overlaps"]["names"])))
    parts += controls
    said = words("glass.headline", parts="; ".join(parts))
    return said[:1].upper() + said[1:]
