"""Draw the README's picture from a demo's results: python docs/draw_readme_picture.py isthmus-demo/results.json"""

import json
import sys
from pathlib import Path

from isthmus.report import figures
from isthmus.report.words import words_for

values = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
words = words_for("en")
widest = values["widths"][-1]
order = [words(f"method.{name}") for name in ("naive", "weights", "activations")]
rows = [
    {"series": words(f"method.{name}"), "t": t, "loss": loss}
    for name in ("naive", "weights", "activations")
    for t, loss in zip(
        widest["barriers"][name]["curves"]["(0, 1)"]["positions"],
        widest["barriers"][name]["curves"]["(0, 1)"]["loss"],
        strict=True,
    )
]
spec = figures.curves(
    rows,
    x="t",
    y="loss",
    x_title=words("curve.axis"),
    y_title=words("curve.loss"),
    order=order,
)
spec["background"] = "white"
figures.write_picture(spec, Path(__file__).parent / "images" / "path.svg")
