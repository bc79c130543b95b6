"""What the cells say together: trends with width, and the tables for people."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.summaries import corrected, disjoint, markdown, shown

from isthmus.core.record import plain
from isthmus.studies.factors.trends import jonckheere

PAIRWISE = ("weights", "activations")
FRAMES = ("naive", "random", "reference, weights", "reference, activations", "mean", "cycle-consistent")
REFERENCE = 0
HEIGHTS = ("loss_barrier", "error_barrier")


def trends_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Do direct and indirect barriers fall with the width? Pairs that share no network."""
    trends = []
    for name in dict.fromkeys(cell["data"] for cell in cells):
        chosen = [cell for cell in cells if cell["data"] == name and "skipped" not in cell]
        chosen.sort(key=lambda cell: cell["width"])
        ways = [("direct", method) for method in PAIRWISE] + [
            ("frames", frame) for frame in FRAMES if frame != "random"
        ]
        for (kind, way), height in itertools.product(ways if len(chosen) > 1 else [], HEIGHTS):
            # The reference is network 1 of the common order: its pairs are direct, so pairs start behind it.
            first = REFERENCE + 1 if way.startswith("reference") else 0
            matrices = [cell[kind][way][height]["pairs"] for cell in chosen]
            rows = [disjoint([row[first:] for row in matrix[first:]]) for matrix in matrices]
            trends.append({"data": name, "what": height, "matching": f"{kind}: {way}", **plain(jonckheere(rows))})
    return list(corrected(trends))


def tables_of(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    done = [cell for cell in cells if "skipped" not in cell]

    def label(cell: Mapping[str, Any]) -> list[Any]:
        return [cell["data"], f"{cell['width']:g}", cell["networks"]]

    head = ["data", "width", "networks"]
    texts = []
    for height in HEIGHTS:
        rows = [
            [
                *label(cell),
                *(shown(cell["direct"][method][height]["mean"]) for method in PAIRWISE),
                *(shown(cell["frames"][frame][height]["mean"]) for frame in FRAMES),
            ]
            for cell in done
        ]
        columns = [*head, *(f"direct, {method}" for method in PAIRWISE), *FRAMES]
        title = f"Test {height.replace('_', ' ')}, all pairs; 95 % intervals over networks"
        texts += [f"**{title}**\n", markdown(columns, rows)]
    names = list(done[0]["compared"]["error_barrier"]) if done else []
    rows = [[*label(cell), *(shown(cell["compared"]["error_barrier"][name]) for name in names)] for cell in done]
    texts += ["**Differences of test error barriers, pair by pair**\n", markdown([*head, *names], rows)]
    rows = [[*label(cell), *(f"{cell['simplex'][frame]['height']:.3g}" for frame in FRAMES)] for cell in done]
    texts += ["**Highest test loss on the simplex of all, above its corners'**\n", markdown([*head, *FRAMES], rows)]
    rows = [
        [
            *label(cell),
            frame,
            *(f"{_ratio(cell, frame, count, what):.3g}" for what in ("loss", "error") for count in (2, -1)),
        ]
        for cell in done
        for frame in FRAMES
        if frame != "random"
    ]
    columns = [*head, "order", "loss of 2", "loss of all", "error of 2", "error of all"]
    texts += ["**The mean of networks: test loss and error over those of one**\n", markdown(columns, rows)]
    rows = [
        [
            *label(cell),
            method,
            *(
                " / ".join(f"{i['estimate']:.3g}" for i in cell["cycles"][method][part])
                for part in ("height", "random")
            ),
            " / ".join(f"{share:.2f}" for share in cell["cycles"][method]["fixed_share"]),
            f"{cell['cycles'][method]['growth']['statistic']:+.2f}, {cell['cycles'][method]['growth']['p']:.2g}",
        ]
        for cell in done
        for method in PAIRWISE
    ]
    columns = [
        *head,
        "matching",
        "error barrier after 1 / 2 / … steps",
        "random",
        "fixed share of the cycle",
        "growth, p",
    ]
    texts += ["**Permutations composed along paths**\n", markdown(columns, rows)]
    texts += ["Trend with width over disjoint pairs (Jonckheere–Terpstra, Holm over all lines):\n"]
    texts += [
        f"- {trend['data']}, {trend['what'].replace('_', ' ')}, {trend['matching']}: {trend['statistic']:+.2f}, "
        f"p = {trend['p_corrected']:.2g}"
        for trend in trends
    ]
    texts += [f"\n{cell['data']}, width {cell['width']:g}: {cell['note']}" for cell in done if "note" in cell]
    return "\n".join(texts) + "\n"


def _ratio(cell: Mapping[str, Any], frame: str, count: int, what: str) -> float:
    """Of the mean of the first networks (−1: of all), over the mean of single ones."""
    values = cell["merged"][frame][what]
    return values[count - 1 if count > 0 else -1] / cell["single"][what]["estimate"]
