"""Does the barrier fall with the width on CIFAR-10? ResNet-20 or VGG-16, by normalisation, with all pairs of networks.

Trains networks that share nothing (initialisation, order and augmentation differ) at several widths, matches every pair
by weights and by activations, and measures loss and error on the straight line between them, on training and on test
images. Statistics of BatchNorm are estimated anew at every point, and for comparison left mixed; networks without such
statistics are also repaired (REPAIR). Then three networks and more: two of them matched to a third and compared with
each other (the indirect barrier), and the loss on the simplex of three.

    PYTHONPATH=. python reproductions/width-cifar10/run.py --data FOLDER --output OUT --network resnet20

FOLDER holds ``cifar10.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes, examples × 3 × 32 × 32) or a folder
``cifar10`` with the published files. Every part of every width is written as soon as it is done, every piece of a part
too, and the trained weights (``--keep``): a second start does only what is missing. Where the weights are missing it
trains anew, and pieces measured on the networks before count no more. ``--parts`` with nothing behind it, and
``--also`` with the results of several such runs, makes one of them.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from asked import asked_for, settings_of
from reproductions.bench import Bench
from reproductions.cells import Cells, Phase, say, told
from reproductions.options import loaded
from reproductions.summaries import among, curves, summary
from tables import METHODS, tables_of, trends_of

from isthmus.align import to_reference
from isthmus.connect import Simplex, barriers, simplex_barrier
from isthmus.core.randomness import child
from isthmus.core.statistics import over_networks, over_pairs
from isthmus.train import Recipe
from isthmus.zoo.data import Data

VGG16 = {"channels": (64, 128, 256, 512, 512), "convolutions": (2, 2, 3, 3, 3)}
LEAST = {"pairs": 2, "three": 3, "statistics": 2}  # networks that each part needs
REFERENCE = 0  # the network that others are matched to

# Makes a piece of a part, or reads it where it is there already.
Kept = Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]]


def main() -> None:
    """Run what is missing, then write the tables."""
    asked = asked_for(__doc__)
    torch.backends.cudnn.benchmark = True  # the same few shapes thousands of times
    networks = asked.networks * len(asked.widths) if len(asked.networks) == 1 else asked.networks
    cells = Cells(asked.output, settings_of(asked))

    @functools.cache
    def data() -> Data:
        return loaded("cifar10", asked.data, device=asked.device, examples=asked.examples)

    for width, count in zip(asked.widths, networks, strict=True):
        for norm in asked.norms:
            bench = functools.cache(
                lambda norm=norm, width=width, count=count: _bench(data(), norm, width, count, asked)
            )
            _cells(cells, bench, {"network": asked.network, "norm": norm, "width": width, "networks": count}, asked)
    cells.also(asked.also)
    trends = trends_of(cells.found)
    cells.write(__doc__, tables_of(cells.found, trends), trends=trends)


def _cells(cells: Cells, bench: Callable[[], Bench], labels: Mapping[str, Any], asked: argparse.Namespace) -> None:
    name = f"{labels['network']}-{labels['norm']}-x{labels['width']:g}-n{labels['networks']}"
    parts = {"pairs": _pairs, "three": _three, "statistics": _statistics}
    for part, measure in parts.items():
        if part in asked.parts:
            make = functools.partial(_part, bench, {**labels, "part": part}, measure, cells, name, asked)
            cells(f"{name}-{part}", make)


def _part(
    load: Callable[[], Bench],
    labels: Mapping[str, Any],
    measure: Callable[[Bench, Kept, argparse.Namespace], Mapping[str, Any]],
    cells: Cells,
    name: str,
    asked: argparse.Namespace,
) -> dict[str, Any]:
    bench = load()
    if len(bench.solutions) < LEAST[labels["part"]]:
        failed = bench.networks - len(bench.solutions)
        return {**labels, "skipped": f"{failed} of {bench.networks} networks did not train"}
    kept = cells.within(f"{name}-{bench.mark}")  # pieces of other networks do not count
    found = {**labels, **measure(bench, kept, asked), "mark": bench.mark, "seconds": dict(bench.seconds)}
    say(f"{labels['part']}: {bench.seconds}")
    return found


def _pairs(bench: Bench, kept: Kept, asked: argparse.Namespace) -> dict[str, Any]:
    """Barriers of all pairs on training and on test images, and what matching gains."""
    found: dict[str, dict[str, dict[str, Any]]] = {"test": {}, "training": {}}
    ends = [bench.objective("test")(weights) for weights in bench.solutions]
    for part, method in itertools.product(found, METHODS):
        found[part][method] = _shown(_measured(bench, kept, method, part, asked))
    gained = {
        f"{part}_{height}": {
            method: over_pairs(
                _heights(found[part]["naive"], height) - _heights(found[part][method], height), signed=True
            )
            for method in METHODS[1:]
        }
        for part, height in itertools.product(found, ("loss_barrier", "error_barrier"))
    }
    return {
        "recipe": bench.recipe.to_dict(),
        "engine": bench.trained_by,
        "data": bench.data.fingerprint,
        "failed": bench.networks - len(bench.solutions),
        "log10_size": bench.symmetry.log10_size,
        "test_error": over_networks([end.error for end in ends]),
        "test_loss": over_networks([end.loss for end in ends]),
        **found,
        "gain": gained,
    }


def _statistics(bench: Bench, kept: Kept, asked: argparse.Namespace) -> dict[str, Any]:
    """The same test barriers with the middle treated otherwise.

    Mixed statistics for BatchNorm, whose estimation anew is what REPAIR does there: a unit that BatchNorm reads has the
    mean and deviation that its gain and bias say, which are the mix of its parents'. REPAIR for all others.
    """
    policy = "interpolate" if bench.network.has_batch_statistics else "repair"
    found = {method: _measured(bench, kept, method, "test", asked, normalisation=policy) for method in METHODS}
    return {"policy": policy, "test": {method: _shown(one) for method, one in found.items()}}


def _three(bench: Bench, kept: Kept, asked: argparse.Namespace) -> dict[str, Any]:
    """Two networks matched to a third and then compared with each other, and the loss on the simplex of three."""
    others = [n for n in range(len(bench.solutions)) if n != REFERENCE]
    result: dict[str, Any] = {}
    for method in METHODS[1:]:
        direct = among(_measured(bench, kept, method, "test", asked), others)
        indirect = _shown(kept(f"{method}-indirect", functools.partial(_indirect, bench, method, others, asked)))
        result[method] = {
            "direct": direct,
            "indirect": indirect,
            "difference": {
                height: over_pairs(_heights(indirect, height) - _heights(direct, height), signed=True)
                for height in ("loss_barrier", "error_barrier")
            },
        }
    for method in METHODS:
        simplexes = kept(f"{method}-simplex", functools.partial(_simplexes, bench, method, asked))
        result.setdefault(method, {})["simplex"] = _shown(simplexes)
    return result


def _indirect(bench: Bench, method: str, others: Sequence[int], asked: argparse.Namespace) -> dict[str, Any]:
    """The barriers of networks that were matched to the reference, not to each other."""
    framed, test = _framed(bench, method, REFERENCE), bench.objective("test")
    with Phase("indirect", bench.seconds):
        return summary(barriers([framed[n] for n in others], test, **_line(bench, asked)))


def _simplexes(bench: Bench, method: str, asked: argparse.Namespace) -> dict[str, Any]:
    """The loss on the simplex of networks 1–3, 4–6, …, two of each matched to the first."""
    found = []
    for first in range(0, len(bench.solutions) - 2, 3):
        corners = (_framed(bench, method, first) if method != "naive" else bench.solutions)[first : first + 3]
        with Phase("simplex", bench.seconds):
            found.append(
                simplex_barrier(
                    Simplex(corners),
                    bench.objective("test"),
                    points=asked.inside,
                    generator=child(0, "simplex", first),
                    inputs=bench.inputs,
                )
            )
    errors = [float(one.metrics["error"][0]) - sum(c.error for c in one.corners) / 3 for one in found]
    return {
        "height": [one.height for one in found],
        "centre": [one.centre for one in found],
        "centre_error": errors,
        "mean_above": [one.mean_above for one in found],
    }


def _framed(bench: Bench, method: str, reference: int) -> list[dict[str, Any]]:
    """All solutions in the order of one of them."""
    found = to_reference(
        bench.symmetry,
        bench.solutions,
        bench.matcher(method),
        reference=reference,
        generator=child(0, "reference", method),
    )
    return found.aligned(bench.solutions)


def _measured(
    bench: Bench, kept: Kept, method: str, part: str, asked: argparse.Namespace, **settings: Any
) -> dict[str, Any]:
    """The barriers of all pairs on one part of the data, with the curves of each."""

    def measure() -> dict[str, Any]:
        objective, moving = bench.objective(part, asked.measured if part == "training" else None), bench.moved(method)
        with Phase(f"barriers, {part}", bench.seconds):
            progress = told(f"{bench.recipe.network}: {part}, {method}")
            found = barriers(
                bench.solutions, objective, moving=moving, progress=progress, **_line(bench, asked), **settings
            )
        return {**summary(found), "curves": curves(found)}

    return kept("-".join((part, method, *settings.values())), measure)


def _shown(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Without the curve of every pair and what the cell that a piece is of says, too."""
    left_out = ("curves", "name", "wall_seconds", "provenance")
    return {name: value for name, value in measured.items() if name not in left_out}


def _heights(measured: Mapping[str, Any], height: str) -> torch.Tensor:
    return torch.tensor(measured[height]["pairs"], dtype=torch.float64)


def _line(bench: Bench, asked: argparse.Namespace) -> dict[str, Any]:
    # One point at a time: convolutions of many networks at once are grouped ones, for which GPUs have no fast kernels.
    return {"points": asked.points, "inputs": bench.inputs, "together": 1}


def _bench(data: Data, norm: str, width: float, networks: int, asked: argparse.Namespace) -> Bench:
    settings: dict[str, Any] = {"inputs": list(data.shape), "classes": data.classes, "norm": norm}
    if asked.network == "vgg":
        settings |= {**VGG16, "channels": [max(1, round(width * size)) for size in VGG16["channels"]]}
    else:
        settings["width"] = width
    optimiser = asked.layer_optimiser if norm == "layer" else "sgd"
    if norm != "none":  # without a norm, only He's start keeps the signal through so many layers
        settings["initialisation"] = "torch"
    steps = len(data.train_targets) // asked.batch
    recipe = Recipe(
        network=asked.network,
        settings=settings,
        data=data.name,
        optimiser=optimiser,
        rate={"none": asked.plain_rate, "layer": asked.layer_rate}.get(norm, asked.rate),
        momentum=0.9 if optimiser == "sgd" else 0.0,
        weight_decay={"none": asked.plain_decay, "layer": asked.layer_decay}.get(norm, asked.decay),
        schedule="cosine",
        warmup=min(steps * asked.warmup, steps * asked.epochs // 2),
        batch_size=asked.batch,
        last_batch="drop",
        epochs=asked.epochs,
        augmentation=("crop", "flip"),
        precision=asked.precision,
    )
    say(f"{asked.network}, {norm}, width × {width:g}: {networks} networks")
    return Bench(
        recipe,
        networks,
        data,
        engine=asked.engine,
        keep=asked.keep or asked.output / "trained",
        examples=asked.statistics,
        at_once=asked.at_once,
        most=asked.most,
    )


if __name__ == "__main__":
    main()
