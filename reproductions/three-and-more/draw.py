"""Figures of the recorded result: direct and indirect barriers, the mean of many, permutations along paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.report import figures

NETWORKS = {"mnist": "units a layer: {:g}", "cifar10": "ResNet-20 × {:g}"}
DIRECT = ("weights", "activations")
ORDERS = ("reference, weights", "reference, activations", "mean", "cycle-consistent", "naive")
FLOORS = {"mnist": 1e-3, "cifar10": 1e-2}  # where the axis of the error barrier begins


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    cells = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    for data, name in NETWORKS.items():
        own = sorted((cell for cell in cells if cell["data"] == data), key=lambda cell: cell["width"])
        if not own:
            continue
        order = [*(f"direct, {method}" for method in DIRECT), *ORDERS]
        rows = [
            {"network": name.format(cell["width"]), "way": way, **row(cell["direct"][m] if m else cell["frames"][way])}
            for cell in own
            for way, m in zip(order, (*DIRECT, *[""] * len(ORDERS)), strict=True)
        ]
        spec = figures.intervals(
            rows, x="barrier", y="network", x_title="test error barrier", series="way", order=order, floor=FLOORS[data]
        )
        figures.write_picture(spec, folder / f"barriers-{data}.svg")
        widest = own[-1]
        merged(widest, folder / f"merged-{data}.svg")
        paths(widest, folder / f"paths-{data}.svg")


def row(barriers: Mapping[str, Any]) -> dict[str, Any]:
    """The error barrier over all pairs with its interval over networks."""
    return point(barriers["error_barrier"]["mean"])


def point(mean: Mapping[str, Any]) -> dict[str, Any]:
    """One point; without an interval where there are too few networks for one."""
    ends = {end: mean["estimate"] if mean[end] is None else mean[end] for end in ("low", "high")}
    return {"barrier": mean["estimate"], **ends}


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
    drawn = {f"matched by {method}": (found, "height") for method, found in cell["cycles"].items()}
    drawn["random permutations"] = (cell["cycles"]["weights"], "random")  # the same ones for every method
    rows = [
        {"series": series, "steps": steps, **point(mean)}
        for series, (found, part) in drawn.items()
        for steps, mean in zip(found["lengths"], found[part], strict=True)
    ]
    titles: Any = {"x_title": "steps of the path", "y_title": "test error barrier"}
    figures.write_picture(figures.trend(rows, x="steps", y="barrier", **titles), file)


if __name__ == "__main__":
    main()
