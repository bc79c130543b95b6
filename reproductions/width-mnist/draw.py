"""The figures of the recorded result: barrier of the training loss against the width, with what was published."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.report import figures


def main() -> None:
    """Draw what lies beside this file: each data set by matching, and weight matching by the way of training."""
    folder = Path(__file__).parent
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    published = {
        data: [
            row("published ± deviation", int(width), mean, mean - spread, mean + spread)
            for width, (mean, spread) in widths.items()
        ]
        for data, widths in found["published"].items()
    }
    for data in dict.fromkeys(cell["data"] for cell in found["cells"]):
        chosen = [cell for cell in found["cells"] if cell["data"] == data]
        first = [of(cell, method, method) for cell in chosen if cell["way"] == "he" for method in cell["training"]]
        draw(first, folder / f"barrier-{data}.svg")
        draw(
            [of(cell, "weights", cell["way"]) for cell in chosen] + published.get(data, []), folder / f"ways-{data}.svg"
        )


def of(cell: dict, method: str, series: str) -> dict:
    """One cell's mean barrier."""
    mean = cell["training"][method]["mean"]["loss_barrier"]
    return row(series, cell["width"], mean["estimate"], mean["low"], mean["high"])


def row(series: str, width: int, estimate: float, low: float, high: float) -> dict:
    """One point."""
    return {"series": series, "width": width, "barrier": estimate, "low": low, "high": high}


def draw(rows: list[dict], file: Path) -> None:
    """One figure."""
    titles = {"x_title": "width of the hidden layer", "y_title": "barrier of the training loss (nats)"}
    figures.write_picture(figures.trend(rows, x="width", y="barrier", floor=3e-3, **titles), file)


if __name__ == "__main__":
    main()
