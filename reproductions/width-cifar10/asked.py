"""What the script is asked, and what of it results depend on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reproductions.options import arguments
from tables import NORMS


def settings_of(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on, beside network, norm, width and number of networks, which are in the cells' names."""
    names = (
        "epochs",
        "batch",
        "rate",
        "decay",
        "layer_optimiser",
        "layer_rate",
        "layer_decay",
        "plain_rate",
        "plain_decay",
        "warmup",
        "precision",
        "points",
        "inside",
        "most",
    )
    return {name: getattr(asked, name) for name in (*names, "measured", "statistics", "examples")}


def asked_for(question: str | None) -> argparse.Namespace:
    """What the command line says."""
    words = arguments(question, "width-cifar10")
    words.add_argument("--network", choices=("resnet20", "vgg"), default="resnet20")
    words.add_argument("--norms", nargs="+", choices=tuple(NORMS), default=["layer", "batch"])
    words.add_argument("--widths", nargs="+", type=float, default=[1, 2, 4, 8], help="of the published network's")
    words.add_argument("--networks", nargs="+", type=int, default=[6], help="of each width, one number or one each")
    words.add_argument("--parts", nargs="*", default=["pairs", "three", "statistics"])
    words.add_argument("--epochs", type=int, default=10)
    words.add_argument("--batch", type=int, default=128)
    words.add_argument("--rate", type=float, default=0.1)
    words.add_argument("--decay", type=float, default=2e-3, help="weight decay")
    words.add_argument("--layer-optimiser", choices=("sgd", "adam"), default="sgd", help="of networks with LayerNorm")
    words.add_argument("--layer-rate", type=float, default=0.02, help="the rate of networks with LayerNorm")
    words.add_argument("--layer-decay", type=float, default=5e-4)
    words.add_argument("--plain-rate", type=float, default=0.05, help="the rate of networks without a norm")
    words.add_argument("--plain-decay", type=float, default=5e-4)
    words.add_argument("--warmup", type=int, default=1, help="epochs")
    words.add_argument("--precision", default="bfloat16", help="of training")
    words.add_argument("--points", type=int, default=9, help="on each line")
    words.add_argument("--most", type=float, default=0.8, help="test error above which a network did not train")
    words.add_argument("--inside", type=int, default=10, help="random points in each simplex")
    words.add_argument("--measured", type=int, default=2000, help="training examples that barriers are measured on")
    words.add_argument("--statistics", type=int, default=2000, help="training examples for statistics and activations")
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    words.add_argument("--at-once", type=int, default=2000, help="examples that go through a network at once")
    words.add_argument("--keep", type=Path, default=None, help="folder of trained weights; OUTPUT/trained if not given")
    return words.parse_args()
