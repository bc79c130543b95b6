"""What is asked: the options, and the recipes that they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reproductions.options import arguments

from isthmus.train import Recipe
from isthmus.zoo.data import Data


def recipe_of(data: Data, name: str, width: float, asked: argparse.Namespace) -> Recipe:
    """How the networks of a data set and a width are trained."""
    settings: dict[str, Any] = {"inputs": list(data.shape), "classes": data.classes}
    if name == "mnist":
        return Recipe(
            network=f"mlp-{width:g}x{asked.depth}",
            settings={**settings, "initialisation": "torch"},
            data=data.name,
            rate=0.1,
            momentum=0.0,
            schedule="cosine",
            batch_size=100,
            epochs=asked.mnist_epochs,
        )
    steps = len(data.train_targets) // 128
    # The recipe of width-cifar10, so that networks kept by it serve here.
    return Recipe(
        network="resnet20",
        settings={**settings, "norm": asked.norm, "width": width, "initialisation": "torch"},
        data=data.name,
        rate=0.1,
        momentum=0.9,
        weight_decay=2e-3,
        schedule="cosine",
        warmup=min(steps, steps * asked.cifar10_epochs // 2),
        batch_size=128,
        last_batch="drop",
        epochs=asked.cifar10_epochs,
        augmentation=("crop", "flip"),
        precision=asked.precision,
    )


def settings_of(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on."""
    names = ("depth", "norm", "mnist_epochs", "cifar10_epochs", "precision", "points", "inside", "matched", "paths")
    return {name: getattr(asked, name) for name in (*names, "longest", "examples")}


def asked_of(question: str | None) -> argparse.Namespace:
    """The options of the script."""
    words = arguments(question, "three-and-more")
    words.add_argument("--sets", nargs="+", choices=("mnist", "cifar10"), default=["mnist", "cifar10"])
    words.add_argument("--mnist-widths", nargs="+", type=float, default=[16, 64, 256, 512])
    words.add_argument("--cifar10-widths", nargs="+", type=float, default=[0.5, 1, 2], help="of ResNet-20's")
    words.add_argument("--mnist-networks", type=int, default=8)
    words.add_argument("--cifar10-networks", type=int, default=6)
    words.add_argument("--mnist-epochs", type=int, default=10)
    words.add_argument("--cifar10-epochs", type=int, default=10)
    words.add_argument("--depth", type=int, default=3, help="hidden layers of the MLPs")
    words.add_argument("--norm", default="batch", help="of ResNet-20")
    words.add_argument("--precision", default="bfloat16", help="of training on CIFAR-10")
    words.add_argument("--points", type=int, default=9, help="on each line")
    words.add_argument("--inside", type=int, default=20, help="random points in the simplex")
    words.add_argument("--matched", type=int, default=2000, help="training examples that activations are matched on")
    words.add_argument("--paths", type=int, default=8, help="of each length")
    words.add_argument("--longest", type=int, default=4, help="steps of the longest path")
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    words.add_argument("--keep", type=Path, default=None, help="folder of trained weights, as width-cifar10 keeps them")
    asked = words.parse_args()
    asked.widths = {name: getattr(asked, f"{name}_widths") for name in ("mnist", "cifar10")}
    asked.networks = {name: getattr(asked, f"{name}_networks") for name in ("mnist", "cifar10")}
    return asked
