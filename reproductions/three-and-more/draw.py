"""Figures of the recorded result: direct and indirect barriers, the mean of many, permutations along paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.report import figures

NETWORKS = {"mnist": "width of the MLPs' hidden layers", "cifar10": "width, multiple of ResNet-20's"}
ORDERS = ("reference, weights", "reference, activations", "mean", "cycle-consistent")


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    cells = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    for data, title in NETWORKS.items():
        own = [cell for cell in cells if cell["data"] == data]
        if not own:
            continue
        rows = [row(f"direct, {m}", cell, cell["direct"][m]) for cell in own for m in ("weights", "activations")]
        rows += [row(order, cell, cell["frames"][order]) for cell in own for order in ORDERS]
        spec = figures.trend(rows, x="width", y="barrier", x_title=title, y_title="test error barrier")
        figures.write_picture(spec, folder / f"barriers-{data}.svg")
        widest = max(own, key=lambda cell: cell["width"])
        merged(widest, folder / f"merged-{data}.svg")
        paths(widest, folder / f"paths-{data}.svg")


def row(series: str, cell: Mapping[str, Any], barriers: Mapping[str, Any]) -> dict[str, Any]:
    """One point; without an interval where there are too few networks for one."""
    mean = barriers["error_barrier"]["mean"]
    ends = {end: mean["estimate"] if mean[end] is None else mean[end] for end in ("low", "high")}
    return {"series": series, "width": cell["width"], "barrier": mean["estimate"], **ends}


def merged(cell: Mapping[str, Any], file: Path) -> None:
    """Loss and error of the mean of the first networks, over those of one network."""
    rows = [
        {"series": f"{order}, {what}", "networks": count, "ratio": value / cell["single"][what]["estimate"]}
        for order in ("reference, weights", "cycle-consistent")
        for what in ("loss", "error")
        for count, value in enumerate(cell["merged"][order][what], start=1)
    ]
    titles: Any = {"x_title": "networks in the mean", "y_title": "over one network's"}
    figures.write_picture(figures.curves(rows, x="networks", y="ratio", **titles), file)


def paths(cell: Mapping[str, Any], file: Path) -> None:
    """The barrier after a permutation that is composed along a path, against the path's steps."""
    rows = [
        {"series": method if part == "height" else f"{method}, random", "steps": steps, "barrier": mean["estimate"]}
        for method, found in cell["cycles"].items()
        for part in ("height", "random")
        for steps, mean in zip(found["lengths"], found[part], strict=True)
    ]
    titles: Any = {"x_title": "steps of the path", "y_title": "test error barrier"}
    figures.write_picture(figures.curves(rows, x="steps", y="barrier", **titles), file)


if __name__ == "__main__":
    main()
