"""Does the barrier fall with the width? One hidden layer on MNIST and Fashion-MNIST, all pairs of a set of networks.

Trains networks that share nothing (initialisation and order of the data differ), matches every pair by weights and by
activations, and measures the loss on the straight line between them: as they are, and after matching. Several ways of
starting and training are compared, since what is left of the random initial weights cannot be matched. Every cell (data
set, way, width) is written as soon as it is done, and a second start does only what is missing.

    PYTHONPATH=. python reproductions/width-mnist/run.py --data FOLDER --output OUT

FOLDER holds ``mnist.npz`` and ``fashion-mnist.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes, examples ×
1 × 28 × 28), or folders ``mnist`` and ``fashion-mnist`` with the four published files.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from reproductions.bench import Bench
from reproductions.cells import Cells, Phase, say, told
from reproductions.options import arguments, loaded
from reproductions.summaries import corrected, markdown, shown

from isthmus.connect import PairBarriers, barriers
from isthmus.core.record import plain
from isthmus.core.statistics import over_networks, over_pairs
from isthmus.studies.factors.trends import jonckheere
from isthmus.train import Recipe
from isthmus.zoo.data import Data

METHODS = ("naive", "weights", "activations")
CONVENTIONS = ("loss_barrier", "error_barrier", "midpoint")
# Training-loss barrier after weight matching, mean and deviation over 51 pairs, as published (arXiv 2404.06498).
PUBLISHED = {"mnist": {16: (0.312, 0.12), 64: (0.0493, 0.009), 256: (0.0060, 0.0006)}}
# Ways of starting and training, by name: what each changes of SGD at .1 without momentum over ten epochs from He's
# initial weights (normal, variance 2/fan-in).
WAYS: Mapping[str, Mapping[str, Any]] = {
    "he": {},
    "torch": {"initialisation": "torch"},
    "small": {"initialisation": "torch", "initial_scale": 0.1},
    "momentum": {"initialisation": "torch", "momentum": 0.9},
    "small-momentum": {"initialisation": "torch", "initial_scale": 0.1, "momentum": 0.9},
    "decay": {"initialisation": "torch", "initial_scale": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "long": {"initialisation": "torch", "epochs": 40},
    "slow": {"initialisation": "torch", "initial_scale": 0.1, "rate": 0.02, "epochs": 40},
}
WIDE = 128  # the first run's barriers after weight matching rose above this width


def main() -> None:
    """Run what is missing, then write the table."""
    asked = _arguments()
    cells = Cells(asked.output, _settings(asked))
    for part in asked.parts:
        name, way, widths = part.split(":")
        data = functools.cache(lambda name=name: loaded(name, asked.data, device=asked.device, examples=asked.examples))
        for width in map(int, widths.split(",")):
            cells(f"{name}-{way}-{width}", lambda data=data, way=way, width=width: _cell(data(), way, width, asked))
    cells.also(asked.also)
    cells.found.sort(key=lambda cell: (cell["data"] != "mnist", list(WAYS).index(cell["way"]), cell["width"]))
    trends = _trends(cells.found)
    cells.write(__doc__, _table(cells.found, trends), trends=trends, ways=WAYS, published=PUBLISHED)


def _cell(data: Data, way: str, width: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Train one width and measure all pairs."""
    recipe = _recipe(data, way, width, asked)
    bench = Bench(recipe, asked.networks, data, engine=asked.engine, at_once=asked.at_once)
    found = {
        part: {method: _measured(bench, method, part, asked) for method in METHODS} for part in ("training", "test")
    }
    ends = {part: [bench.objective(part)(weights) for weights in bench.solutions] for part in found}
    means = {method: found["training"][method].intervals["loss_barrier"] for method in METHODS}
    say(f"{data.name} {way} {width}: " + ", ".join(f"{method} {interval}" for method, interval in means.items()))
    return {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "way": way,
        "width": width,
        "recipe": recipe.to_dict(),
        "engine": bench.trained_by,
        "diverged": asked.networks - len(bench.solutions),
        "log10_size": bench.symmetry.log10_size,
        "training_loss": over_networks([end.loss for end in ends["training"]]),
        "test_error": over_networks([end.error for end in ends["test"]]),
        "training": {method: _kept(one) for method, one in found["training"].items()},
        "test": {method: {"mean": _means(one)} for method, one in found["test"].items()},
        "gain": {method: _gain(found["training"], method) for method in METHODS[1:]},
        "seconds": dict(bench.seconds),
    }


def _measured(bench: Bench, method: str, part: str, asked: argparse.Namespace) -> PairBarriers:
    moving, objective = bench.moved(method), bench.objective(part)
    with Phase(f"barriers of the {part} loss", bench.seconds):
        what = f"{bench.data.name} {bench.recipe.network}: {method}, {part}"
        return barriers(bench.solutions, objective, moving=moving, points=asked.points, progress=told(what))


def _means(found: PairBarriers) -> dict[str, Any]:
    return {name: found.intervals[name] for name in CONVENTIONS}


def _kept(found: PairBarriers) -> dict[str, Any]:
    """The means over pairs with their intervals over networks, the loss barriers of the pairs, and the mean curve.

    Pairs are in the order of the upper triangle: 1–2, 1–3, …
    """
    count = len(found.names)
    rows, columns = torch.triu_indices(count, count, offset=1)
    return {
        "mean": _means(found),
        "networks": count,
        "pairs": found.heights["loss_barrier"][rows, columns],
        "mean_curve": found.mean_loss,
    }


def _gain(found: Mapping[str, PairBarriers], method: str) -> Any:
    """How much lower the barrier is after matching, pair by pair, with an interval over networks."""
    return over_pairs(found["naive"].loss_barrier - found[method].loss_barrier, signed=True)


def _apart(heights: Mapping[str, Any]) -> list[float]:
    """The loss barriers of networks 1–2, 3–4, …: pairs that share no network."""
    count, pairs = heights["networks"], heights["pairs"]
    starts = [first * count - first * (first + 1) // 2 for first in range(count)]
    return [pairs[starts[first]] for first in range(0, count - 1, 2)]


def _trends(cells: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """Does the barrier fall with the width, and does it rise again above 128? Pairs that share no network."""
    trends = []
    for name, way in dict.fromkeys((cell["data"], cell["way"]) for cell in cells):
        chosen = [cell for cell in cells if (cell["data"], cell["way"]) == (name, way)]
        for method in METHODS:
            for over, least in (("all widths", 0), (f"widths above {WIDE}", WIDE + 1)):
                samples = [_apart(cell["training"][method]) for cell in chosen if cell["width"] >= least]
                if len(samples) > 1:
                    trends.append(
                        {"data": name, "way": way, "matching": method, "over": over, **plain(jonckheere(samples))}
                    )
    return corrected(trends)


def _table(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    rows, used = [], {cell["way"] for cell in cells}
    for cell in cells:
        heights = [shown(cell["training"][method]["mean"]["loss_barrier"]) for method in METHODS]
        known = PUBLISHED.get(cell["data"], {}).get(cell["width"])
        published = f"{known[0]} ± {known[1]}" if known else "–"
        ends = [f"{cell[name]['estimate']:.3g}" for name in ("training_loss", "test_error")]
        rows.append([cell["data"], cell["way"], cell["width"], *ends, *heights, published])
    head = ["data", "way", "width", "training loss", "test error", *METHODS, "published, weights"]
    lines = [
        markdown(head, rows),
        "Barrier of the training loss (nats) above the line between the ends; 95 % intervals over networks. Ways: "
        + "; ".join(f"{name}: {_words(change)}" for name, change in WAYS.items() if name in used)
        + ".",
        "",
    ]
    lines += [
        f"- {trend['data']}, {trend['way']}, {trend['matching']}, {trend['over']}: trend with width "
        f"{trend['statistic']:+.2f} over disjoint pairs, p = {trend['p_corrected']:.2g} (Jonckheere–Terpstra, Holm)"
        for trend in trends
    ]
    return "\n".join(lines) + "\n"


def _words(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in change.items()) or "as said"


def _recipe(data: Data, way: str, width: int, asked: argparse.Namespace) -> Recipe:
    change = dict(WAYS[way])
    start = {name: change.pop(name) for name in ("initialisation", "initial_scale") if name in change}
    fields = {"rate": 0.1, "momentum": 0.0, "schedule": "cosine", "batch_size": 100, "epochs": asked.epochs or 10}
    return Recipe(
        network=f"mlp-{width}x1",
        settings={"inputs": list(data.shape), "classes": data.classes, **start},
        data=data.name,
        **{**fields, **change},
    )


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What all cells depend on."""
    return {name: getattr(asked, name) for name in ("networks", "points", "epochs", "examples")}


def _arguments() -> argparse.Namespace:
    words = arguments(__doc__, "width-mnist")
    words.add_argument(
        "--parts",
        nargs="*",
        help=f"data set:way:widths, in this order; ways are {', '.join(WAYS)}",
        default=[
            "mnist:torch:256,1024,64,512,16",
            "mnist:small:256,1024,64,512",
            "fashion-mnist:he:16,64,256,1024,128,512,32",
            "mnist:small-momentum:256,1024,64",
            "mnist:slow:256,1024",
            "mnist:decay:256,1024",
            "fashion-mnist:small:256,1024,64",
            "mnist:momentum:256",
            "mnist:long:256",
        ],
    )
    words.add_argument("--networks", type=int, default=12, help="of each width; 4 or more for intervals")
    words.add_argument("--epochs", type=int, default=None, help="instead of ten, where the way does not say")
    words.add_argument("--points", type=int, default=25)
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    words.add_argument("--at-once", type=int, default=5000, help="examples that go through the networks at once")
    return words.parse_args()


if __name__ == "__main__":
    main()
