"""When does training become stable to the noise of SGD? Instability analysis of perceptrons and of ResNet-20.

Trains some steps together, then siblings apart (another order of the data, another augmentation), and measures the
error on the straight line between them, on the test images. A pair is stable where the error rises by less than 2 %
above the mean of its ends. Several roots (initialisations) with several siblings each; siblings of one root are not
independent, so intervals are over roots. Every cell is written as soon as it is done.

    PYTHONPATH=. python reproductions/spawn-time/run.py --data FOLDER --output OUT --cases lenet perceptron resnet20

FOLDER holds ``mnist.npz`` and ``cifar10.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes) or folders
``mnist`` and ``cifar10`` with the published files.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from reproductions.bench import laid_out
from reproductions.cells import Cells, Phase, told
from reproductions.options import arguments, loaded
from reproductions.summaries import corrected, markdown, shown
from torch import Tensor

from isthmus.connect import barriers
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.record import plain
from isthmus.core.statistics import over_networks
from isthmus.studies.factors.trends import matched_trend
from isthmus.train import Recipe, Replica, train
from isthmus.zoo import build
from isthmus.zoo.data import Data

HEIGHTS = ("error_barrier_over_mean", "error_barrier", "loss_barrier", "midpoint_error")
STABLE = 0.02  # Frankle et al., arXiv 1912.05671


@dataclasses.dataclass(frozen=True)
class Case:
    """One network on one data set.

    Attributes:
        data: the data set.
        recipe: fields of the recipe, without the epochs.
        epochs: of the whole training.
        spawns: steps before siblings part, the most telling ones first.
        vary: what differs between siblings.
    """

    data: str
    recipe: Mapping[str, Any]
    epochs: int
    spawns: tuple[int, ...]
    vary: tuple[str, ...] = ("order",)


PERCEPTRON = (0, 256, 2048, 16, 64, 512, 4096, 1024)
CASES = {
    # The two that were published (arXiv 1912.05671, table 1): LeNet-300-100 by Adam, ResNet-20 by SGD with momentum.
    "lenet": Case(
        "mnist",
        {"network": "mlp-300-100", "optimiser": "adam", "rate": 1.2e-3, "batch_size": 60},
        8,
        PERCEPTRON,
    ),
    # One that is not stable at the start.
    "perceptron": Case(
        "mnist",
        {"network": "mlp-300-100", "rate": 0.1, "momentum": 0.9, "batch_size": 60, "schedule": "cosine"},
        8,
        PERCEPTRON,
    ),
    "resnet20": Case(
        "cifar10",
        {
            "network": "resnet20",
            "rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "batch_size": 128,
            "schedule": "cosine",
            "augmentation": ["crop", "flip"],
        },
        10,
        (0, 256, 1024, 64, 512, 16),
        ("order", "augmentation"),
    ),
}


def main() -> None:
    """Run what is missing, then write the table."""
    asked = _arguments()
    cells = Cells(asked.output, _settings(asked))
    for name in asked.cases:
        case = CASES[name]
        data = functools.cache(
            lambda case=case: loaded(case.data, asked.data, device=asked.device, examples=asked.examples)
        )
        for spawn in asked.spawns or case.spawns:
            cells(f"{name}-{spawn}", lambda name=name, data=data, spawn=spawn: _cell(name, data(), spawn, asked))
    cells.also(asked.also)
    trends = _trends(cells.found)
    cells.write(__doc__, _table(cells.found, trends), trends=trends)


def _cell(name: str, data: Data, spawn: int, asked: argparse.Namespace) -> dict[str, Any]:
    """All siblings of all roots that part after so many steps."""
    seconds: dict[str, float] = {}
    recipe = _recipe(CASES[name], data, spawn, asked)
    recipes = [_sibling(recipe, root, s, asked) for root in range(asked.roots) for s in range(asked.siblings)]
    with Phase("training", seconds):
        replicas = train(
            recipes,
            data=data,
            module=build,
            device=asked.device,
            engine=asked.engine,
            scores="never",
            progress=told(f"{name} {spawn}: training"),
        )
    network = Network.of(build(recipe).to(asked.device))
    test = Objective(network, laid_out(data.test_inputs), data.test_targets, batch_size=asked.at_once)
    images = laid_out(data.train_inputs[: asked.statistics])
    with Phase("barriers", seconds):
        roots = [
            _root(replicas[first : first + asked.siblings], test, images, asked) for first in _firsts(replicas, asked)
        ]
    roots = [root for root in roots if root]
    total = recipe.total_steps(len(data.train_targets))
    return {
        "case": name,
        "spawn": spawn,
        "share": spawn / total,
        "steps": total,
        "recipe": recipe.to_dict(),
        "engine": replicas[0].engine,
        "data": data.fingerprint,
        "examples": [len(data.train_targets), len(data.test_targets)],
        "diverged": sum(replica.diverged for replica in replicas),
        "roots": roots,
        "mean": {
            height: over_networks([root[height]["mean"] for root in roots]) for height in (*HEIGHTS, "test_error")
        },
        "stable_roots": float(np.mean([root["error_barrier_over_mean"]["mean"] < STABLE for root in roots])),
        "seconds": seconds,
    }


def _sibling(recipe: Recipe, root: int, number: int, asked: argparse.Namespace) -> Recipe:
    """One sibling of a root: the same initialisation and the same first steps, then noise of its own."""
    if recipe.spawn:
        seeds = {"order_seed": root, "augmentation_seed": root, "spawn_seed": number}
    else:  # apart from the first step on: no trunk to go away from, so the noise itself has other seeds
        noise = root * asked.siblings + number
        seeds = {"order_seed": noise, "augmentation_seed": noise}
    return dataclasses.replace(recipe, initialisation_seed=root, **seeds)


def _firsts(replicas: Sequence[Replica], asked: argparse.Namespace) -> range:
    return range(0, len(replicas), asked.siblings)


def _root(
    family: Sequence[Replica], test: Objective, images: Tensor, asked: argparse.Namespace
) -> dict[str, dict[str, Any]] | None:
    """Siblings of one root: heights of the pairs and their means. None where fewer than two trained."""
    solutions = [replica.weights for replica in family if not replica.diverged]
    if len(solutions) < 2:
        return None
    found = barriers(solutions, test, points=asked.points, inputs=images)
    rows, columns = torch.triu_indices(len(solutions), len(solutions), offset=1)
    heights = {name: found.heights[name][rows, columns] for name in HEIGHTS}
    result = {name: {"mean": float(pairs.mean()), "pairs": pairs} for name, pairs in heights.items()}
    ends = torch.stack([curve.error[[0, -1]] for curve in found.curves.values()])
    mean_curve = torch.stack([curve.error for curve in found.curves.values()]).mean(0)
    return {**result, "test_error": {"mean": float(ends.mean())}, "curve": {"error": mean_curve}}


def _trends(cells: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """Does the barrier fall with the spawn time? Roots share their seeds over the spawn times, so they are blocks."""
    trends = []
    for name in dict.fromkeys(cell["case"] for cell in cells):
        chosen = sorted((cell for cell in cells if cell["case"] == name), key=lambda cell: cell["spawn"])
        whole = min((len(cell["roots"]) for cell in chosen), default=0)
        if len(chosen) > 1 and all(len(cell["roots"]) == whole for cell in chosen):
            for height in ("error_barrier_over_mean", "loss_barrier"):
                values = [[cell["roots"][root][height]["mean"] for cell in chosen] for root in range(whole)]
                trends.append({"case": name, "height": height, **plain(matched_trend(values))})
    return corrected(trends)


def _stable_from(cells: Sequence[Mapping[str, Any]]) -> int | None:
    """The first spawn time from which on the mean barrier stays below 2 %."""
    stable = None
    for cell in sorted(cells, key=lambda cell: -cell["spawn"]):
        if cell["mean"]["error_barrier_over_mean"]["estimate"] >= STABLE:
            break
        stable = cell["spawn"]
    return stable


def _table(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    parts = []
    for name in dict.fromkeys(cell["case"] for cell in cells):
        chosen = sorted((cell for cell in cells if cell["case"] == name), key=lambda cell: cell["spawn"])
        columns = [
            "steps together",
            "share of the training",
            "test error",
            "error barrier",
            "loss barrier",
            "stable roots",
        ]
        rows = [
            [
                cell["spawn"],
                f"{cell['share']:.2%}",
                *(shown(cell["mean"][one]) for one in ("test_error", "error_barrier_over_mean", "loss_barrier")),
                f"{cell['stable_roots']:.0%}",
            ]
            for cell in chosen
        ]
        first = _stable_from(chosen)
        parts += [
            f"## {name}",
            "",
            f"{chosen[0]['steps']} steps. 95 % intervals over roots.",
            "",
            markdown(columns, rows),
        ]
        parts += [
            f"Stable (error barrier below 2 %) from step {first}." if first is not None else "Never stable here.",
            "",
        ]
    parts += [
        f"- {trend['case']}, {trend['height'].replace('_', ' ')}: rank correlation with the spawn time "
        f"{trend['statistic']:+.2f} within roots, p = {trend['p_corrected']:.2g} ({trend['method']}; Holm)"
        for trend in trends
    ]
    return "\n".join(parts) + "\n"


def _recipe(case: Case, data: Data, spawn: int, asked: argparse.Namespace) -> Recipe:
    return Recipe(
        **case.recipe,
        settings={"inputs": list(data.shape), "classes": data.classes},
        data=data.name,
        epochs=asked.epochs or case.epochs,
        last_batch="drop",
        precision=asked.precision,
        spawn=spawn,
        spawn_vary=case.vary,
    )


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on, the cases and spawn times apart."""
    names = ("roots", "siblings", "points", "statistics", "epochs", "precision", "examples")
    return {name: getattr(asked, name) for name in names}


def _arguments() -> argparse.Namespace:
    words = arguments(__doc__, "spawn-time")
    words.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES), help="none: only --also")
    words.add_argument("--spawns", nargs="+", type=int, default=None, help="steps together; each case's own by default")
    words.add_argument("--roots", type=int, default=6, help="initialisations; intervals are over them")
    words.add_argument("--siblings", type=int, default=4, help="of each root")
    words.add_argument("--epochs", type=int, default=None, help="instead of each case's own")
    words.add_argument("--precision", default="float32")
    words.add_argument("--points", type=int, default=11)
    words.add_argument("--statistics", type=int, default=2000, help="training images for statistics of BatchNorm")
    words.add_argument("--at-once", type=int, default=3000, help="examples that go through a network at once")
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    return words.parse_args()


if __name__ == "__main__":
    main()
