"""What can be measured on a network or a pair, each with a version, and the columns that a study file may ask for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from isthmus.connect import Line, barrier
from isthmus.core import weights as algebra
from isthmus.core.errors import listed, near
from isthmus.core.losses import cross_entropy
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.studies.factors.design import Design, StudyError
from isthmus.studies.store.rows import Row
from isthmus.train import Recipe
from isthmus.train.batches import Batches
from isthmus.zoo import Data, build, load_data

Kind = Literal["network", "pair"]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: one network, or two that are compared.

    Attributes:
        recipes: one or two.
        weights: as many.
        network: the function of the first.
        data: what the first was trained on, on the device of the weights.
    """

    recipes: tuple[Recipe, ...]
    weights: tuple[Weights, ...]
    network: Network
    data: Data

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.weights[0].values())).device

    def objective(self, on: str, examples: int | None = None) -> Objective:
        """Loss and error on the test set or on the network's own training set (its subset, its noisy labels)."""
        inputs, targets = self.data.test_inputs, self.data.test_targets
        if on == "training":
            inputs, targets = Batches.of(self.recipes[:1], self.data, device=self.device).own(0)
        limit = slice(examples)
        return Objective(self.network, inputs[limit], targets[limit], cross_entropy)


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """One way to measure.

    Attributes:
        name: of its rows in the store.
        version: raised when the definition changes.
        kind: of one network or of a pair.
        columns: the numbers that it gives, with their units.
        settings: which settings of a study it depends on.
        function: subject and settings → mapping that holds the columns (and may hold more, such as curves).
    """

    name: str
    version: int
    kind: Kind
    columns: Mapping[str, str]
    settings: tuple[str, ...]
    function: Callable[[Subject, Mapping[str, Any]], Mapping[str, Any]]

    def settings_in(self, design: Design) -> dict[str, Any]:
        """The settings that this measure has in a study."""
        return {name: getattr(design.measures, name) for name in self.settings}


def _score(subject: Subject, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    training, test = (subject.objective(on)(subject.weights[0]) for on in ("training", "test"))
    return {
        "training_loss": training.loss,
        "training_error": training.error,
        "test_loss": test.loss,
        "test_error": test.error,
    }


def _size(subject: Subject, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    tensors = [subject.weights[0][name] for name in subject.network.parameter_names]
    total = sum(tensor.numel() for tensor in tensors)
    nonzero = sum(int(tensor.count_nonzero()) for tensor in tensors)
    norm = algebra.norm(subject.weights[0], tensors=subject.network.parameter_names)
    return {"parameters": total, "nonzero_parameters": nonzero, "norm": norm}


def _overlap(subject: Subject, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    start, end = subject.weights
    names = subject.network.parameter_names
    return {
        "overlap": algebra.cosine(start, end, tensors=names),
        "distance": algebra.distance(start, end, tensors=names),
    }


def _barrier(subject: Subject, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return _heights(subject, subject.weights[1], settings)


def _aligned(subject: Subject, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same after the hidden units of the second network were permuted to match those of the first."""
    from isthmus.align import WeightMatching

    start, end = subject.weights
    match = WeightMatching()(_symmetry(subject), end, start, generator=child(0, "align"))
    moved = match.permutation.apply(end)
    found = {f"aligned_{name}": value for name, value in _heights(subject, moved, settings).items()}
    overlap = algebra.cosine(start, moved, tensors=subject.network.parameter_names)
    return {**found, "aligned_overlap": overlap, "fixed_share": match.permutation.fixed_share}


def _heights(subject: Subject, end: Weights, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = barrier(
        Line(subject.weights[0], end),
        subject.objective(settings["on"], settings["examples"]),
        points=settings["points"],
        inputs=subject.data.train_inputs[: settings["statistics_examples"]],
    )
    columns = {name: getattr(found, name) for name in BARRIER.columns}
    curves = {"positions": found.positions, "loss": found.loss, "error": found.error}
    return {**columns, **curves, "normalisation": found.normalisation}


SCORE = Measure(
    "score",
    1,
    "network",
    {"training_loss": "nats", "training_error": "share", "test_loss": "nats", "test_error": "share"},
    (),
    _score,
)
SIZE = Measure("size", 1, "network", {"parameters": "count", "nonzero_parameters": "count", "norm": ""}, (), _size)
OVERLAP = Measure("overlap", 1, "pair", {"overlap": "cosine", "distance": ""}, (), _overlap)
BARRIER = Measure(
    "barrier",
    1,
    "pair",
    {
        "loss_barrier": "nats",
        "error_barrier": "share",
        "loss_barrier_over_mean": "nats",
        "error_barrier_over_mean": "share",
        "midpoint": "nats",
        "midpoint_error": "share",
    },
    ("points", "on", "examples", "statistics_examples"),
    _barrier,
)
ALIGNED = Measure(
    "aligned",
    1,
    "pair",
    {
        **{f"aligned_{name}": unit for name, unit in BARRIER.columns.items()},
        "aligned_overlap": "cosine",
        "fixed_share": "share",
    },
    BARRIER.settings,
    _aligned,
)
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in (SCORE, SIZE, BARRIER, ALIGNED, OVERLAP)}


def columns() -> dict[str, Measure]:
    """Every column that a study may ask for, and the measure that gives it."""
    return {column: measure for measure in MEASURES.values() for column in measure.columns}


def unit_of(row: Row, column: str) -> str:
    """The unit of one number of a row; the row itself names those of all its numbers at once."""
    measure = MEASURES.get(row.measure)
    if measure is not None and column in measure.columns:
        return measure.columns[column]
    return "" if "," in row.unit else row.unit


def measures_for(design: Design) -> tuple[Measure, ...]:
    """The measures behind a study's columns; the score, with the training loss, comes always and first.

    Raises:
        StudyError: a column is unknown, or a claim is about one that is not measured.
    """
    known = columns()
    for column in design.measures.columns:
        if column not in known:
            hint = near(column, known) or f"; known: {listed(known, 30)}"
            raise StudyError(f"measures.columns must name what can be measured, got {column!r}{hint}")
    for claim in design.claims:
        if claim.measure not in columns_for(design):
            given = listed(columns_for(design), 20)
            raise StudyError(
                f"a claim must be about a measured column ({given}), got {claim.measure!r}{near(claim.measure, known)}"
            )
    return tuple(dict.fromkeys([SCORE, *(known[column] for column in design.measures.columns)]))


def columns_for(design: Design) -> tuple[str, ...]:
    """The columns of a study's table: those asked for, and the training loss."""
    return tuple(dict.fromkeys(["training_loss", *design.measures.columns]))


def subject(
    recipes: Sequence[Recipe], weights: Sequence[Weights], *, data_folder: str | None, device: str | torch.device
) -> Subject:
    """Put together what is measured; data and modules are kept for the next subject of their kind."""
    first = recipes[0]
    data = dataset(first.data, data_folder, str(device))
    return Subject(
        tuple(recipes), tuple(algebra.to(w, device=device) for w in weights), _network(first, str(device)), data
    )


@functools.lru_cache(maxsize=4)
def dataset(name: str, folder: str | None, device: str) -> Data:
    """A data set on a device; the last few stay in memory."""
    return load_data(name, folder).to(device)


def _network(recipe: Recipe, device: str) -> Network:
    return _cached_network(dataclasses.replace(recipe, **dict.fromkeys(_SEEDS, 0)), device)


@functools.lru_cache(maxsize=4)
def _cached_network(recipe: Recipe, device: str) -> Network:
    """The function that a recipe's weights belong to; the seeds do not matter."""
    return Network.of(build(recipe).to(device))


def _symmetry(subject: Subject) -> Symmetry:
    """The symmetry of the subject's network, discovered and proved once for each network."""
    recipe = dataclasses.replace(subject.recipes[0], **dict.fromkeys(_SEEDS, 0))
    return _cached_symmetry(recipe, tuple(subject.data.shape))


@functools.lru_cache(maxsize=16)
def _cached_symmetry(recipe: Recipe, shape: tuple[int, ...]) -> Symmetry:
    from isthmus.discover import discover

    return discover(build(recipe), torch.zeros(2, *shape))


_SEEDS = tuple(field.name for field in dataclasses.fields(Recipe) if field.name.endswith("_seed"))
