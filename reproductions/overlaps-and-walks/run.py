"""How do solutions lie to each other, and what does a walker see around one?

Perceptrons of several widths on MNIST and a small convolutional network on CIFAR-10. For each: overlaps of independent
networks (as they are, aligned to a reference, aligned pair by pair, and of what they compute), their distribution P(q),
whether they form a hierarchy, and whether known families come out of the dendrogram: a planted tree, networks that left
common trunks after a hundredth of the steps, networks that saw the same part of the data. Then walks from a solution
(random steps on its sphere, Metropolis), descents back, copies with k of h units permuted, and flatness against the
generalisation gap.

    PYTHONPATH=. python reproductions/overlaps-and-walks/run.py --data FOLDER --output OUT

FOLDER holds ``mnist.npz`` and ``cifar10.npz`` (``x``, ``y``, ``x_test``, ``y_test``; pixels as bytes), or folders
``mnist`` and ``cifar10`` with the published files.

Claims, fixed beforehand: overlaps rise from raw to reference to pairwise; independent networks form no hierarchy, the
planted tree and the spawned families do, and the dendrogram finds these families; the barrier to a permuted copy rises
with k/h and falls with h; fewer walkers come back the longer they walked.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.cells import Cells, Phase, say, told
from reproductions.options import arguments, loaded, settings_of
from tables import claims_of, tables_of

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.record import plain
from isthmus.core.statistics import over_networks
from isthmus.core.weights import Weights, to
from isthmus.studies.landscape.generalisation import Grid, generalisation
from isthmus.studies.landscape.glass import glass, symmetry_with_scale
from isthmus.studies.landscape.solution import flatness_of
from isthmus.studies.landscape.walks import Manner, permuted_copies, walk_from
from isthmus.train import Recipe, Replica, train
from isthmus.zoo import build
from isthmus.zoo.data import Data

_EACH, _MIDDLE = ("glass", "walks"), ("subsets", "flatness")  # cells of every network; of the middle perceptron


def main() -> None:
    """Make the cells that are missing, then the tables."""
    asked = _arguments()
    cells = Cells(asked.output, settings_of(asked, but=("sets", "widths", "cells")))
    benches = [Bench("mnist", f"mlp-{width}x1", asked) for width in asked.widths] if "mnist" in asked.sets else []
    benches += [Bench("cifar10", "vgg-" + "-".join(map(str, asked.channels)), asked)] if "cifar10" in asked.sets else []
    jobs = [
        (f"{what}-{bench.name}", getattr(bench, what)) for bench in benches for what in _EACH if what in asked.cells
    ]
    if "mnist" in asked.sets:
        middle = benches[len(asked.widths) // 2]
        jobs += [(f"{what}-{middle.name}", getattr(middle, what)) for what in _MIDDLE if what in asked.cells]
    for name, job in jobs:
        cells(name, job)
        _write(cells)
    cells.also(asked.also)
    _write(cells)


def _write(cells: Cells) -> None:
    claims = claims_of(cells.found)
    cells.write(__doc__, tables_of(cells.found, claims), claims=claims)


@dataclasses.dataclass(eq=False)
class Bench:
    """One network on one data set; networks are trained when first asked for."""

    data_name: str
    network: str
    asked: argparse.Namespace

    @property
    def name(self) -> str:
        """Of the cells."""
        return f"{self.data_name}-{self.network}"

    @functools.cached_property
    def data(self) -> Data:
        """On the device."""
        return _loaded(self.data_name, self.asked)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """How all networks are trained."""
        images = self.data_name == "cifar10"
        return Recipe(
            network=self.network,
            settings={"inputs": list(self.data.shape), "classes": 10, **({"norm": "none"} if images else {})},
            data=self.data_name,
            rate=0.05 if images else 0.1,
            momentum=0.9 if images else 0.0,
            schedule="cosine",
            batch_size=128 if images else 100,
            epochs=self.asked.image_epochs if images else self.asked.epochs,
            augmentation=("crop", "flip") if images else (),
            precision="tensorfloat32" if images else "float32",
        )

    @functools.cached_property
    def count(self) -> int:
        """Networks of each set; fewer of the larger ones."""
        return self.asked.image_networks if self.data_name == "cifar10" else self.asked.networks

    @property
    def together(self) -> int:
        """Points that go through the network at once: many networks' convolutions at once have slow kernels."""
        return 1 if self.data_name == "cifar10" else 32

    @functools.cached_property
    def module(self) -> Any:
        """The network on the device."""
        return build(self.recipe).to(self.asked.device)

    @functools.cached_property
    def symmetry(self) -> Any:
        """Permutations and scales."""
        return symmetry_with_scale(build(self.recipe), self.data.train_inputs[:2].cpu())

    @functools.cached_property
    def replicas(self) -> list[Replica]:
        """Networks that share nothing."""
        return self._trained(self.recipe.replicates(self.count))

    def objective(self, part: str) -> Objective:
        """Loss and error on the first training or test examples."""
        inputs, targets = (
            getattr(self.data, f"{part}_{kind}")[: self.asked.measured] for kind in ("inputs", "targets")
        )
        # Many networks go through it together, and images take memory at every layer.
        at_once = 1000 if self.data_name == "cifar10" else self.asked.measured
        return Objective(Network.of(self.module), inputs, targets, batch_size=at_once)

    def glass(self) -> dict[str, Any]:
        """Overlaps, P(q), hierarchy, families."""
        seconds: dict[str, float] = {}
        trunks = self.count // 4
        spawn = max(1, self.recipe.total_steps(len(self.data.train_targets)) // 100)
        with Phase("training", seconds):
            replicas = self.replicas
            family = dataclasses.replace(self.recipe, spawn=spawn)
            born = [
                dataclasses.replace(family, initialisation_seed=trunk, order_seed=trunk, spawn_seed=child)
                for trunk in range(trunks)
                for child in range(4)
            ]
            spawned = self._trained(born)
        with Phase("glass", seconds):
            found = glass(
                [replica.weights for replica in replicas],
                symmetry=self.symmetry,
                objective=self.objective("test"),
                spawned=([one.weights for one in spawned], [str(one.recipe.initialisation_seed) for one in spawned]),
                together=self.together,
                progress=told(f"{self.name}: glass"),
            )
        _tell(seconds)
        return {**self._said(replicas), "spawn": family.spawn, "glass": _slim(plain(found)), "seconds": seconds}

    def subsets(self) -> dict[str, Any]:
        """Families that saw the same tenth of the data: are they seen in the weights, or in what is computed?"""
        families = self.count // 4
        part = dataclasses.replace(
            self.recipe, subset=max(1, len(self.data.train_targets) // 10), epochs=2 * self.recipe.epochs
        )
        recipes = [
            dataclasses.replace(part, initialisation_seed=number, order_seed=number, subset_seed=number % families)
            for number in range(4 * families)
        ]
        replicas = self._trained(recipes)
        names = [str(number) for number in range(len(replicas))]
        found = glass(
            [replica.weights for replica in replicas],
            names=names,
            symmetry=self.symmetry,
            objective=self.objective("test"),
            families={name: str(one.recipe.subset_seed) for name, one in zip(names, replicas, strict=True)},
            planted=False,
            together=32,
            progress=told(f"{self.name}: subsets"),
        )
        return {**self._said(replicas), "subset": part.subset, "glass": _slim(plain(found))}

    def walks(self) -> dict[str, Any]:
        """Walkers around the first network, permuted copies of some, and how flat they are."""
        asked, seconds, objective = self.asked, {}, self.objective("train")
        solutions = [self._placed(replica.weights) for replica in self.replicas[: asked.permuted]]
        manners = {
            "random": Manner("random", asked.steps, asked.walkers, _every(asked.steps), size=asked.size,
                             descend=tuple(asked.descend)),
            **{f"metropolis at {temperature:g}": Manner("metropolis", asked.thermal, asked.walkers,
                                                        _every(asked.thermal), temperature=temperature)
               for temperature in asked.temperatures},
        }  # fmt: skip
        found: dict[str, Any] = {}
        for name, manner in manners.items():
            with Phase(name, seconds):
                progress = told(f"{self.name}: {name}")
                found[name] = plain(walk_from(solutions[0], objective, name="0", manner=manner, progress=progress))
        found["random"]["returns"].pop("walk")
        with Phase("permutations", seconds):
            copies = {
                str(place): plain(permuted_copies(one, objective, self.symmetry, seed=place, together=self.together))
                for place, one in enumerate(solutions)
            }
        with Phase("flatness", seconds):
            few = solutions[: asked.flat]
            names = [str(place) for place in range(len(few))]
            flat = flatness_of(few, objective, names=names, symmetry=self.symmetry, pairs=1, products=40)
        _tell(seconds)
        return {**self._said(self.replicas), "walks": found, "permutations": copies, "flatness": _flat(plain(flat)),
                "seconds": seconds}  # fmt: skip

    def flatness(self) -> dict[str, Any]:
        """Rank correlation of sharpness with the generalisation gap over rates and batch sizes at one training loss."""
        asked = self.asked
        recipe = dataclasses.replace(
            self.recipe,
            epochs=asked.grid_epochs,
            schedule="constant",
            subset=min(asked.grid_examples, len(self.data.train_targets)),
            label_noise=0.1,
        )
        grid = Grid(tuple(asked.grid_rates), tuple(asked.grid_batches), asked.grid_networks, asked.target)
        found = generalisation(
            recipe,
            data=self.data,
            module=build,
            grid=grid,
            device=asked.device,
            progress=told(f"{self.name}: flatness"),
        )
        return {"generalisation": plain(found)}

    def _trained(self, recipes: Sequence[Recipe]) -> list[Replica]:
        asked = self.asked
        replicas = train(
            recipes,
            data=self.data,
            module=build,
            device=asked.device,
            engine=asked.engine,
            progress=told(f"{self.name}: training"),
        )
        return [replica for replica in replicas if not replica.diverged]

    def _placed(self, weights: Weights) -> Weights:
        return to(weights, device=self.asked.device)

    def _said(self, replicas: Sequence[Replica]) -> dict[str, Any]:
        """What a reader has to know of the networks."""
        return {
            "set": self.data_name,
            "network": self.network,
            "examples": [len(self.data.train_targets), len(self.data.test_targets)],
            "fingerprint": self.data.fingerprint,
            "recipe": replicas[0].recipe,
            "engine": replicas[0].engine,
            "networks": len(replicas),
            "training_loss": over_networks([one.train.loss for one in replicas if one.train]),
            "test_error": over_networks([one.test.error for one in replicas if one.test]),
        }


@functools.cache
def _data(name: str, asked: tuple[Any, ...]) -> Data:
    folder, device, examples = asked
    return loaded(name, folder, device=device, examples=examples)


def _loaded(name: str, asked: argparse.Namespace) -> Data:
    return _data(name, (asked.data, asked.device, asked.examples))


def _tell(seconds: Mapping[str, float]) -> None:
    say(", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()))


def _every(steps: int) -> int:
    return max(1, steps // 25)


def _slim(found: dict[str, Any]) -> dict[str, Any]:
    """Without the overlaps of single layers, which fill pages."""
    for each in found["arrangements"]:
        each["overlaps"]["layers"] = {}
    return found


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """One number for each network and measure."""
    rises = {name: [each["rise"] for each in found[name]] for name in ("random", "worst", "adaptive")}
    trace = [each["interval"]["estimate"] for each in found["trace"]]
    return {**rises, "trace": trace, "eigenvalue": [each["values"][0] for each in found["eigenvalues"]]}


def _arguments() -> argparse.Namespace:
    words = arguments(__doc__, "overlaps-and-walks")
    words.add_argument("--sets", nargs="+", default=["mnist", "cifar10"])
    words.add_argument("--cells", nargs="+", choices=[*_EACH, *_MIDDLE], default=[*_EACH, *_MIDDLE])
    words.add_argument("--widths", nargs="+", type=int, default=[32, 128, 512], help="of the perceptrons on MNIST")
    words.add_argument("--channels", nargs="+", type=int, default=[32, 64, 128], help="of the network on CIFAR-10")
    words.add_argument("--networks", type=int, default=16, help="on MNIST; a multiple of 4")
    words.add_argument("--image-networks", type=int, default=12, help="on CIFAR-10; a multiple of 4")
    words.add_argument("--epochs", type=int, default=6, help="on MNIST")
    words.add_argument("--image-epochs", type=int, default=15, help="on CIFAR-10")
    words.add_argument("--examples", type=int, help="use at most so many training and test examples")
    words.add_argument("--measured", type=int, default=3000, help="examples that losses are measured on")
    words.add_argument("--walkers", type=int, default=8)
    words.add_argument("--steps", type=int, default=800, help="of the random walks")
    words.add_argument("--size", type=float, default=0.1, help="of a random step, as a share of the start's length")
    words.add_argument("--descend", nargs="+", type=int, default=[100, 400, 800], help="steps before descents")
    words.add_argument("--thermal", type=int, default=1000, help="steps of the Metropolis walks")
    words.add_argument("--temperatures", nargs="+", type=float, default=[1e-4, 1e-2], help="of them, in nats")
    words.add_argument("--permuted", type=int, default=6, help="networks whose permuted copies are measured")
    words.add_argument("--flat", type=int, default=4, help="networks whose flatness is measured")
    words.add_argument("--grid-rates", nargs="+", type=float, default=[0.05, 0.1, 0.2])
    words.add_argument("--grid-batches", nargs="+", type=int, default=[16, 64, 128])
    words.add_argument("--grid-networks", type=int, default=3, help="of each setting")
    words.add_argument("--grid-epochs", type=int, default=40)
    words.add_argument("--grid-examples", type=int, default=4000)
    words.add_argument("--target", type=float, default=0.4, help="training loss at which flatness is compared")
    return words.parse_args()


if __name__ == "__main__":
    main()
