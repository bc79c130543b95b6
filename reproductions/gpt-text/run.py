"""Can small language models trained from different seeds be brought into one basin by permuting their heads?

Character models on one text (the end held out), matched and measured as ``reproductions/heads.py`` says.

    PYTHONPATH=. python reproductions/gpt-text/run.py --data FOLDER --output OUT

FOLDER holds ``input.txt`` or ``tinyshakespeare/input.txt``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reproductions import heads
from reproductions.options import arguments

from isthmus.train import Recipe
from isthmus.zoo import characters
from isthmus.zoo.data import Data


def main() -> None:
    """Train, match, measure."""
    words = arguments(__doc__, "gpt-text")
    words.add_argument("--length", type=int, default=64, help="characters in an example")
    asked = heads.options(words, epochs=12, batch=64, rate=1e-3, measured=1000, watched=50)

    def data() -> Data:
        text = characters(_file(asked.data), length=asked.length)
        named = dataclasses.replace(text, name="input.txt")
        return (named.limited(asked.examples) if asked.examples else named).to(asked.device)

    def recipe(data: Data, width: int) -> Recipe:
        return Recipe(
            network=f"gpt-{width}x{asked.depth}",
            settings={"inputs": list(data.shape), "classes": data.classes},
            data=data.name,
            optimiser="adamw",
            rate=asked.rate,
            weight_decay=0.01,
            warmup=100,
            schedule="cosine",
            batch_size=asked.batch,
            precision="tensorfloat32",
            epochs=asked.epochs,
        )

    heads.run(asked, __doc__, data, recipe)


def _file(folder: Path) -> Path:
    file = folder / "input.txt"
    return file if file.exists() else folder / "tinyshakespeare" / "input.txt"


if __name__ == "__main__":
    main()
