"""The figure of the recorded result: barrier of the training loss against the width, with what was published."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.report import figures


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = []
    for cell in found["cells"]:
        for method in ("naive", "weights", "activations"):
            mean = cell["training"][method]["loss_barrier"]["mean"]
            ends = {"barrier": mean["estimate"], "low": mean["low"], "high": mean["high"]}
            rows.append({"series": f"{cell['data']}, {method}", "width": cell["width"], **ends})
    for data, widths in found["published"].items():
        for width, (mean, spread) in widths.items():
            ends = {"barrier": mean, "low": mean - spread, "high": mean + spread}
            rows.append({"series": f"{data}, weights, published ± deviation", "width": int(width), **ends})
    titles = {"x_title": "width of the hidden layer", "y_title": "barrier of the training loss (nats)"}
    spec = figures.trend(rows, x="width", y="barrier", floor=3e-3, **titles)
    figures.write_picture(spec, folder / "barrier.svg")


if __name__ == "__main__":
    main()
