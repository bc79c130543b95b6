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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from asked import asked_of, recipe_of, settings_of
from reproductions.bench import Bench
from reproductions.cells import Cells, Phase, say, told
from reproductions.options import loaded
from reproductions.summaries import summary
from tables import FRAMES, HEIGHTS, PAIRWISE, REFERENCE, tables_of, trends_of

from isthmus.align import CycleConsistent, claims, to_mean, to_reference
from isthmus.connect import Line, PairBarriers, Simplex, barrier, barriers, reestimate, simplex_barrier
from isthmus.core.checkpoint import load, save
from isthmus.core.randomness import child
from isthmus.core.statistics import over_networks, over_pairs
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights, mean, pick, stack, to
from isthmus.studies.factors.trends import jonckheere
from isthmus.zoo.data import Data

Piece = Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]]


def main() -> None:
    """Run what is missing, then write the tables."""
    asked = asked_of(__doc__)
    cells = Cells(asked.output, settings_of(asked))
    for name in asked.sets:
        data = functools.cache(
            functools.partial(loaded, name, asked.data, device=asked.device, examples=asked.examples)
        )
        for width in asked.widths[name]:
            count = asked.networks[name]
            label = f"{name}-{width:g}-n{count}"
            cells(label, functools.partial(_cell, data, name, width, count, asked, cells.within(label)))
    cells.also(asked.also)
    trends = trends_of(cells.found)
    cells.write(__doc__, tables_of(cells.found, trends), trends=trends)


def _cell(
    loading: Callable[[], Data], name: str, width: float, networks: int, asked: argparse.Namespace, piece: Piece
) -> dict[str, Any]:
    data = loading()
    recipe = recipe_of(data, name, width, asked)
    say(f"{name}, {recipe.network}, width {width:g}: {networks} networks")
    keep = asked.keep or asked.output / "weights"
    bench = Bench(recipe, networks, data, engine=asked.engine, keep=keep, examples=asked.matched, at_once=3000)
    test, solutions = bench.objective("test"), bench.solutions
    labels = {"data": name, "width": width, "networks": networks}
    if len(solutions) < 3:
        return {**labels, "skipped": "fewer than three networks trained"}
    frames = _frames(bench, asked.output / "frames" / f"{recipe.key()[:16]}-{bench.mark}")
    settings = _line(bench, asked)

    def of(what: str, way: str, make: Callable[[], Any]) -> Any:
        """One way's part of the cell, kept as soon as it is there; parts of other networks do not count."""
        found = piece(f"{bench.mark}-{what}-{way.replace(', ', '-')}", lambda: {"found": make()})
        seconds[what] = round(seconds.get(what, 0) + found["wall_seconds"], 1)
        return found["found"]

    seconds: dict[str, float] = {}
    direct = {
        m: of("direct", m, lambda m=m: _short(barriers(solutions, test, moving=bench.moved(m), **settings)))
        for m in PAIRWISE
    }
    found = {
        frame: of("barriers", frame, lambda placed=placed: _short(barriers(placed, test, **settings)))
        for frame, placed in frames.items()
    }
    return {
        **labels,
        "recipe": recipe.to_dict(),
        "engine": bench.trained_by,
        "fingerprint": data.fingerprint,
        "mark": bench.mark,
        "log10_size": bench.symmetry.log10_size,
        "single": {
            "loss": over_networks([test(weights).loss for weights in solutions]),
            "error": over_networks([test(weights).error for weights in solutions]),
        },
        "direct": direct,
        "frames": found,
        "compared": _compared(direct, found),
        "simplex": {
            f: of("simplex", f, lambda placed=placed: _simplex(bench, placed, asked)) for f, placed in frames.items()
        },
        "merged": {f: of("merging", f, lambda placed=placed: _merged(bench, placed)) for f, placed in frames.items()},
        "cycles": {m: of("cycles", m, lambda m=m: _cycles(bench, m, asked)) for m in PAIRWISE},
        "seconds": {**bench.seconds, **seconds},
    }


def _frames(bench: Bench, folder: Path) -> dict[str, list[Weights]]:
    """The solutions as each way puts them into one order, kept as files."""
    symmetry, solutions = bench.symmetry, bench.solutions
    draw = child(0, "random")
    made: dict[str, Callable[[], Sequence[Weights]]] = {
        "naive": lambda: solutions,
        "random": lambda: [symmetry.random(draw).apply(weights) for weights in solutions],
        **{f"reference, {method}": functools.partial(_to_reference, bench, method) for method in PAIRWISE},
        "mean": lambda: _to_mean(bench),
        "cycle-consistent": lambda: _all_at_once(bench),
    }
    files = {frame: folder / f"{frame.replace(', ', '-')}.safetensors" for frame in FRAMES}

    def make(frame: str) -> None:
        if not files[frame].exists():
            save(stack(list(made[frame]())), files[frame])

    for frame in FRAMES[:-2]:
        make(frame)
    # Two that do not need each other; one core each: on small matrices teams of threads wait for themselves.
    in_threads(make, FRAMES[-2:], threads=2)
    together = {frame: load(file, device=bench.device) for frame, file in files.items()}
    return {frame: [pick(found, place) for place in range(len(solutions))] for frame, found in together.items()}


def _to_reference(bench: Bench, method: str) -> Sequence[Weights]:
    generator = child(0, "reference", method)
    solutions = bench.solutions
    found = to_reference(bench.symmetry, solutions, bench.matcher(method), reference=REFERENCE, generator=generator)
    return found.aligned(solutions)


def _to_mean(bench: Bench) -> Sequence[Weights]:
    with Phase("matching to the mean", bench.seconds):
        # On the CPU: it is small products and assignments one after the other, which keep a GPU waiting.
        there = [to(weights, device="cpu") for weights in bench.solutions]
        return to_mean(bench.symmetry, there, generator=child(0, "mean")).aligned(there)


def _all_at_once(bench: Bench) -> Sequence[Weights]:
    with Phase("matching all at once", bench.seconds):
        matching, generator = CycleConsistent(), child(0, "universe")
        found = matching(bench.symmetry, bench.solutions, generator=generator, progress=told("all at once"))
        return found.aligned(bench.solutions)


def _compared(direct: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Differences of barriers pair by pair; pairs with the reference are left out where one side has one."""

    def difference(left: Mapping[str, Any], right: Mapping[str, Any], height: str, *, apart: bool) -> Any:
        kept = slice(REFERENCE + 1, None) if apart else slice(None)
        first, second = (torch.tensor(side[height]["pairs"], dtype=torch.float64) for side in (left, right))
        return over_pairs((first - second)[kept, kept], signed=True)

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
    return {"points": asked.points, "inputs": bench.inputs, "together": None if flat else 1}


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
        inputs=bench.inputs,
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


if __name__ == "__main__":
    main()
