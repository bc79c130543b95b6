"""Three networks and more: does a permutation that serves pairs serve them all? MLPs on MNIST, ResNet-20 on CIFAR-10.

At every width some networks that share nothing are matched in five ways: pair by pair, by weights and by activations;
all to one reference, by weights and by activations; each to the mean of the others; and all at once, consistently along
every cycle (C²M³). Measured on test images: barriers of all pairs in each common order (the indirect barriers) beside
the pairwise ones (the direct), with not matched and randomly permuted networks as controls; the loss on the simplex of
all; loss and error of the mean of the first two, three, … networks; and what becomes of pairwise permutations that are
composed along paths of several networks.

    PYTHONPATH=. python reproductions/three-and-more/run.py --data FOLDER --output OUT --sets mnist cifar10

FOLDER holds ``mnist.npz`` and ``cifar10.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes) or folders of the
published files. Every width of every data set is written as soon as it is done.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reproductions.common import (
    Bench,
    Cells,
    Phase,
    arguments,
    corrected,
    disjoint,
    loaded,
    markdown,
    say,
    shown,
    summary,
    told,
)

from isthmus.align import CycleConsistent, claims, to_mean, to_reference
from isthmus.connect import Line, PairBarriers, Simplex, barrier, barriers, reestimate, simplex_barrier
from isthmus.core.randomness import child
from isthmus.core.record import plain
from isthmus.core.statistics import over_networks, over_pairs
from isthmus.core.weights import Weights, mean, to
from isthmus.studies.factors.trends import jonckheere
from isthmus.train import Recipe
from isthmus.zoo.data import Data

PAIRWISE = ("weights", "activations")
FRAMES = ("naive", "random", "reference, weights", "reference, activations", "mean", "cycle-consistent")
REFERENCE = 0
HEIGHTS = ("loss_barrier", "error_barrier")


def main() -> None:
    """Run what is missing, then write the tables."""
    asked = _arguments()
    cells = Cells(asked.output, _settings(asked))
    for name in asked.sets:
        data = functools.cache(
            functools.partial(loaded, name, asked.data, device=asked.device, examples=asked.examples)
        )
        for width in asked.widths[name]:
            count = asked.networks[name]
            cells(f"{name}-{width:g}-n{count}", functools.partial(_cell, data, name, width, count, asked))
    cells.also(asked.also)
    trends = _trends(cells.found)
    cells.write(__doc__, _tables(cells.found, trends), trends=trends)


def _cell(
    load: Callable[[], Data], name: str, width: float, networks: int, asked: argparse.Namespace
) -> dict[str, Any]:
    data = load()
    recipe = _recipe(data, name, width, asked)
    say(f"{name}, {recipe.network}, width {width:g}: {networks} networks")
    bench = Bench(recipe, networks, data, engine=asked.engine, keep=asked.keep, examples=asked.matched, at_once=3000)
    test, solutions = bench.objective("test"), bench.solutions
    labels = {"data": name, "width": width, "networks": networks}
    if len(solutions) < 3:
        return {**labels, "skipped": "fewer than three networks trained"}
    frames, seconds = _frames(bench), bench.seconds
    settings = _line(bench, asked)
    with Phase("barriers", seconds):
        direct = {m: barriers(solutions, test, moving=bench.moved(m), **settings) for m in PAIRWISE}
        found = {
            frame: barriers(placed, test, progress=told(f"{name} {width:g}: {frame}"), **settings)
            for frame, placed in frames.items()
        }
    with Phase("simplex", seconds):
        simplexes = {frame: _simplex(bench, placed, asked) for frame, placed in frames.items()}
    with Phase("merging", seconds):
        merged = {frame: _merged(bench, placed) for frame, placed in frames.items()}
    with Phase("cycles", seconds):
        cycles = {method: _cycles(bench, method, asked) for method in PAIRWISE}
    return {
        **labels,
        "recipe": recipe.to_dict(),
        "engine": bench.trained_by,
        "fingerprint": data.fingerprint,
        "log10_size": bench.symmetry.log10_size,
        "single": {
            "loss": over_networks([test(weights).loss for weights in solutions]),
            "error": over_networks([test(weights).error for weights in solutions]),
        },
        "direct": {method: _short(one) for method, one in direct.items()},
        "frames": {frame: _short(one) for frame, one in found.items()},
        "compared": _compared(direct, found),
        "simplex": simplexes,
        "merged": merged,
        "cycles": cycles,
        "seconds": dict(seconds),
    }


def _frames(bench: Bench) -> dict[str, list[Weights]]:
    """The solutions as each way puts them into one order."""
    symmetry, solutions = bench.symmetry, bench.solutions
    draw = child(0, "random")
    frames: dict[str, list[Weights]] = {
        "naive": list(solutions),
        "random": [symmetry.random(draw).apply(weights) for weights in solutions],
    }
    for method in PAIRWISE:
        generator = child(0, "reference", method)
        found = to_reference(symmetry, solutions, bench.matcher(method), reference=REFERENCE, generator=generator)
        frames[f"reference, {method}"] = list(found.aligned(solutions))
    with Phase("matching to the mean", bench.seconds):
        # On the CPU: it is small products and assignments one after the other, which keep a GPU waiting.
        there = [to(weights, device="cpu") for weights in solutions]
        frames["mean"] = list(to_mean(symmetry, there, generator=child(0, "mean")).aligned(solutions))
    with Phase("matching all at once", bench.seconds):
        found = CycleConsistent()(symmetry, solutions, generator=child(0, "universe"), progress=told("all at once"))
        frames["cycle-consistent"] = list(found.aligned(solutions))
    return frames


def _compared(direct: Mapping[str, PairBarriers], found: Mapping[str, PairBarriers]) -> dict[str, Any]:
    """Differences of barriers pair by pair; pairs with the reference are left out where one side has one."""

    def difference(left: PairBarriers, right: PairBarriers, height: str, *, apart: bool) -> Any:
        kept = slice(REFERENCE + 1, None) if apart else slice(None)
        return over_pairs((left.heights[height] - right.heights[height])[kept, kept], signed=True)

    compared: dict[str, Any] = {}
    for height in HEIGHTS:
        rows = {
            f"indirect − direct, {m}": difference(found[f"reference, {m}"], direct[m], height, apart=True)
            for m in PAIRWISE
        }
        by_weights = direct["weights"]
        for frame in ("mean", "cycle-consistent"):
            rows[f"{frame} − direct, weights"] = difference(found[frame], by_weights, height, apart=False)
            rows[f"{frame} − reference, weights"] = difference(
                found[frame], found["reference, weights"], height, apart=True
            )
        compared[height] = rows
    return compared


def _line(bench: Bench, asked: argparse.Namespace) -> dict[str, Any]:
    # Convolutions of many networks at once are grouped ones, for which GPUs have no fast kernels.
    flat = bench.recipe.network != "resnet20"
    return {"points": asked.points, "data": bench.inputs, "together": None if flat else 1}


def _short(found: PairBarriers) -> dict[str, Any]:
    kept = summary(found)
    return {height: kept[height] for height in HEIGHTS}


def _simplex(bench: Bench, placed: Sequence[Weights], asked: argparse.Namespace) -> dict[str, float]:
    """The loss on the simplex of all networks, above what its corners' losses mixed would be."""
    found = simplex_barrier(
        Simplex(placed),
        bench.objective("test"),
        points=asked.inside,
        generator=child(0, "simplex"),
        data=bench.inputs,
    )
    return {"height": found.height, "centre": found.centre, "mean_above": found.mean_above}


def _merged(bench: Bench, placed: Sequence[Weights]) -> dict[str, list[float]]:
    """Loss and error of the mean of the first k networks, from one on."""
    test, scores = bench.objective("test"), []
    for count in range(1, len(placed) + 1):
        weights = mean(placed[:count])
        if bench.network.has_batch_statistics and count > 1:
            weights = reestimate(bench.network, weights, bench.inputs, batch_size=bench.at_once)
        scores.append(test(weights))
    return {"loss": [score.loss for score in scores], "error": [score.error for score in scores]}


def _cycles(bench: Bench, method: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Permutations composed along paths of one step and more."""
    test = bench.objective("test")

    def height(start: Weights, end: Weights) -> float:
        return barrier(Line(start, end), test, **_line(bench, asked)).error_barrier

    longest = min(asked.longest, len(bench.solutions) - 1)
    found = claims.cycles(
        bench.symmetry,
        bench.solutions,
        bench.matcher(method),
        height,
        lengths=range(1, longest + 1),
        paths=asked.paths,
        generator=child(0, "cycles"),
        progress=told(f"cycles by {method}"),
    )
    return {
        "lengths": found.lengths,
        "height": [over_networks(row) for row in found.heights],
        "heights": found.heights,
        "fixed_share": found.fixed_share.mean(1),
        "random": [over_networks(row) for row in found.random],
        "growth": jonckheere(found.heights.tolist()),
    }


def _trends(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Do direct and indirect barriers fall with the width? Pairs that share no network."""
    trends = []
    for name in dict.fromkeys(cell["data"] for cell in cells):
        chosen = [cell for cell in cells if cell["data"] == name and "skipped" not in cell]
        chosen.sort(key=lambda cell: cell["width"])
        ways = [("direct", method) for method in PAIRWISE] + [
            ("frames", frame) for frame in FRAMES if frame != "random"
        ]
        for (kind, way), height in itertools.product(ways if len(chosen) > 1 else [], HEIGHTS):
            # The reference is network 1 of the common order: its pairs are direct, so pairs start behind it.
            first = REFERENCE + 1 if way.startswith("reference") else 0
            matrices = [cell[kind][way][height]["pairs"] for cell in chosen]
            rows = [disjoint([row[first:] for row in matrix[first:]]) for matrix in matrices]
            trends.append({"data": name, "what": height, "matching": f"{kind}: {way}", **plain(jonckheere(rows))})
    return list(corrected(trends))


def _tables(cells: Sequence[Mapping[str, Any]], trends: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    done = [cell for cell in cells if "skipped" not in cell]

    def label(cell: Mapping[str, Any]) -> list[Any]:
        return [cell["data"], f"{cell['width']:g}", cell["networks"]]

    head = ["data", "width", "networks"]
    texts = []
    for height in HEIGHTS:
        rows = [
            [
                *label(cell),
                *(shown(cell["direct"][method][height]["mean"]) for method in PAIRWISE),
                *(shown(cell["frames"][frame][height]["mean"]) for frame in FRAMES),
            ]
            for cell in done
        ]
        columns = [*head, *(f"direct, {method}" for method in PAIRWISE), *FRAMES]
        title = f"Test {height.replace('_', ' ')}, all pairs; 95 % intervals over networks"
        texts += [f"**{title}**\n", markdown(columns, rows)]
    names = list(done[0]["compared"]["error_barrier"]) if done else []
    rows = [[*label(cell), *(shown(cell["compared"]["error_barrier"][name]) for name in names)] for cell in done]
    texts += ["**Differences of test error barriers, pair by pair**\n", markdown([*head, *names], rows)]
    rows = [[*label(cell), *(f"{cell['simplex'][frame]['height']:.3g}" for frame in FRAMES)] for cell in done]
    texts += ["**Highest test loss on the simplex of all, above its corners'**\n", markdown([*head, *FRAMES], rows)]
    rows = [
        [
            *label(cell),
            frame,
            *(f"{_ratio(cell, frame, count, what):.3g}" for what in ("loss", "error") for count in (2, -1)),
        ]
        for cell in done
        for frame in FRAMES
        if frame != "random"
    ]
    columns = [*head, "order", "loss of 2", "loss of all", "error of 2", "error of all"]
    texts += ["**The mean of networks: test loss and error over those of one**\n", markdown(columns, rows)]
    rows = [
        [
            *label(cell),
            method,
            *(
                " / ".join(f"{i['estimate']:.3g}" for i in cell["cycles"][method][part])
                for part in ("height", "random")
            ),
            " / ".join(f"{share:.2f}" for share in cell["cycles"][method]["fixed_share"]),
            f"{cell['cycles'][method]['growth']['statistic']:+.2f}, {cell['cycles'][method]['growth']['p']:.2g}",
        ]
        for cell in done
        for method in PAIRWISE
    ]
    columns = [
        *head,
        "matching",
        "error barrier after 1 / 2 / … steps",
        "random",
        "fixed share of the cycle",
        "growth, p",
    ]
    texts += ["**Permutations composed along paths**\n", markdown(columns, rows)]
    texts += ["Trend with width over disjoint pairs (Jonckheere–Terpstra, Holm over all lines):\n"]
    texts += [
        f"- {trend['data']}, {trend['what'].replace('_', ' ')}, {trend['matching']}: {trend['statistic']:+.2f}, "
        f"p = {trend['p_corrected']:.2g}"
        for trend in trends
    ]
    return "\n".join(texts) + "\n"


def _ratio(cell: Mapping[str, Any], frame: str, count: int, what: str) -> float:
    """Of the mean of the first networks (−1: of all), over the mean of single ones."""
    values = cell["merged"][frame][what]
    return values[count - 1 if count > 0 else -1] / cell["single"][what]["estimate"]


def _recipe(data: Data, name: str, width: float, asked: argparse.Namespace) -> Recipe:
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


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on."""
    names = ("depth", "norm", "mnist_epochs", "cifar10_epochs", "precision", "points", "inside", "matched", "paths")
    return {name: getattr(asked, name) for name in (*names, "longest", "examples")}


def _arguments() -> argparse.Namespace:
    words = arguments(__doc__, "three-and-more")
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


if __name__ == "__main__":
    main()
