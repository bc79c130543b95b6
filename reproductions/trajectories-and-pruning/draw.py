"""The figures of the recorded results: the error barrier by kind of permutation, along training and along pruning."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.report import figures

KINDS = {
    "times": {
        "naive": "as they are",
        "own": "permutation found then",
        "one": "the ends' permutation",
        "together": "one for all times",
    },
    "sparsity": {
        "naive": "as they are",
        "own": "permutation found there",
        "one": "dense permutation",
        "together": "one for all levels",
    },
}
AXES = {"times": "steps of training", "sparsity": "share of the weights left"}


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        for cell in result["cells"]:
            found = result["comparisons"][cell["name"]]["kinds"]
            rows = []
            for kind, words in KINDS[cell["claim"]].items():
                for label, mean in zip(cell["labels"], found[kind], strict=True):
                    if mean["estimate"] is not None:
                        ends = {"height": mean["estimate"], "low": mean["low"], "high": mean["high"]}
                        rows.append(
                            {
                                "series": words,
                                "place": float(f"{float(label):.2g}") if cell["claim"] == "sparsity" else float(label),
                                **ends,
                            }
                        )
            titles = {"x_title": AXES[cell["claim"]], "y_title": f"error barrier, matched by {cell['method']}"}
            spec = figures.trend(rows, x="place", y="height", **titles)
            figures.write_picture(spec, folder / f"{cell['name']}.svg")


if __name__ == "__main__":
    main()
