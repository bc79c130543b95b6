"""The figures of the recorded result: barriers with and without REPAIR against the depth, and what REPAIR gains."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.report import figures

SHOWN = {"plain": "", "repaired": ", repaired"}


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    cells = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    heights, gains = [], []
    for cell in cells:
        for method, both in cell["barriers"].items():
            gain = cell["gain"][method]["loss_barrier"]["mean"]
            if method != "naive":
                gains.append(row(f"norm {cell['norm']}, {method}", cell["depth"], gain))
            for name, found in both.items():
                if cell["norm"] == "none":
                    heights.append(row(f"{method}{SHOWN[name]}", cell["depth"], found["mean"]["loss_barrier"]))
    titles = {"x_title": "hidden layers", "x": "depth", "y": "height"}
    spec = figures.trend(heights, y_title="barrier of the test loss (nats), no norms", floor=3e-3, **titles)
    figures.write_picture(spec, folder / "barrier.svg")
    spec = figures.trend(gains, y_title="lower by REPAIR: barrier of the test loss (nats)", **titles)
    figures.write_picture(spec, folder / "gain.svg")


def row(series: str, depth: int, mean: dict) -> dict:
    """One point."""
    return {"series": series, "depth": depth, "height": mean["estimate"], "low": mean["low"], "high": mean["high"]}


if __name__ == "__main__":
    main()
