"""The figure of the recorded results: the error barrier between siblings against the steps trained together."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.report import figures

NAMES = {"lenet": "LeNet-300-100, Adam", "perceptron": "LeNet-300-100, SGD", "resnet20": "ResNet-20, SGD"}
START = 8  # where a logarithmic axis shows siblings that share no step


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    rows = []
    for file in ("mnist.json", "cifar10.json"):
        for cell in json.loads((folder / file).read_text(encoding="utf-8"))["cells"]:
            mean = cell["mean"]["error_barrier_over_mean"]
            ends = {"height": mean["estimate"], "low": mean["low"], "high": mean["high"]}
            rows.append({"series": NAMES[cell["case"]], "spawn": max(cell["spawn"], START), **ends})
    rows.sort(key=lambda row: row["spawn"])
    for place in sorted({row["spawn"] for row in rows}):
        rows.append({"series": "stable below", "spawn": place, "height": 0.02, "low": 0.02, "high": 0.02})
    spec = figures.trend(
        rows,
        x="spawn",
        y="height",
        x_title=f"steps trained together (none: drawn at {START})",
        y_title="error barrier between siblings",
        floor=1e-4,
    )
    figures.write_picture(spec, folder / "barrier.svg")


if __name__ == "__main__":
    main()
