"""What the cells say together: trends with the width, and the tables for people."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.summaries import corrected, disjoint, markdown, shown

from isthmus.core.record import plain
from isthmus.studies.factors.trends import jonckheere

METHODS = ("naive", "weights", "activations")
NORMS = {"batch": "BatchNorm", "layer": "LayerNorm", "none": "none"}


def trends_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Do the barriers fall with the width? Pairs that share no network, all widths of one kind of network."""
    trends = []
    for norm in dict.fromkeys(cell["norm"] for cell in cells):
        chosen = [cell for cell in cells if cell["norm"] == norm and "skipped" not in cell]
        chosen.sort(key=lambda cell: cell["width"])
        pairs, three = ([cell for cell in chosen if cell["part"] == part] for part in ("pairs", "three"))
        rows = {
            (height, method): [cell["test"][method][height]["pairs"] for cell in pairs]
            for height, method in itertools.product(("loss_barrier", "error_barrier"), METHODS)
        }
        rows |= {
            (f"indirect {height}", method): [
                cell[method]["indirect"][height]["pairs"] for cell in three if method in cell
            ]
            for height, method in itertools.product(("loss_barrier", "error_barrier"), METHODS[1:])
        }
        for (what, method), matrices in rows.items():
            if len(matrices) > 1:
                found = plain(jonckheere([disjoint(matrix) for matrix in matrices]))
                trends.append({"norm": norm, "what": what, "matching": method, **found})
    return list(corrected(trends))


def tables_of(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""

    def part(name: str) -> list[Mapping[str, Any]]:
        found = [cell for cell in cells if cell["part"] == name and "skipped" not in cell]
        return sorted(found, key=lambda cell: (cell["norm"], cell["width"]))

    def label(cell: Mapping[str, Any]) -> list[Any]:
        return [NORMS[cell["norm"]], f"{cell['width']:g}", cell["networks"]]

    head = ["norm", "width ×", "networks"]
    texts = []
    for of, height in itertools.product(("test", "training"), ("error_barrier", "loss_barrier")):
        rows = [
            [*label(cell), shown(cell["test_error"]), *(shown(cell[of][m][height]["mean"]) for m in METHODS)]
            for cell in part("pairs")
        ]
        title = f"{of.capitalize()} {height.replace('_', ' ')}, all pairs; 95 % intervals over networks"
        texts += [f"**{title}**\n", markdown([*head, "error of one network, test", *METHODS], rows)]
    rows = [
        [*label(cell), cell["policy"], *(shown(cell["test"][m]["error_barrier"]["mean"]) for m in METHODS)]
        for cell in part("statistics")
    ]
    texts += ["**Test error barrier with the middle treated otherwise**\n", markdown([*head, "how", *METHODS], rows)]
    rows = [
        [
            *label(cell),
            method,
            *(shown(cell[method][way]["error_barrier"]["mean"]) for way in ("direct", "indirect")),
            shown(cell[method]["difference"]["error_barrier"]),
            *(_mean(cell, method, name) for name in ("height", "centre", "centre_error")),
            _mean(cell, "naive", "height"),
        ]
        for cell in part("three")
        for method in METHODS[1:]
        if method in cell
    ]
    columns = ["matching", "direct", "indirect", "indirect − direct", "simplex, loss", "centre, loss", "centre, error"]
    texts += [
        "**Three networks: test error barriers among those that were matched to one reference; highest loss on the"
        " simplex of three, and at its centre, above the mean of the corners**\n",
        markdown([*head, *columns, "simplex, loss, not matched"], rows),
        "Trend with width on test images, over disjoint pairs (Jonckheere–Terpstra, Holm over all lines):\n",
        *(
            f"- {NORMS[trend['norm']]}, {trend['what'].replace('_', ' ')}, {trend['matching']}: "
            f"{trend['statistic']:+.2f}, p = {trend['p_corrected']:.2g}"
            for trend in trends
        ),
    ]
    texts += [f"- {cell['name']}: {cell['skipped']}" for cell in cells if "skipped" in cell]
    texts += [f"- {cell['name']}: not there is {cell['missing']}" for cell in cells if "missing" in cell]
    return "\n".join(texts) + "\n"


def _mean(cell: Mapping[str, Any], method: str, name: str) -> str:
    """Of the simplexes of a cell; one that was stopped before has none."""
    values = cell.get(method, {}).get("simplex", {}).get(name, [])
    return f"{sum(values) / len(values):.3g}" if values else "–"
