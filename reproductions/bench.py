"""A bench: networks of one recipe with their symmetry, the matches of all pairs, and objectives."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from reproductions.cells import Phase, told

from isthmus.align import ActivationMatching, Match, Matcher, WeightMatching
from isthmus.core.checkpoint import load, save
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights, to
from isthmus.discover import discover
from isthmus.studies.store.stacked import digest
from isthmus.train import Recipe, train
from isthmus.zoo import build
from isthmus.zoo.data import Data


class Bench:
    """Networks of one recipe, trained when first asked for, with their symmetry and the matches of all pairs.

    Args:
        recipe: of all; the seeds of initialisation, order and augmentation are 0, 1, ….
        networks: how many.
        data: on the device.
        engine: of training.
        keep: a folder for the trained weights, so that another script need not train them again.
        examples: training examples that activations are matched and running statistics estimated on.
        at_once: examples that go through a network at once.
        most: test error above which a network did not train, and does not count.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: int,
        data: Data,
        *,
        engine: str = "auto",
        keep: Path | None = None,
        examples: int = 2000,
        at_once: int = 2000,
        most: float = 1.0,
    ) -> None:
        self.recipe, self.networks, self.data, self.engine, self.keep = recipe, networks, data, engine, keep
        self.device, self.at_once, self.most = data.train_inputs.device, at_once, most
        self.module = build(recipe).to(self.device)
        self.network = Network.of(self.module)
        self.inputs = laid_out(data.train_inputs[:examples])
        self.seconds: dict[str, float] = {}
        self._matches: dict[str, dict[tuple[int, int], Match]] = {}

    @functools.cached_property
    def symmetry(self) -> Symmetry:
        """Of the network."""
        with Phase("symmetry", self.seconds):
            return discover(build(self.recipe), self.data.train_inputs[:2].cpu())

    @functools.cached_property
    def solutions(self) -> list[dict[str, torch.Tensor]]:
        """The trained weights on the data's device, those that diverged or did not train left out."""
        test = self.objective("test")
        return [weights for weights in self._trained() if self.most >= 1 or test(weights).error <= self.most]

    @functools.cached_property
    def mark(self) -> str:
        """Of these very weights: trained anew they differ, and what was measured on others must not count as theirs."""
        text = "".join(digest(to(weights, device="cpu")) for weights in self.solutions)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _trained(self) -> list[dict[str, torch.Tensor]]:
        recipes = self.recipe.replicates(self.networks)
        files = [self.keep / f"{recipe.key()[:16]}.safetensors" for recipe in recipes] if self.keep else []
        if files and all(file.exists() for file in files):
            self.trained_by = "kept"
            return [load(file, device=self.device) for file in files]
        with Phase("training", self.seconds):
            replicas = train(
                recipes,
                data=self.data,
                module=build,
                device=self.device,
                engine=self.engine,
                scores="never",
                progress=told(f"{self.recipe.network}: training"),
            )
        self.trained_by = replicas[0].engine
        kept = [(replica, place) for place, replica in enumerate(replicas) if not replica.diverged]
        for replica, place in kept:
            if files:
                save(replica.weights, files[place])
        return [to(replica.weights, device=self.device) for replica, _ in kept]

    def objective(self, part: str, examples: int | None = None) -> Objective:
        """Loss and error on the ``training`` or the ``test`` examples, the first ones if not all."""
        data, short = self.data, slice(examples)
        of = {
            "training": (data.train_inputs, data.train_targets),
            "test": (data.test_inputs, data.test_targets),
        }
        inputs, targets = of[part]
        return Objective(self.network, laid_out(inputs[short]), targets[short], batch_size=self.at_once)

    def matches(self, method: str) -> Mapping[tuple[int, int], Match]:
        """The second network of every pair matched to the first, by weights or activations."""
        if method not in self._matches:
            with Phase(f"matching by {method}", self.seconds):
                self._matches[method] = self._found(method)
        return self._matches[method]

    def moved(self, method: str) -> Callable[[int, int], Weights] | None:
        """What :func:`isthmus.connect.barriers` takes: the second network of a pair as it meets the first."""
        if method == "naive":
            return None
        known = self.matches(method)
        return lambda first, second: known[first, second].permutation.apply(self.solutions[second])

    def matcher(self, method: str) -> Matcher:
        """A matcher of these very solutions that looks up what is known; backwards it is the inverse."""
        place = {id(weights): index for index, weights in enumerate(self.solutions)}
        known = self.matches(method)

        def match(symmetry: Symmetry, moving: Weights, fixed: Weights, **_: Any) -> Match:
            first, second = place[id(fixed)], place[id(moving)]
            if first < second:
                return known[first, second]
            found = known[second, first]
            return dataclasses.replace(found, permutation=found.permutation.inverse())

        return match

    def _found(self, method: str) -> dict[tuple[int, int], Match]:
        pairs = list(itertools.combinations(range(len(self.solutions)), 2))
        # Weights are compared on the CPU, pairs in threads: small products and assignments keep a GPU waiting.
        by_weights = method == "weights"
        solutions = [to(weights, device="cpu") for weights in self.solutions] if by_weights else self.solutions
        at_once = min(self.at_once, 1000)
        matching = WeightMatching() if by_weights else ActivationMatching(self.network, self.inputs, batch_size=at_once)
        symmetry = self.symmetry  # found here: threads would each begin to find it

        def match(pair: tuple[int, int]) -> Match:
            first, second = pair
            generator = child(0, "alignment", method, first, second)
            return matching(symmetry, solutions[second], solutions[first], generator=generator)

        found = in_threads(match, pairs, threads=None if by_weights else 1, progress=told(f"matching by {method}"))
        return dict(zip(pairs, found, strict=True))


def laid_out(inputs: torch.Tensor) -> torch.Tensor:
    """Images with the channels last in memory on a GPU, as its convolutions want them."""
    if inputs.dim() != 4 or inputs.device.type == "cpu":
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)
