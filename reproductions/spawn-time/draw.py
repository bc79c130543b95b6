"""The figure of the recorded results: the error barrier between siblings against the steps trained together.

PYTHONPATH=. python reproductions/spawn-time/draw.py
"""

from __future__ import annotations

import json
from pathlib import Path

from reproductions.apart import trend

from isthmus.report import figures

NAMES = {"lenet": "LeNet-300-100, Adam", "perceptron": "LeNet-300-100, SGD", "resnet20": "ResNet-20, SGD"}
START = 8  # where a logarithmic axis shows siblings that share no step


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    rows = []
    for cell in json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]:
        mean = cell["mean"]["error_barrier_over_mean"]
        ends = {"height": mean["estimate"], "low": mean["low"], "high": mean["high"]}
        rows.append({"series": NAMES[cell["case"]], "spawn": max(cell["spawn"], START), **ends})
    rows.sort(key=lambda row: row["spawn"])
    places = [row["spawn"] for row in rows]
    for place in (min(places), max(places)):
        rows.append({"series": "2 %: stable below", "spawn": place, "height": 0.02, "low": 0.02, "high": 0.02})
    spec = trend(
        rows,
        x="spawn",
        y="height",
        x_title=f"steps trained together (none: drawn at {START})",
        y_title="error barrier of siblings (95 % over roots)",
        floor=1e-4,
    )
    figures.write_picture(spec, folder / "barrier.svg")


if __name__ == "__main__":
    main()
