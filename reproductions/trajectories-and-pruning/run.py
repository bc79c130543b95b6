"""Does one permutation serve all times of two trainings, and all levels of sparsity of two prunings?

Trains networks that share nothing (initialisation, order and augmentation differ) and keeps checkpoints; prunes as many
by iterative magnitude pruning (IMP: remove a fifth of the weights by size over all layers, rewind, train again). Pairs
that share no network are matched at every time or level, by weights and by activations, and each permutation is applied
at every other time or level; weights also once for all times together (super-alignment). Measured is the error on the
straight line between two checkpoints, on the test images, above the line between its ends. Times at chance level are
left out of what is concluded. Every part is written as soon as it is done.

    PYTHONPATH=. python reproductions/trajectories-and-pruning/run.py --data FOLDER --output OUT --case mlp

FOLDER holds ``mnist.npz`` and ``cifar10.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes) or folders
``mnist`` and ``cifar10`` with the published files.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from reproductions.bench import laid_out
from reproductions.cells import Cells, Phase, say, told
from reproductions.options import arguments, loaded
from tables import comparisons_of, tables_of

from isthmus.core.checkpoint import load, save
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights, pick, stack, to
from isthmus.studies.claims import Networks, check_claims
from isthmus.train import Recipe, Replica, train
from isthmus.zoo import build
from isthmus.zoo.data import Data

METHODS = ("weights", "activations")
THREADS = 8  # matches at once, on one core each: fewer than there are in a piece
AT_ONCE = 4  # networks whose pairs are measured in one piece: what a run that is stopped can lose


@dataclasses.dataclass(frozen=True)
class Case:
    """One network on one data set; recipes without the epochs."""

    data: str
    recipe: Mapping[str, Any]
    networks: int
    epochs: int
    pruning_epochs: int
    rewind: int
    levels: int


CASES = {
    "mlp": Case(
        "mnist", {"network": "mlp-128x2", "rate": 0.1, "momentum": 0.0, "batch_size": 100}, 16, 10, 10, 300, 12
    ),
    # The recipe of width-cifar10, with BatchNorm: statistics are estimated anew at every point of a line.
    "resnet20": Case(
        "cifar10",
        {
            "network": "resnet20",
            "rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 2e-3,
            "batch_size": 128,
            "augmentation": ["crop", "flip"],
        },
        16,
        10,
        6,
        172,
        6,
    ),
}


def main() -> None:
    """Run what is missing, then write the tables."""
    asked = _arguments()
    case = CASES[asked.case]
    torch.set_num_threads(min(torch.get_num_threads(), THREADS))
    cells = Cells(asked.output, _settings(asked))
    data = functools.cache(lambda: loaded(case.data, asked.data, device=asked.device, examples=asked.examples))
    runs = functools.cache(lambda claim: _kept(cells, asked, claim, lambda: _MADE[claim](data(), case, asked)))
    for method, claim in ((m, c) for m in METHODS for c in _MADE):
        if claim in asked.claims and method in asked.methods:
            name = f"{asked.case}-{claim}-{method}"
            cells(name, functools.partial(_cell, asked, claim, method, data, runs, cells.within(name)))
    cells.also(asked.also)
    cells.write(__doc__, tables_of(cells.found), comparisons=comparisons_of(cells.found))


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Trainings or prunings: how many networks, and their weights at every time or level, once they are asked for."""

    recipe: Recipe
    engine: str
    seconds: float
    labels: tuple[str, ...]
    networks: int
    read: Callable[[], Sequence[Sequence[Weights]]]

    @functools.cached_property
    def weights(self) -> Sequence[Sequence[Weights]]:
        """For each network those at every time or level."""
        return self.read()


def _trainings(data: Data, case: Case, asked: argparse.Namespace) -> Runs:
    """Checkpoints at steps that double, and the end."""
    recipe = _recipe(case, data, asked.epochs or case.epochs, asked)
    total = recipe.total_steps(len(data.train_targets))
    steps = tuple(sorted({max(1, total >> power) for power in range(asked.times)}))
    replicas, seconds = _trained(dataclasses.replace(recipe, checkpoints=steps), data, case, asked, "training")
    weights = [[replica.checkpoints[step] for step in steps] for replica in replicas]
    labels = tuple(map(str, steps))
    return Runs(replicas[0].recipe, replicas[0].engine, seconds, labels, len(weights), lambda: weights)


def _prunings(data: Data, case: Case, asked: argparse.Namespace) -> Runs:
    """Every level of sparsity, the dense network first."""
    recipe = _recipe(case, data, asked.epochs or case.pruning_epochs, asked)
    levels, rewind = asked.levels or case.levels, min(case.rewind, recipe.total_steps(len(data.train_targets)) // 4)
    pruned = dataclasses.replace(recipe, pruning_levels=levels, pruning_rate=0.2, rewind=rewind)
    replicas, seconds = _trained(pruned, data, case, asked, "pruning")
    labels = tuple(f"{level.density:.3f}" for level in replicas[0].levels)
    weights = [[level.weights for level in replica.levels] for replica in replicas]
    return Runs(pruned, replicas[0].engine, seconds, labels, len(weights), lambda: weights)


_MADE: Mapping[str, Callable[[Data, Case, argparse.Namespace], Runs]] = {"times": _trainings, "sparsity": _prunings}


def _kept(cells: Cells, asked: argparse.Namespace, claim: str, make: Callable[[], Runs]) -> Runs:
    """Trainings or prunings, kept as files, so that a run that was stopped goes on with the very same networks.

    Where only the record of them is there and pairs are still to be measured, they are trained anew from the same
    seeds: pairs share no network, so pairs of both trainings may stand together.
    """
    folder = asked.output / "weights" / f"{asked.case}-{claim}-{cells.mark}"

    def trained() -> dict[str, Any]:
        runs = make()
        for network, run in enumerate(runs.weights):
            save(stack(run), folder / f"{network}.safetensors")
        kept = {"recipe": runs.recipe.to_dict(), "engine": runs.engine, "seconds": runs.seconds}
        return {**kept, "labels": runs.labels, "networks": runs.networks}

    known = cells.piece(f"{asked.case}-{claim}-runs", trained)
    labels = tuple(known["labels"])
    files = [folder / f"{network}.safetensors" for network in range(known["networks"])]

    def read() -> Sequence[Sequence[Weights]]:
        if missing := [file.name for file in files if not file.exists()]:
            say(f"{folder} lacks the weights of {len(missing)} of {len(files)} networks: all are trained anew")
            trained()
        return [[pick(together, place) for place in range(len(labels))] for together in map(load, files)]

    return Runs(Recipe.from_dict(known["recipe"]), known["engine"], known["seconds"], labels, len(files), read)


def _trained(
    recipe: Recipe, data: Data, case: Case, asked: argparse.Namespace, what: str
) -> tuple[Sequence[Replica], float]:
    phase: dict[str, float] = {}
    with Phase(what, phase):
        replicas = train(
            recipe.replicates(asked.networks or case.networks),
            data=data,
            module=build,
            device=asked.device,
            engine=asked.engine,
            scores="never",
            progress=told(f"{asked.case}: {what}"),
        )
    return [replica for replica in replicas if not replica.diverged], phase[what]


def _cell(
    asked: argparse.Namespace,
    claim: str,
    method: str,
    data: Callable[[], Data],
    runs: Callable[[str], Runs],
    piece: Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]],
) -> dict[str, Any]:
    """The claim about times or sparsity by one method, with the error of every network at every time or level."""
    found, measured = runs(claim), _measured(data(), asked)
    parts = [
        piece(f"from-{first}", functools.partial(_pairs, asked, claim, method, measured, found, first))
        for first in range(0, found.networks - 1, AT_ONCE)
    ]
    seconds = {name: sum(part["seconds"][name] for part in parts) for name in parts[0]["seconds"]}
    return {
        "case": asked.case,
        "claim": claim,
        "method": method,
        "recipe": found.recipe.to_dict(),
        "engine": found.engine,
        "data": data().fingerprint,
        "examples": [len(data().train_targets), len(data().test_targets)],
        "networks": found.networks,
        "labels": found.labels,
        "test_error": torch.tensor([row for part in parts for row in part["errors"]]).mean(0),
        **{name: [row for part in parts for row in part[name]] for name in ("heights", "naive", "random", "together")},
        "seconds": {**seconds, "training": found.seconds},
        "pieces": [{name: part[name] for name in ("name", "wall_seconds", "provenance")} for part in parts],
    }


def _pairs(asked: argparse.Namespace, claim: str, method: str, data: Data, runs: Runs, first: int) -> dict[str, Any]:
    """What is measured of some networks, two and two of them."""
    seconds: dict[str, float] = {}
    some = runs.weights[first : first + AT_ONCE]
    module = build(runs.recipe).to(asked.device)
    group = Networks(
        asked.case,
        module,
        [run[-1] for run in some],
        **{"times": {"trajectories": some, "steps": runs.labels}}.get(claim, {}),
        **{"sparsity": {"prunings": some, "densities": runs.labels}}.get(claim, {}),
    )
    with Phase("matching and barriers", seconds):
        tested = check_claims(
            [group],
            data,
            methods=(method,),
            wanted=(claim,),
            points=asked.points,
            seed=first,
            batch_size=asked.at_once,
            # Convolutions of many networks at once are grouped ones, for which GPUs have no fast kernels.
            together=1 if data.train_inputs.shape[1] == 3 else None,
            progress=told(f"{claim} {method} from {first}"),
        )
    result = getattr(tested.tested[0], claim)
    test = Objective(Network.of(module), data.test_inputs, data.test_targets, batch_size=asked.at_once)
    with Phase("errors", seconds):
        errors = [[test(to(weights, device=asked.device)).error for weights in run] for run in some]
    heights = {name: getattr(result, name) for name in ("heights", "naive", "random", "together")}
    return {**heights, "errors": errors, "seconds": seconds}


def _measured(data: Data, asked: argparse.Namespace) -> Data:
    """The test images, and as many training images as activations and statistics of BatchNorm are taken from."""
    some = slice(asked.statistics)
    return dataclasses.replace(
        data,
        train_inputs=laid_out(data.train_inputs[some]),
        train_targets=data.train_targets[some],
        test_inputs=laid_out(data.test_inputs),
    )


def _recipe(case: Case, data: Data, epochs: int, asked: argparse.Namespace) -> Recipe:
    return Recipe(
        **case.recipe,
        settings={"inputs": list(data.shape), "classes": data.classes},
        data=data.name,
        schedule="cosine",
        warmup=100,
        epochs=epochs,
        last_batch="drop",
        precision=asked.precision,
    )


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on, the claims and methods apart."""
    names = ("case", "networks", "times", "levels", "points", "statistics", "epochs", "precision", "examples")
    return {name: getattr(asked, name) for name in names}


def _arguments() -> argparse.Namespace:
    words = arguments(__doc__, "trajectories-and-pruning")
    words.add_argument("--case", choices=list(CASES), default="mlp")
    words.add_argument("--claims", nargs="+", default=["times", "sparsity"])
    words.add_argument("--methods", nargs="+", default=list(METHODS))
    words.add_argument("--networks", type=int, default=None, help="instead of the case's own; pairs are half as many")
    words.add_argument("--times", type=int, default=8, help="checkpoints, at steps that double")
    words.add_argument("--levels", type=int, default=None, help="rounds of pruning instead of the case's own")
    words.add_argument("--epochs", type=int, default=None, help="instead of the case's own")
    words.add_argument("--precision", default="float32")
    words.add_argument("--points", type=int, default=11)
    words.add_argument("--statistics", type=int, default=2000, help="training images for activations and statistics")
    words.add_argument("--at-once", type=int, default=3000, help="examples that go through a network at once")
    words.add_argument("--examples", type=int, default=None, help="use at most so many training and test examples")
    return words.parse_args()


if __name__ == "__main__":
    main()
