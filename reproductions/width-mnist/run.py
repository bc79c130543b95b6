"""Does the barrier fall with the width? One hidden layer on MNIST and Fashion-MNIST, all pairs of a set of networks.

Trains networks that share nothing (initialisation and order of the data differ), matches every pair by weights and by
activations, and measures the loss on the straight line between them: as they are, and after matching. Every width of
every data set is written as soon as it is done, and a second start does only what is missing.

    python run.py --data FOLDER --output OUT

FOLDER holds ``mnist.npz`` and ``fashion-mnist.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes, examples ×
1 × 28 × 28), or folders ``mnist`` and ``fashion-mnist`` with the four published files. OUT gets one file for each cell,
``results.json`` with everything, and ``results.md`` with the table.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from json import loads
from pathlib import Path
from typing import Any

import torch

from isthmus.connect import PairBarriers, barriers
from isthmus.core.files import write_text
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress
from isthmus.core.provenance import provenance
from isthmus.core.record import plain, to_json
from isthmus.core.statistics import Interval, over_networks, over_pairs
from isthmus.core.weights import Weights
from isthmus.discover import discover
from isthmus.studies.comparison import Method, compare
from isthmus.studies.factors.trends import holm, jonckheere
from isthmus.train import Recipe, train
from isthmus.zoo import build, load_data
from isthmus.zoo.data import Data, arrays_of, images

METHODS: tuple[Method, ...] = ("naive", "weights", "activations")
CONVENTIONS = ("loss_barrier", "error_barrier", "midpoint")
# Training-loss barrier after weight matching, mean and deviation over 51 pairs, as published (arXiv 2404.06498).
PUBLISHED = {"mnist": {16: (0.312, 0.12), 64: (0.0493, 0.009), 256: (0.0060, 0.0006)}}


def main() -> None:
    """Run what is missing, then write the table."""
    asked = _arguments()
    began = time.perf_counter()
    cells: list[dict[str, Any]] = []
    for name in asked.sets:
        data: Data | None = None
        for width in asked.widths:
            file = asked.output / "cells" / f"{name}-{width}-{_mark(asked)}.json"
            if file.exists():
                cells.append(loads(file.read_text(encoding="utf-8")))
                _say(f"{name} {width}: there already")
                continue
            data = data if data is not None else _loaded(name, asked)
            cells.append(_cell(data, width, asked, began))
            write_text(file, to_json(cells[-1]))
    found = {"question": __doc__, "settings": _settings(asked), "cells": cells, "trends": _trends(cells)}
    write_text(asked.output / "results.json", to_json({**found, "published": PUBLISHED, "provenance": provenance()}))
    write_text(asked.output / "results.md", table := _table(cells, found["trends"]))
    _say(f"\n{table}\n{asked.output / 'results.json'} has everything; {time.perf_counter() - began:.0f} s")


def _cell(data: Data, width: int, asked: argparse.Namespace, began: float) -> dict[str, Any]:
    """Train one width and measure all pairs."""
    seconds: dict[str, float] = {}
    recipe = _recipe(data, width, asked)
    with _Phase("training", seconds):
        replicas = train(
            recipe.replicates(asked.networks),
            data=data,
            module=build,
            device=asked.device,
            engine=asked.engine,
            progress=_told(f"{data.name} {width}: training"),
        )
    kept = [replica for replica in replicas if not replica.diverged]
    solutions = [replica.weights for replica in kept]
    module = build(recipe)
    with _Phase("symmetry", seconds):
        symmetry = discover(module, data.train_inputs[:2].cpu())
    network = Network.of(module)
    training = Objective(network, data.train_inputs, data.train_targets, batch_size=asked.evaluate)
    test = Objective(network, data.test_inputs, data.test_targets, batch_size=asked.evaluate)
    with _Phase("matching and barriers of the training loss", seconds):
        comparison = compare(
            solutions,
            training,
            symmetry=symmetry,
            inputs=data.train_inputs,
            methods=METHODS,
            points=asked.points,
            progress=_told(f"{data.name} {width}: pairs"),
        )
    with _Phase("barriers of the test loss", seconds):
        on_test = {name: _on_test(name, solutions, test, comparison.matches, asked.points) for name in METHODS}
    cell = {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "width": width,
        "recipe": recipe.to_dict(),
        "engine": replicas[0].engine,
        "diverged": len(replicas) - len(kept),
        "log10_size": symmetry.log10_size,
        "training_loss": [replica.train.loss for replica in kept if replica.train],
        "test_error": [replica.test.error for replica in kept if replica.test],
        "training": _heights(comparison.barriers),
        "test": _heights(on_test),
        "gain": {method: _gain(comparison.barriers, method) for method in METHODS[1:]},
        "seconds": seconds,
        "provenance": provenance(),
    }
    means = {method: comparison.barriers[method].intervals["loss_barrier"] for method in METHODS}
    text = ", ".join(f"{method} {interval}" for method, interval in means.items())
    _say(f"{data.name} {width}: {text}; {time.perf_counter() - began:.0f} s so far")
    return plain(cell)


def _on_test(
    method: str, solutions: Sequence[Weights], test: Objective, matches: Mapping[str, Mapping], points: int
) -> PairBarriers:
    """The test loss on the same lines: the permutations are those found before."""

    def moving(first: int, second: int) -> Weights:
        return matches[method][first, second].permutation.apply(solutions[second])

    return barriers(solutions, test, points=points, moving=None if method == "naive" else moving)


def _heights(found: Mapping[str, PairBarriers]) -> dict[str, Any]:
    """By method and convention: the mean over pairs with its interval over networks, all pairs, and the mean curve."""
    return {
        method: {
            "positions": next(iter(barriers.curves.values())).positions,
            "mean_curve": barriers.mean_loss,
            **{name: {"mean": barriers.intervals[name], "pairs": barriers.heights[name]} for name in CONVENTIONS},
        }
        for method, barriers in found.items()
    }


def _gain(found: Mapping[str, PairBarriers], method: str) -> Interval:
    """How much lower the barrier is after matching, pair by pair, with an interval over networks."""
    return over_pairs(found["naive"].loss_barrier - found[method].loss_barrier)


def _trends(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Does the barrier fall with the width? Networks 1–2, 3–4, … of each width make pairs that share no network."""
    trends = []
    for name in dict.fromkeys(cell["data"] for cell in cells):
        chosen = sorted((cell for cell in cells if cell["data"] == name), key=lambda cell: cell["width"])
        for method in METHODS:
            matrices = [cell["training"][method]["loss_barrier"]["pairs"] for cell in chosen]
            apart = [[matrix[i][i + 1] for i in range(0, len(matrix) - 1, 2)] for matrix in matrices]
            if len(apart) > 1:
                trends.append({"data": name, "matching": method, **plain(jonckheere(apart))})
    for trend, p in zip(trends, holm([trend["p"] for trend in trends]), strict=True):
        trend["p_corrected"] = p
    return trends


def _table(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    head = "| data | width | training loss | test error | naive | weights | activations | published, weights |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for cell in cells:
        loss, error = (over_networks(cell[name]).estimate for name in ("training_loss", "test_error"))
        shown = [_shown(cell["training"][method]["loss_barrier"]["mean"]) for method in METHODS]
        known = PUBLISHED.get(cell["data"], {}).get(cell["width"])
        published = f"{known[0]} ± {known[1]}" if known else "–"
        row = [cell["data"], cell["width"], f"{loss:.3g}", f"{error:.3g}", *shown, published]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    lines += [
        "",
        "Barrier of the training loss (nats) above the line between the ends; 95 % intervals over networks.",
        "",
    ]
    lines += [
        f"- {trend['data']}, {trend['matching']}: trend with width {trend['statistic']:+.2f} over disjoint pairs, "
        f"p = {trend['p_corrected']:.2g} (Jonckheere–Terpstra, Holm)"
        for trend in trends
    ]
    return "\n".join(lines) + "\n"


def _shown(mean: Mapping[str, Any]) -> str:
    if mean["low"] is None:
        return f"{mean['estimate']:.3g}"
    return f"{mean['estimate']:.3g} [{mean['low']:.3g}, {mean['high']:.3g}]"


def _recipe(data: Data, width: int, asked: argparse.Namespace) -> Recipe:
    return Recipe(
        network=f"mlp-{width}x1",
        settings={"inputs": list(data.shape), "classes": data.classes},
        data=data.name,
        optimiser=asked.optimiser,
        rate=asked.rate,
        momentum=asked.momentum,
        schedule=asked.schedule,
        batch_size=asked.batch,
        epochs=asked.epochs,
    )


def _loaded(name: str, asked: argparse.Namespace) -> Data:
    """One data set from its file or its folder, on the device."""
    file = asked.data / f"{name}.npz"
    if file.exists():
        arrays = arrays_of(file)
        parts = (arrays[key] for key in ("x", "y", "x_test", "y_test"))
        data = images(*parts, classes=10, name=name)
    else:
        data = load_data(name, asked.data / name)
    return (data.limited(asked.examples) if asked.examples else data).to(asked.device)


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on."""
    names = ("networks", "points", "optimiser", "rate", "momentum", "schedule", "batch", "epochs", "examples")
    return {name: getattr(asked, name) for name in names}


def _mark(asked: argparse.Namespace) -> str:
    return hashlib.sha256(to_json(_settings(asked)).encode()).hexdigest()[:10]


def _arguments() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    words.add_argument("--output", type=Path, default=Path("width-mnist"), help="folder of the results")
    words.add_argument("--sets", nargs="+", default=["mnist", "fashion-mnist"])
    words.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512, 1024])
    words.add_argument("--networks", type=int, default=12, help="of each width; 4 or more for intervals")
    words.add_argument("--epochs", type=int, default=10)
    words.add_argument("--batch", type=int, default=100)
    words.add_argument("--optimiser", default="sgd")
    words.add_argument("--rate", type=float, default=0.1)
    words.add_argument("--momentum", type=float, default=0.0)
    words.add_argument("--schedule", default="cosine")
    words.add_argument("--points", type=int, default=25)
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    words.add_argument("--evaluate", type=int, default=5000, help="examples that go through the networks at once")
    words.add_argument("--engine", default="auto")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return words.parse_args()


class _Phase:
    """Adds up the seconds of what runs inside it."""

    def __init__(self, name: str, seconds: dict[str, float]) -> None:
        self.name, self.seconds = name, seconds

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(time.perf_counter() - self.began, 2)


def _told(what: str) -> Progress:
    """A line every five seconds."""
    last = time.perf_counter()

    def told(done: float, total: float, label: str = "") -> None:
        nonlocal last
        if time.perf_counter() - last > 5:
            last = time.perf_counter()
            _say(f"{what} {done / total:.0%} {label}")

    return told


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
