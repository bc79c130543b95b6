"""Alignment of transformers with more and more of their symmetry: what ``gpt-text`` and ``vit-cifar10`` have in common.

Small transformers of several widths are trained from seeds of their own (``independent``) and from one initialisation
with orders of their own (``siblings``). The second of every pair is matched to the first, by weights and by
activations, with permutations of

- ``ffn``: the hidden units of the feed-forward layers only,
- ``heads``: these, the heads, and inside each head the query-key and the value-output channels,
- ``all``: these and the residual stream,

and the loss is measured on the straight line between them. Controls: a random permutation of everything in place of the
matched one, and copies of a network under a random permutation of everything, which must be undone.

Claims, fixed beforehand, for independent networks: every matching lowers the barrier; heads lower it further than
feed-forward layers alone, the residual stream further than heads; a random permutation lowers nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from reproductions.cells import Cells, Phase, say, told
from reproductions.heads_shown import WAYS, claims_of, tables_of
from reproductions.options import settings_of

from isthmus.align import ActivationMatching, Match, Matcher, WeightMatching
from isthmus.connect import Line, PairBarriers, barrier, barriers
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.statistics import over_networks
from isthmus.core.symmetry import Symmetry
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights, to
from isthmus.discover import discover
from isthmus.train import Recipe, train
from isthmus.zoo import build
from isthmus.zoo.data import Data

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "independent": ("initialisation", "order", "augmentation"),
    "siblings": ("order", "augmentation"),
}
_TOGETHER, _AT_ONCE = 112, 250  # points of lines, and examples, that go through the network together on a GPU


def run(
    asked: argparse.Namespace, question: str | None, data: Callable[[], Data], recipe: Callable[..., Recipe]
) -> None:
    """Make the cells that are missing, then the tables.

    Args:
        asked: the options of :func:`options`, ``data`` and ``output``.
        question: what is asked.
        data: the data set, on the device.
        recipe: (data, width) → how to train.
    """
    cells = Cells(asked.output, settings_of(asked, but=("families", "widths", "match_on")))
    held: list[Data] = []

    def cell(width: int, family: str) -> dict[str, Any]:
        if not held:
            held.append(data())
        return _cell(recipe(held[0], width), family, held[0], asked)

    for family in asked.families:
        for width in asked.widths:
            cells(f"{family}-{width}", functools.partial(cell, width, family))
            _write(cells, question)
    cells.also(asked.also)
    _write(cells, question)


def _write(cells: Cells, question: str | None) -> None:
    claims = claims_of([each for each in cells.found if each["family"] == "independent"])
    cells.write(question, tables_of(cells.found, claims), claims=claims)


def options(words: argparse.ArgumentParser, **defaults: Any) -> argparse.Namespace:
    """The options of both scripts, with defaults of their own."""
    words.add_argument("--widths", nargs="+", type=int, default=[64, 128])
    words.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    words.add_argument("--depth", type=int, default=4, help="blocks")
    words.add_argument("--networks", type=int, default=8, help="of each family and width; 4 or more for intervals")
    words.add_argument("--dense", type=int, default=8, help="networks of which all pairs are measured; an even number")
    words.add_argument("--epochs", type=int)
    words.add_argument("--batch", type=int)
    words.add_argument("--rate", type=float)
    words.add_argument("--points", type=int, default=9)
    words.add_argument("--match-on", default="cpu", help="device of the matching; on a CPU, pairs are in threads")
    words.add_argument("--examples", type=int, help="use at most so many training and test examples")
    words.add_argument("--measured", type=int, help="training and test examples that barriers are measured on")
    words.add_argument("--watched", type=int, help="training examples that activations are matched on")
    words.set_defaults(**defaults)
    return words.parse_args()


@dataclasses.dataclass(frozen=True, eq=False)
class _Family:
    """Trained networks of one width, and what they are measured with."""

    solutions: Sequence[Weights]
    scopes: Mapping[str, Symmetry]
    network: Network
    training: Objective
    test: Objective
    watched: torch.Tensor
    points: int
    dense: int

    @property
    def further(self) -> list[tuple[int, int]]:
        """Pairs of the networks beyond the first ones, of which all pairs are measured: each network is in one."""
        return [(first, first + 1) for first in range(self.dense, len(self.solutions) - 1, 2)]

    def matched(self, way: str) -> dict[tuple[int, int], Match]:
        """The second network of every pair matched to the first."""
        method, scope = way.split()
        solutions = [self._placed(one) for one in self.solutions]
        matcher, symmetry = self._matcher(method), self.scopes[scope]
        pairs = [*itertools.combinations(range(min(self.dense, len(solutions))), 2), *self.further]

        def match(pair: tuple[int, int]) -> Match:
            first, second = pair
            generator = child(0, "alignment", way, first, second)
            return matcher(symmetry, solutions[second], solutions[first], generator=generator)

        threads = None if self.watched.device.type == "cpu" else 1
        return dict(zip(pairs, in_threads(match, pairs, threads=threads, progress=told(way)), strict=True))

    def _matcher(self, method: str) -> Matcher:
        # Of the two starts that are tried by default the relaxed one takes twenty times as long and ended .5 % higher.
        return (
            WeightMatching(start="anchored") if method == "weights" else ActivationMatching(self.network, self.watched)
        )

    def _placed(self, weights: Weights) -> Weights:
        return to(weights, device=self.watched.device)

    def heights(self, moving: Callable[[int, int], Weights] | None) -> dict[str, dict[str, Any]]:
        """Barriers of the training and the test loss."""
        return {
            part: {
                **_heights(self._measured(range(min(self.dense, len(self.solutions))), objective, moving)),
                "further": [self._measured(pair, objective, moving).loss_barrier[0, 1] for pair in self.further],
            }
            for part, objective in (("training", self.training), ("test", self.test))
        }

    def _measured(
        self, places: Sequence[int], objective: Objective, moving: Callable[[int, int], Weights] | None
    ) -> PairBarriers:
        """Barriers of all pairs of some networks."""
        together = None if objective.targets.device.type == "cpu" else _TOGETHER
        moved = None if moving is None else lambda first, second: moving(places[first], places[second])
        some = [self.solutions[place] for place in places]
        return barriers(some, objective, moving=moved, points=self.points, together=together)

    def planted(self, place: int, way: str) -> dict[str, float]:
        """A copy of a network under a random permutation of everything, and what a matcher makes of it."""
        symmetry, original = self.scopes["all"], self._placed(self.solutions[place])
        permutation = symmetry.random(child(0, "planted", place))
        copy = permutation.apply(original)
        match = self._matcher(way)(symmetry, copy, original, generator=child(0, "planted matching", place))
        found = match.permutation.after(permutation)
        device = self.training.targets.device
        ends = [to(each, device=device) for each in (original, copy, match.permutation.apply(copy))]
        before, after = (
            barrier(Line(ends[0], end), self.training, points=self.points).loss_barrier for end in ends[1:]
        )
        return {"recovered": found.fixed_share, "before": before, "after": after}


def _cell(recipe: Recipe, family: str, data: Data, asked: argparse.Namespace) -> dict[str, Any]:
    """Train one family, match and measure all pairs."""
    seconds: dict[str, float] = {}
    with Phase("training", seconds):
        recipes = recipe.replicates(asked.networks, vary=FAMILIES[family])
        replicas = train(
            recipes, data=data, module=build, device=asked.device, engine=asked.engine, progress=told("training")
        )
    kept = [replica for replica in replicas if not replica.diverged]
    for note in replicas[0].notes:
        say(note)
    with Phase("symmetry", seconds):
        module = build(recipe)
        symmetry = discover(module, data.train_inputs[:2].cpu())
    network = Network.of(module)
    measured, watched = slice(asked.measured), slice(asked.watched)
    bench = _Family(
        [to(replica.weights, device=asked.device) for replica in kept],
        scopes_of(symmetry),
        network,
        Objective(network, data.train_inputs[measured], data.train_targets[measured], batch_size=_AT_ONCE),
        Objective(network, data.test_inputs[measured], data.test_targets[measured], batch_size=_AT_ONCE),
        data.train_inputs[watched].to(asked.match_on),
        asked.points,
        asked.dense,
    )
    found, fixed = {"naive": bench.heights(None)}, {}
    for way in WAYS:
        with Phase(f"matching, {way}", seconds):
            matches = bench.matched(way)
        fixed[way] = over_networks([match.permutation.fixed_share for match in matches.values()]).estimate
        with Phase("barriers", seconds):
            found[way] = bench.heights(lambda i, j, m=matches: m[i, j].permutation.apply(bench.solutions[j]))
    with Phase("controls", seconds):
        drawn = child(0, "random")
        found["random"] = bench.heights(lambda _, j: symmetry.random(drawn).apply(bench.solutions[j]))
        copies = range(min(4, len(kept)))
        planted = {way: [bench.planted(place, way) for place in copies] for way in ("weights", "activations")}
    say(", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()))
    return {
        "family": family,
        "width": bench_width(recipe),
        "recipe": recipe,
        "engine": replicas[0].engine,
        "networks": len(kept),
        "diverged": len(replicas) - len(kept),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "training": len(data.train_targets),
                 "test": len(data.test_targets)},
        "log10_size": {scope: one.log10_size for scope, one in bench.scopes.items()},
        "training_loss": over_networks([replica.train.loss for replica in kept if replica.train]),
        "test_loss": over_networks([replica.test.loss for replica in kept if replica.test]),
        "test_error": over_networks([replica.test.error for replica in kept if replica.test]),
        "barriers": found,
        "fixed_share": fixed,
        "planted": planted,
        "seconds": seconds,
    }  # fmt: skip


def scopes_of(symmetry: Symmetry) -> dict[str, Symmetry]:
    """The symmetry's parts: feed-forward units; these and all in the heads; everything."""
    stream = {group.name for group in symmetry.permutable if any(site.tensor == "norm.weight" for site in group.sites)}
    parents = {group.parent.group for group in symmetry.permutable if group.parent is not None}
    heads = {group.name for group in symmetry.permutable if group.parent is not None} | parents

    def without(names: set[str]) -> Symmetry:
        return dataclasses.replace(symmetry, groups=tuple(g for g in symmetry.groups if g.name not in names))

    return {"ffn": without(stream | heads), "heads": without(stream), "all": symmetry}


def bench_width(recipe: Recipe) -> int:
    """The width in a recipe's name, such as ``gpt-64x4``."""
    return int(recipe.network.partition("-")[2].partition("x")[0])


def _heights(found: PairBarriers) -> dict[str, Any]:
    """The mean over pairs with its interval over networks, all pairs, and the mean curve."""
    names = ("loss_barrier", "error_barrier", "midpoint")
    pairs = {"pairs": found.heights["loss_barrier"]}
    return {"mean_curve": found.mean_loss, **{name: found.intervals[name] for name in names}, **pairs}
