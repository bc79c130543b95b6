"""Figures of recorded results: PYTHONPATH=. python reproductions/width-cifar10/draw.py [FOLDER]

``barriers-NORM.svg``: the test error barrier of all pairs against the width, by matching, for each normalisation, with
what other treatment of the middle gives; where there is one width only, ``paths-NORM.svg``: the mean test error along
the lines. ``three-NORM.svg``: direct and indirect barriers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproductions.apart import trend

from isthmus.report import figures

METHODS = ("naive", "weights", "activations")
TITLES: Any = {"x_title": "width, multiple of the published network's"}
TREATED = {"interpolate": "statistics mixed", "repair": "repaired"}


def main(folder: Path) -> None:
    """Draw what lies in a folder."""
    cells = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if "skipped" not in cell]
    for norm in dict.fromkeys(cell["norm"] for cell in cells):
        own = [cell for cell in cells if cell["norm"] == norm]
        rows = [
            row(method, cell, cell["test"][method]) for cell in own if cell["part"] == "pairs" for method in METHODS
        ]
        rows += [
            row(f"{method}, {TREATED[cell['policy']]}", cell, cell["test"][method])
            for cell in own
            if cell["part"] == "statistics"
            for method in METHODS[1:]
        ]
        if len({one["width"] for one in rows}) > 1:
            drawn(rows, folder / f"barriers-{norm}.svg")
        else:
            paths(next(cell for cell in own if cell["part"] == "pairs"), folder / f"paths-{norm}.svg")
        if norm != "none":  # there all lines are at chance unless repaired, which three networks are not
            three(own, folder / f"three-{norm}.svg")


def three(cells: list[Mapping[str, Any]], file: Path) -> None:
    """Direct and indirect barriers against the width, of one norm."""
    rows = [
        row(f"{method}, {way}", cell, cell[method][way])
        for cell in cells
        if cell["part"] == "three"
        for method in METHODS[1:]
        if method in cell
        for way in ("direct", "indirect")
    ]
    if len({one["width"] for one in rows}) > 1:
        drawn(rows, file)


def row(series: str, cell: Mapping[str, Any], barriers: Mapping[str, Any]) -> dict[str, Any]:
    """One point; without an interval where there are too few networks for one."""
    mean = barriers["error_barrier"]["mean"]
    ends = {end: mean["estimate"] if mean[end] is None else mean[end] for end in ("low", "high")}
    return {"series": series, "width": cell["width"], "barrier": mean["estimate"], **ends}


def paths(cell: Mapping[str, Any], file: Path) -> None:
    """The mean test error along the lines of one width."""
    rows = [
        {"series": method, "position": position, "error": error}
        for method in METHODS
        for position, error in zip(cell["test"][method]["positions"], cell["test"][method]["mean_error"], strict=True)
    ]
    titles: Any = {"x_title": "position on the line", "y_title": "test error, mean over pairs"}
    figures.write_picture(figures.curves(rows, x="position", y="error", **titles), file)


def drawn(rows: list[dict[str, Any]], file: Path) -> None:
    """Write one figure, on a logarithmic axis that holds every interval."""
    floor = 0.8 * min(row["low"] for row in rows)
    spec = trend(rows, x="width", y="barrier", y_title="test error barrier (95 % over networks)", floor=floor, **TITLES)
    figures.write_picture(spec, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
