"""Does REPAIR gain more in deeper networks? Perceptrons of one width on MNIST: without norms, LayerNorm, BatchNorm.

Trains networks that share nothing (initialisation and order of the data differ) at several depths, matches every pair
by weights and by activations, and measures test loss and error on the straight line between them, as they are and with
every hidden preactivation brought to the mix of its parents' mean and deviation (REPAIR). With BatchNorm estimating its
statistics anew does just that, so there it is compared with mixed statistics. Every cell is written when it is done.

    PYTHONPATH=. python reproductions/depth-and-repair/run.py --data FOLDER --output OUT

FOLDER holds ``mnist.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes) or a folder ``mnist`` with the four
published files.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from reproductions.bench import Bench
from reproductions.cells import Cells, Phase, told
from reproductions.options import arguments, loaded
from reproductions.summaries import CONVENTIONS, corrected, disjoint, markdown, shown

from isthmus.connect import PairBarriers, barriers, variance_ratios
from isthmus.core.record import plain
from isthmus.core.statistics import over_networks, over_pairs
from isthmus.core.weights import lerp
from isthmus.studies.factors.trends import jonckheere
from isthmus.train import Recipe
from isthmus.zoo.data import Data

METHODS = ("naive", "weights", "activations")
POLICIES = {
    "none": {"plain": "reestimate", "repaired": "repair"},
    "layer": {"plain": "reestimate", "repaired": "repair"},
    "batch": {"plain": "interpolate", "repaired": "reestimate"},
}
HEIGHTS = ("loss_barrier", "error_barrier")
KEPT = 0.01  # a loss barrier below this is too low for a share of it to mean anything


def main() -> None:
    """Run what is missing, then write the table."""
    asked = _arguments()
    cells = Cells(asked.output, _settings(asked))
    data = functools.cache(lambda: loaded("mnist", asked.data, device=asked.device, examples=asked.examples))
    for norm in asked.norms:
        for depth in asked.depths:
            cells(f"{norm}-{depth}", lambda norm=norm, depth=depth: _cell(data(), norm, depth, asked))
    cells.also(asked.also)
    cells.found.sort(key=lambda cell: (list(POLICIES).index(cell["norm"]), cell["depth"]))
    trends = _trends(cells.found)
    cells.write(__doc__, _table(cells.found, trends), trends=trends)


def _cell(data: Data, norm: str, depth: int, asked: argparse.Namespace) -> dict[str, Any]:
    """All pairs of the networks of one depth."""
    bench = Bench(
        _recipe(data, norm, depth, asked),
        asked.networks if norm == "none" else asked.with_norms,
        data,
        engine=asked.engine,
        examples=asked.statistics,
        at_once=asked.at_once,
    )
    test = bench.objective("test")
    ends = [test(weights) for weights in bench.solutions]
    found: dict[str, dict[str, PairBarriers]] = {}
    for method in METHODS:
        moving = bench.moved(method)
        for name, policy in POLICIES[norm].items():
            with Phase(f"barriers, {name}", bench.seconds):
                found.setdefault(method, {})[name] = barriers(
                    bench.solutions,
                    test,
                    moving=moving,
                    points=asked.points,
                    normalisation=policy,
                    inputs=bench.inputs,
                    progress=told(f"{norm} {depth}: {method}, {name}"),
                )
    return {
        "norm": norm,
        "depth": depth,
        "recipe": bench.recipe.to_dict(),
        "engine": bench.trained_by,
        "data": data.fingerprint,
        "networks": len(bench.solutions),
        "diverged": bench.networks - len(bench.solutions),
        "test_loss": over_networks([end.loss for end in ends]),
        "test_error": over_networks([end.error for end in ends]),
        "barriers": {m: {name: _kept(one) for name, one in both.items()} for m, both in found.items()},
        "gain": {method: _gain(both) for method, both in found.items()},
        "variance": {method: _variance(bench, method) for method in METHODS},
        "seconds": dict(bench.seconds),
    }


def _kept(found: PairBarriers) -> dict[str, Any]:
    """The means with their intervals over networks, and the heights of the pairs (first < second, row by row)."""
    rows, columns = torch.triu_indices(len(found.names), len(found.names), offset=1)
    return {
        "mean": {name: found.intervals[name] for name in CONVENTIONS},
        "pairs": {name: found.heights[name][rows, columns] for name in HEIGHTS},
        "mean_loss": found.mean_loss,
    }


def _gain(both: Mapping[str, PairBarriers]) -> dict[str, Any]:
    """How much lower REPAIR makes the barrier: the mean over pairs, and the pairs that share no network."""
    gains = {name: both["plain"].heights[name] - both["repaired"].heights[name] for name in HEIGHTS}
    shares = torch.where(
        both["plain"].loss_barrier > KEPT, gains["loss_barrier"] / both["plain"].loss_barrier, torch.nan
    )
    return {
        **{
            name: {"mean": over_pairs(gain, signed=True), "apart": disjoint(gain.tolist())}
            for name, gain in gains.items()
        },
        "share_of_loss_barrier": disjoint(shares.tolist()),
    }


def _variance(bench: Bench, method: str) -> dict[str, Any]:
    """How much of its parents' variance each layer of the average keeps, over pairs that share no network."""
    moving, solutions = bench.moved(method), bench.solutions
    ratios = []
    for first in range(0, len(solutions) - 1, 2):
        ends = (solutions[first], moving(first, first + 1) if moving else solutions[first + 1])
        ratios.append(
            variance_ratios(bench.network, lerp(*ends, 0.5), ends, bench.inputs, batch_size=bench.at_once).ratio
        )
    return {"ratio": [over_networks(layer) for layer in torch.stack(ratios).cpu().T]}


def _trends(cells: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """Does the gain rise with the depth? Networks 1–2, 3–4, … of each depth make pairs that share no network."""
    trends = []
    for norm in dict.fromkeys(cell["norm"] for cell in cells):
        chosen = sorted((cell for cell in cells if cell["norm"] == norm), key=lambda cell: cell["depth"])
        for method in METHODS:
            for height in HEIGHTS:
                samples = [cell["gain"][method][height]["apart"] for cell in chosen]
                if len(samples) > 1:
                    names = {"norm": norm, "matching": method, "height": height}
                    trends.append({**names, **plain(jonckheere(samples))})
    return corrected(trends)


def _table(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    parts = []
    for norm in dict.fromkeys(cell["norm"] for cell in cells):
        chosen = [cell for cell in cells if cell["norm"] == norm]
        parts += [f"## Norm: {norm}", "", "95 % intervals over networks.", ""]
        for height, words in {"loss_barrier": "test loss (nats)", "error_barrier": "test error"}.items():
            rows = [_row(cell, height) for cell in chosen]
            columns = [f"{method}{more}" for method in METHODS for more in ("", ", repaired")]
            gains = [f"gain, {method}" for method in METHODS[1:]]
            parts += [f"Barrier of the {words}:", "", markdown(["depth", "networks", *columns, *gains], rows)]
        kept = [
            [cell["depth"], shown(cell["test_error"]), *(shown(cell["variance"][m]["ratio"][-2]) for m in METHODS)]
            for cell in chosen
        ]
        parts += ["Variance that the average keeps of its parents' in the last hidden layer, by matching:", ""]
        parts += [markdown(["depth", "test error of the ends", *METHODS], kept)]
    parts += [
        f"- {trend['norm']}, {trend['matching']}, gain of the {trend['height'].replace('_', ' ')}: trend with depth "
        f"{trend['statistic']:+.2f} over disjoint pairs, p = {trend['p_corrected']:.2g} (Jonckheere–Terpstra, Holm)"
        for trend in trends
    ]
    return "\n".join(parts) + "\n"


def _row(cell: Mapping[str, Any], height: str) -> list[Any]:
    """One depth: barriers by matching, without and with REPAIR, and what it gains."""
    heights = [shown(cell["barriers"][m][p]["mean"][height]) for m in METHODS for p in POLICIES[cell["norm"]]]
    gains = [shown(cell["gain"][method][height]["mean"]) for method in METHODS[1:]]
    return [cell["depth"], cell["networks"], *heights, *gains]


def _recipe(data: Data, norm: str, depth: int, asked: argparse.Namespace) -> Recipe:
    return Recipe(
        network=f"mlp-{asked.width}x{depth}",
        settings={"inputs": list(data.shape), "classes": data.classes, "norm": norm},
        data=data.name,
        rate=asked.rate,
        momentum=asked.momentum,
        weight_decay=asked.decay,
        warmup=asked.warmup,
        schedule="cosine",
        batch_size=asked.batch,
        last_batch="drop",
        epochs=asked.epochs,
    )


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on, the depths and norms apart."""
    names = ("width", "networks", "with_norms", "points", "rate", "momentum", "decay", "warmup", "batch", "epochs")
    return {name: getattr(asked, name) for name in (*names, "statistics", "examples")}


def _arguments() -> argparse.Namespace:
    words = arguments(__doc__, "depth-and-repair")
    words.add_argument("--norms", nargs="*", default=["none", "layer", "batch"])
    words.add_argument("--depths", nargs="+", type=int, default=[1, 2, 3, 4, 6, 8])
    words.add_argument("--width", type=int, default=128)
    words.add_argument("--networks", type=int, default=12, help="of each depth without norms; 4 or more for intervals")
    words.add_argument("--with-norms", type=int, default=6, help="networks of each depth with norms")
    words.add_argument("--epochs", type=int, default=10)
    words.add_argument("--batch", type=int, default=100)
    words.add_argument("--rate", type=float, default=0.05)
    words.add_argument("--momentum", type=float, default=0.9)
    words.add_argument("--decay", type=float, default=0.0)
    words.add_argument("--warmup", type=int, default=100, help="steps")
    words.add_argument("--points", type=int, default=11)
    words.add_argument("--statistics", type=int, default=5000, help="training examples that statistics are taken over")
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    words.add_argument("--at-once", type=int, default=10_000, help="examples that go through a network at once")
    return words.parse_args()


if __name__ == "__main__":
    main()
