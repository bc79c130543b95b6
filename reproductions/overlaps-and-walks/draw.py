"""The figures of the recorded result: overlaps and their distribution, families, walks, permuted copies, flatness."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.record import plain
from isthmus.core.statistics import over_networks
from isthmus.report import figures
from isthmus.report.section import section

FOLDER = Path(__file__).parent
ALIGNED = ("raw", "reference", "pairwise")


def main() -> None:
    """Draw what lies beside this file."""
    cells = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))["cells"]
    glasses = [cell for cell in cells if cell["name"].startswith("glass")]
    walks = [cell for cell in cells if "walks" in cell]
    figures.write_picture(overlaps(glasses), FOLDER / "overlaps.svg")
    for cell in glasses:
        figures.write_picture(distribution(cell), FOLDER / f"{cell['name'].replace('glass', 'distribution')}.svg")
    perceptrons = [cell for cell in glasses if cell["set"] == "mnist"]
    figures.write_picture(spawned(perceptrons[len(perceptrons) // 2]), FOLDER / "families.svg")
    figures.write_picture(away(walks), FOLDER / "walks.svg")
    figures.write_picture(returned(walks), FOLDER / "returns.svg")
    figures.write_picture(permuted(walks), FOLDER / "permuted.svg")
    for cell in (cell for cell in cells if "generalisation" in cell):
        name = "flatness" if cell["name"].startswith("flatness-mnist") else "flatness-small"
        figures.write_picture(section(cell["generalisation"]).figures[0].spec, FOLDER / f"{name}.svg")


def overlaps(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean overlap by arrangement, a line for each network."""
    rows = [
        {"series": each["label"], "cell": named(cell), "q": each["distribution"]["mean"]["estimate"]}
        for cell in cells
        for each in cell["glass"]["arrangements"]
        if each["label"] != "planted"
    ]
    return figures.dots(rows, x="q", y="cell", x_title="mean overlap q", series="series")


def distribution(cell: Mapping[str, Any]) -> dict[str, Any]:
    """P(q) as it is, aligned to a reference and aligned pair by pair, with the null of the last."""
    rows = []
    for each in cell["glass"]["arrangements"]:
        if each["label"] in ALIGNED:
            found = each["distribution"]
            middles = [(a + b) / 2 for a, b in zip(found["edges"], found["edges"][1:], strict=False)]
            for name, values in ((each["label"], found["density"]), (f"{each['label']}, cloud", found["null"])):
                rows += [{"series": name, "q": q, "P": p} for q, p in zip(middles, values, strict=True)]
    return figures.curves(rows, x="q", y="P", x_title="overlap q", y_title="P(q)")


def spawned(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Overlaps of the families that left common trunks, in the order of their dendrogram."""
    drawn = section(cell["glass"]).figures
    labels = [each["label"] for each in cell["glass"]["arrangements"]]
    return dict(drawn[labels.index("spawned")].spec)


def away(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Loss against the overlap with the start, the mean over walkers."""
    rows = []
    for cell in cells:
        walk = cell["walks"]["random"]["walk"]
        for place in range(len(walk["steps"])):
            q, loss = (sum(row[place] for row in walk[name]) / len(walk[name]) for name in ("overlap", "loss"))
            rows.append({"series": named(cell), "overlap": q, "loss": loss})
    across, up = "overlap with the start", "training loss (nats)"
    return figures.curves(rows, x="overlap", y="loss", x_title=across, y_title=up)


def returned(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of walkers that come back, on MNIST: on CIFAR-10 the descents are cut off before they reach the bottom."""
    rows = []
    for cell in (cell for cell in cells if cell["set"] == "mnist"):
        back = cell["walks"]["random"]["returns"]
        for steps, rate, low, high in zip(*(back[name] for name in ("steps", "rate", "low", "high")), strict=True):
            rows.append({"series": named(cell), "steps": f"{steps} steps", "rate": rate, "low": low, "high": high})
    titles: Any = {"x_title": "share that came back", "order": list(dict.fromkeys(row["series"] for row in rows))}
    rows.sort(key=lambda row: int(row["steps"].split()[0]))
    return figures.intervals(rows, x="rate", y="steps", series="series", floor=None, **titles)


def permuted(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Barrier to a copy with k of h units permuted, over networks."""
    rows = []
    for cell in cells:
        copies = list(cell["permutations"].values())
        for place, moved in enumerate(copies[0]["moved"]):
            means = [sum(each["barrier"][place]) / len(each["barrier"][place]) for each in copies]
            rows.append({"series": named(cell), "share": moved / copies[0]["units"], **ends(means, "barrier")})
    up = "barrier of the training loss (nats)"
    return figures.trend(rows, x="share", y="barrier", floor=1e-4, x_title="k/h", y_title=up)


def ends(values: Sequence[float], name: str) -> dict[str, float]:
    """A mean over networks with its interval."""
    found = plain(over_networks(values))
    return {name: found["estimate"], "low": found["low"], "high": found["high"]}


def named(cell: Mapping[str, Any]) -> str:
    """Short, so that it fits whatever font a reader has."""
    network = "vgg" if cell["network"].startswith("vgg") else cell["network"]
    return f"{cell['set']}, {network}"


if __name__ == "__main__":
    main()
