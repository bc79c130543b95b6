"""What the scripts of this folder share: data from one folder, cells that are done once, lines that say how far it is.

Scripts run from the root of the repository with it on the path: ``PYTHONPATH=. python reproductions/FOLDER/run.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from json import loads
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.align import ActivationMatching, Match, Matcher, WeightMatching
from isthmus.connect import PairBarriers
from isthmus.core.checkpoint import load, save
from isthmus.core.errors import DataError, listed
from isthmus.core.files import write_text
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import plain, to_json
from isthmus.core.statistics import over_pairs
from isthmus.core.symmetry import Symmetry
from isthmus.core.threads import in_threads
from isthmus.core.weights import Weights, to
from isthmus.discover import discover
from isthmus.studies.factors.trends import holm
from isthmus.train import Recipe, train
from isthmus.zoo import build, load_data
from isthmus.zoo.data import Data, images

SHAPES = ((3, 32, 32), (1, 28, 28))


def loaded(name: str, folder: Path, *, device: str, examples: int | None = None) -> Data:
    """Images on the device: from ``NAME.npz`` (x, y, x_test, y_test; pixels as bytes) or from a folder ``NAME``.

    Raises:
        DataError: the file's images are not (examples, channels, rows, columns).
    """
    file = folder / f"{name}.npz"
    if file.exists():
        with np.load(file) as arrays:
            parts = [arrays[key] for key in ("x", "y", "x_test", "y_test")]
        for part in parts[::2]:
            if part.shape[1:] not in SHAPES:  # with the channels last a network trains too, only badly
                raise DataError(
                    f"{file} must hold images of one of the shapes {listed(map(str, SHAPES))}, got {part.shape[1:]}"
                )
        data = images(*parts, classes=10, name=name)
    else:
        data = load_data(name, folder / name)
    return (data.limited(examples) if examples else data).to(device)


class Cells:
    """Parts of a result, each written as soon as it is done, so that a second start makes only what is missing.

    Args:
        folder: of the results; the cells lie in ``cells`` in it.
        settings: what all cells depend on; other settings have other files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, plain(settings)
        self.mark = hashlib.sha256(to_json(self.settings).encode()).hexdigest()[:10]
        self.found: list[dict[str, Any]] = []
        self.began = time.perf_counter()

    def __call__(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The cell of a name: read where it is there already, else made and written with seconds and provenance."""
        cell = self.piece(name, make)
        self.found.append(cell)
        return cell

    def within(self, name: str) -> Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]]:
        """Makes or reads pieces of a cell, so that one that was stopped half-way goes on from there."""
        return lambda piece, make: self.piece(f"{name}-{piece}", make)

    def piece(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What is kept as a cell is, but is no part of the result by itself."""
        file = self.folder / "cells" / f"{name}-{self.mark}.json"
        if file.exists():
            say(f"{name}: there already")
            cell = loads(file.read_text(encoding="utf-8"))
        else:
            began = time.perf_counter()
            made = make()
            cell = plain({"name": name, **made, "wall_seconds": round(time.perf_counter() - began, 1)})
            cell["provenance"] = plain(provenance())
            write_text(file, to_json(rounded(cell), indent=None))
            say(f"{name}: {cell['wall_seconds']:.0f} s; {time.perf_counter() - self.began:.0f} s so far")
        return cell

    def also(self, files: Sequence[Path]) -> None:
        """Cells of recorded results count, too, where there is none of their name."""
        for file in files:
            known = {cell["name"] for cell in self.found}
            recorded = loads(file.read_text(encoding="utf-8"))["cells"]
            self.found += [cell for cell in recorded if cell["name"] not in known]

    def write(self, question: str | None, table: str, **more: Any) -> None:
        """``results.json`` with all cells, ``results.md`` with the table."""
        result = {"question": question, "settings": self.settings, **more, "cells": self.found}
        write_text(
            self.folder / "results.json", to_json(rounded(plain({**result, "provenance": provenance()})), indent=1)
        )
        write_text(self.folder / "results.md", table)
        say(f"\n{table}\n{self.folder / 'results.json'} has everything; {time.perf_counter() - self.began:.0f} s")


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain values with numbers to so many significant digits, for files that people keep."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    return [rounded(entry, digits) for entry in value] if isinstance(value, list) else value


def arguments(question: str | None, folder: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    words = argparse.ArgumentParser(description=(question or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    words.add_argument("--output", type=Path, default=Path(folder), help="folder of the results")
    words.add_argument("--also", nargs="*", type=Path, default=[], help="recorded results whose cells count, too")
    words.add_argument("--engine", default="auto", help="of training; see isthmus.train")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return words


def settings_of(asked: argparse.Namespace, *, but: Sequence[str] = ()) -> dict[str, Any]:
    """What results depend on: all options but those that every script has, and those named."""
    shared = ("data", "output", "also", "engine", "device")
    return {name: value for name, value in vars(asked).items() if name not in (*shared, *but)}


class Phase:
    """Adds up the seconds of what runs inside it under a name."""

    def __init__(self, name: str, seconds: dict[str, float]) -> None:
        self.name, self.seconds = name, seconds

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(self.seconds.get(self.name, 0) + time.perf_counter() - self.began, 2)


def told(what: str) -> Progress:
    """A line every five seconds."""
    last = time.perf_counter()

    def line(done: float, total: float, label: str = "") -> None:
        nonlocal last
        if time.perf_counter() - last > 5:
            last = time.perf_counter()
            say(f"{what} {done / total:.0%} {label}")

    return line


def say(line: str) -> None:
    """Print at once, also into a file."""
    print(line, flush=True)


def shown(interval: Mapping[str, Any]) -> str:
    """An interval in plain values as a cell of a table."""
    if interval["estimate"] is None:
        return "–"
    if interval["low"] is None:
        return f"{interval['estimate']:.3g}"
    return f"{interval['estimate']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


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


def summary(found: PairBarriers) -> dict[str, Any]:
    """Of each convention the mean over pairs with its interval over networks, and all pairs; and the mean curves."""
    curves = list(found.curves.values())
    return {
        "positions": curves[0].positions,
        "mean_loss": found.mean_loss,
        "mean_error": torch.stack([curve.error for curve in curves]).mean(0),
        **{name: {"mean": found.intervals[name], "pairs": found.heights[name]} for name in CONVENTIONS},
    }


def curves(found: PairBarriers) -> list[dict[str, Any]]:
    """Loss and error along the line of each pair."""
    return [{"pair": list(pair), "loss": curve.loss, "error": curve.error} for pair, curve in found.curves.items()]


def among(measured: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """The :func:`summary` of some of the networks, from that of all with its :func:`curves`, both as plain values."""
    along = [curve for curve in measured["curves"] if set(curve["pair"]) <= set(chosen)]
    means = {part: torch.tensor([curve[part] for curve in along], dtype=torch.float64).mean(0) for part in PARTS}
    found: dict[str, Any] = {
        "positions": measured["positions"], "mean_loss": means["loss"], "mean_error": means["error"]
    }  # fmt: skip
    for name in CONVENTIONS:
        heights = torch.tensor(measured[name]["pairs"], dtype=torch.float64)[chosen][:, chosen]
        found[name] = {"mean": over_pairs(heights, signed=name.startswith("midpoint")), "pairs": heights}
    return plain(found)


PARTS = ("loss", "error")
CONVENTIONS = ("loss_barrier", "error_barrier", "midpoint", "midpoint_error")


def disjoint(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Of a matrix over pairs those of networks 1–2, 3–4, …: they share no network, so they are independent."""
    return [pairs[first][first + 1] for first in range(0, len(pairs) - 1, 2)]


def corrected(trends: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Trends with Holm's correction over all of them."""
    for trend, p in zip(trends, holm([trend["p"] for trend in trends]), strict=True):
        trend["p_corrected"] = p
    return trends
