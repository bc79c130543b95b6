"""Can small vision transformers trained from different seeds be brought into one basin by permuting their heads?

Images of CIFAR-10 in patches of 4 × 4 pixels, matched and measured as ``reproductions/heads.py`` says.

    PYTHONPATH=. python reproductions/vit-cifar10/run.py --data FOLDER --output OUT

FOLDER holds ``cifar10.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes) or a folder ``cifar10``.
"""

from __future__ import annotations

from reproductions import heads
from reproductions.options import arguments, loaded

from isthmus.train import Recipe
from isthmus.zoo.data import Data


def main() -> None:
    """Train, match, measure."""
    asked = heads.options(arguments(__doc__, "vit-cifar10"), epochs=20, batch=128, rate=1e-3, measured=1000, watched=60)

    def recipe(data: Data, width: int) -> Recipe:
        return Recipe(
            network=f"vit-{width}x{asked.depth}",
            settings={"inputs": list(data.shape), "classes": data.classes},
            data=data.name,
            optimiser="adamw",
            rate=asked.rate,
            weight_decay=0.05,
            warmup=100,
            schedule="cosine",
            batch_size=asked.batch,
            precision="tensorfloat32",
            epochs=asked.epochs,
            augmentation=("crop", "flip"),
        )

    heads.run(
        asked, __doc__, lambda: loaded("cifar10", asked.data, device=asked.device, examples=asked.examples), recipe
    )


if __name__ == "__main__":
    main()
