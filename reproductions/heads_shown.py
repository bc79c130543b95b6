"""What the cells of ``reproductions/heads.py`` say: claims, tables, figures.

    PYTHONPATH=. python reproductions/heads_shown.py FOLDER

draws the recorded result of a folder anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from reproductions.summaries import disjoint, markdown, shown

from isthmus.core.record import plain
from isthmus.core.statistics import over_networks, over_pairs

SCOPES = ("ffn", "heads", "all")
WAYS = tuple(f"{method} {scope}" for method in ("weights", "activations") for scope in SCOPES)
# (what is lowered, below what): gains of the first over the second must be positive.
CLAIMS = (
    *((way, "naive") for way in WAYS),
    *((f"{method} {more}", f"{method} {less}") for method in ("weights", "activations")
      for more, less in (("heads", "ffn"), ("all", "heads"))),
)  # fmt: skip


def claims_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gains over disjoint pairs, which share no network; intervals hold together over all claims (Bonferroni)."""
    level = 1 - 0.05 / max(1, len(cells) * (len(CLAIMS) + 1))
    claims = []
    for cell in cells:
        # Of the networks beyond the first ones only such pairs were measured.
        found = {way: parts["training"] for way, parts in cell["barriers"].items()}
        pairs = {way: [*disjoint(part["pairs"]), *part.get("further", ())] for way, part in found.items()}
        for lower, higher in (*CLAIMS, ("random", "naive")):
            gain = over_networks([b - a for a, b in zip(pairs[lower], pairs[higher], strict=True)], level=level)
            # A random permutation must lower nothing: its claim holds unless a gain is shown.
            holds = not gain.low > 0 if lower == "random" else gain.low > 0
            whole = [torch.tensor(found[way]["pairs"]) for way in (lower, higher)]
            claims.append({"width": cell["width"], "lower": lower, "than": higher, "gain": plain(gain),
                           "over_all_pairs": plain(over_pairs(whole[1] - whole[0])), "holds": holds})  # fmt: skip
    return claims


def tables_of(cells: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    rows = []
    for cell in cells:
        means = {way: parts["training"]["loss_barrier"] for way, parts in cell["barriers"].items()}
        start = [cell["family"], cell["width"], f"{cell['training_loss']['estimate']:.3g}"]
        start += [f"{cell['test_loss']['estimate']:.3g}", f"{cell['test_error']['estimate']:.3g}"]
        rows.append([*start, *(shown(means[way]) for way in ("naive", *WAYS, "random"))])
    columns = ["family", "width", "training loss", "test loss", "test error", "naive", *WAYS, "random"]
    text = [markdown(columns, rows), "Barrier of the training loss (nats); 95 % intervals over networks.\n"]
    controls = [
        [cell["family"], cell["width"], way, *(_mean(cell, way, part) for part in ("recovered", "before", "after"))]
        for cell in cells
        for way in cell["planted"]
    ]
    text += [
        markdown(["family", "width", "planted, matched by", "units recovered", "barrier before", "after"], controls)
    ]
    judged = [
        [
            each["width"],
            f"{each['lower']} < {each['than']}",
            shown(each["over_all_pairs"]),
            shown(each["gain"]),
            "holds" if each["holds"] else "not shown",
        ]
        for each in claims
        if each["lower"] != "random"
    ]
    text += [
        markdown(
            ["width", "claim (independent)", "gain over all pairs", "over disjoint pairs, Bonferroni", "verdict"],
            judged,
        )
    ]
    return "\n".join(text)


def _mean(cell: Mapping[str, Any], way: str, part: str) -> str:
    found = [copy[part] for copy in cell["planted"][way]]
    return f"{sum(found) / len(found):.3g}"


def _ends(mean: Mapping[str, Any]) -> dict[str, float]:
    return {"barrier": mean["estimate"], "low": mean["low"], "high": mean["high"]}


def draw(folder: Path) -> None:
    """Barriers by what may be permuted, and the loss on the way between."""
    from isthmus.report import figures  # charts need packages that measuring does without

    cells = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    for family in dict.fromkeys(cell["family"] for cell in cells):
        own = [cell for cell in cells if cell["family"] == family]
        rows = [
            {"way": way, "width": f"width {cell['width']}", **_ends(parts["training"]["loss_barrier"])}
            for cell in own
            for way, parts in cell["barriers"].items()
        ]
        widths = [f"width {cell['width']}" for cell in own]
        titles: Any = {"x_title": "barrier of the training loss (nats)", "floor": None}
        spec = figures.intervals(rows, x="barrier", y="way", series="width", order=widths, **titles)
        figures.write_picture(spec, folder / f"barriers-{family}.svg")
    cell = [cell for cell in cells if cell["family"] == "independent"][-1]
    rows = []
    for way, parts in cell["barriers"].items():
        curve = parts["training"]["mean_curve"]
        rows += [{"series": way, "t": place / (len(curve) - 1), "loss": loss} for place, loss in enumerate(curve)]
    across, up = "place on the line", "training loss (nats)"
    spec = figures.curves(rows, x="t", y="loss", x_title=across, y_title=up)
    figures.write_picture(spec, folder / "curves.svg")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        draw(Path(name))
