"""The figures of the recorded result: barriers with and without REPAIR against the depth, in error and in loss."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from isthmus.report import figures

REPAIRED = {"plain": "", "repaired": ", repaired"}
SHOWN = {
    "none": REPAIRED,
    "layer": REPAIRED,
    "batch": {"plain": ", statistics mixed", "repaired": ", estimated anew"},
}
NORMS = {"none": "no norm", "layer": "LayerNorm", "batch": "BatchNorm"}
HEIGHTS = {"error_barrier": "barrier of the test error", "loss_barrier": "barrier of the test loss (nats)"}


def main() -> None:
    """Draw what lies beside this file: a figure of each height for each norm, and the gain of all of them."""
    folder = Path(__file__).parent
    cells = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    for norm, (height, words) in itertools.product(dict.fromkeys(cell["norm"] for cell in cells), HEIGHTS.items()):
        rows = [
            row(f"{method}{SHOWN[norm][name]}", cell["depth"], found["mean"][height])
            for cell in cells
            for method, both in cell["barriers"].items()
            for name, found in both.items()
            if cell["norm"] == norm
        ]
        more = "" if norm == "none" else f"-{norm}"
        draw(rows, words, folder / f"{height}{more}.svg", floor=1e-3)
    gains = [
        row(f"{NORMS[cell['norm']]}, {method}", cell["depth"], cell["gain"][method]["error_barrier"]["mean"])
        for cell in cells
        for method in ("weights", "activations")
    ]
    draw(gains, "lower by REPAIR: barrier of the test error", folder / "gain.svg")


def row(series: str, depth: int, mean: dict) -> dict:
    """One point."""
    return {"series": series, "depth": depth, "height": mean["estimate"], "low": mean["low"], "high": mean["high"]}


def draw(rows: list[dict], title: str, file: Path, floor: float | None = None) -> None:
    """One figure."""
    titles = {"x_title": "hidden layers", "y_title": title}
    figures.write_picture(figures.trend(rows, x="depth", y="height", floor=floor, **titles), file)


if __name__ == "__main__":
    main()
