"""Draw the gallery's pictures from what its scripts find: python docs/draw_gallery.py"""

import runpy
from pathlib import Path

from isthmus.report import figures

HERE = Path(__file__).parent


def width(found):
    rows = [
        {"series": series, "width": units, "barrier": heights[place]}
        for units, heights in found["heights"].items()
        for place, series in enumerate(("as trained", "after matching"))
    ]
    return figures.curves(
        rows, x="width", y="barrier", x_title="hidden units", y_title="loss barrier (nats)",
        order=["as trained", "after matching"],
    )  # fmt: skip


def planted(found):
    moved, back = found["moved"], found["back"]
    order = ["permuted", "after matching"]
    rows = [
        {
            "tensor": name.removeprefix("layers."),
            "series": series,
            "share": float((weights[name] != tensor).double().mean()),
        }
        for series, weights in zip(order, (moved, back), strict=True)
        for name, tensor in found["weights"].items()
        if name.startswith("layers.0.") and tensor.dim() == 2
    ]
    return figures.bars(
        rows,
        x="share",
        y="tensor",
        x_title="share of entries out of place",
        series="series",
        order=order,
    )


def no_permutation_connects(found):
    rows = [
        {"what": f"permutation {place + 1}", "series": "midpoint", "accuracy": value}
        for place, value in enumerate(found["middles"])
    ]
    ends = [
        {"what": name, "series": "network", "accuracy": found["accuracy"](found[name])}
        for name in ("A", "B")
    ]
    return figures.bars(
        [*ends, *rows], x="accuracy", y="what", x_title="accuracy on the square", series="series",
        order=["network", "midpoint"],
    )  # fmt: skip


def batch_statistics(found):
    order = ["averaged statistics", "its own statistics"]
    rows = [
        {"series": series, "t": float(t), "loss": float(loss)}
        for series, curve in zip(order, (found["stale"], found["anew"]), strict=True)
        for t, loss in zip(curve.positions, curve.loss, strict=True)
    ]
    return figures.curves(
        rows,
        x="t",
        y="loss",
        x_title="position on the path (0: first, 1: second)",
        y_title="loss (nats)",
        order=order,
    )


def task_vectors(found):
    names = ("base", "tuned on even", "tuned on odd", "base + both")
    rows = [
        {"what": name, "series": "merged" if place == 3 else "parent", "error": error}
        for place, (name, error) in enumerate(zip(names, found["errors"], strict=True))
    ]
    return figures.bars(
        rows,
        x="error",
        y="what",
        x_title="test error",
        series="series",
        order=["parent", "merged"],
    )


if __name__ == "__main__":
    for script in sorted((HERE / "gallery").glob("*.py")):
        spec = globals()[script.stem](runpy.run_path(str(script)))
        spec["background"] = "white"
        spec["padding"] = {
            "left": 40,
            "right": 10,
            "top": 6,
            "bottom": 6,
        }  # another font may be wider than the one measured
        figures.write_picture(
            spec, HERE / "images" / f"gallery-{script.stem.replace('_', '-')}.svg"
        )
