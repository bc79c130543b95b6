"""The two kinds of work in a study, as values that travel to where they run and bring back what the store keeps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.record import plain
from isthmus.core.weights import Weights
from isthmus.studies.factors.measures import MEASURES, SCORE, dataset, subject
from isthmus.studies.store.rows import Row
from isthmus.studies.store.stacked import FINAL
from isthmus.studies.store.store import Trained
from isthmus.train import Recipe, Replica, train
from isthmus.train.recipe import SCHEMA
from isthmus.zoo import build


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """A trained network on its way through a pipe or a network: weights as the bytes of a safetensors file."""

    key: str
    recipe: Mapping[str, Any]
    moments: Mapping[str, bytes]
    rows: tuple[Row, ...]
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, trained: Trained) -> Packed:
        """Pack."""
        moments = {moment: pack(weights) for moment, weights in trained.moments.items()}
        return cls(trained.key, trained.recipe, moments, trained.rows, trained.provenance)

    def unpacked(self) -> Trained:
        """Unpack."""
        moments = {moment: unpack(content) for moment, content in self.moments.items()}
        return Trained(self.key, self.recipe, moments, self.rows, self.provenance)


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """Train the networks of one group together.

    Attributes:
        recipes: as plain values.
        engine: how, see :func:`isthmus.train.train`.
        data_folder: where the published data files lie.
    """

    recipes: tuple[Mapping[str, Any], ...]
    engine: str = "auto"
    data_folder: str | None = None

    def run(self, *, device: str, progress: Progress = silent) -> list[Packed]:
        """Train and pack."""
        recipes = [recipe_of(recipe) for recipe in self.recipes]
        data = dataset(recipes[0].data, self.data_folder, device)
        replicas = train(recipes, module=build, data=data, engine=self.engine, device=device, progress=progress)
        made = provenance()
        return [Packed.of(_trained(replica, made, data.fingerprint, device)) for replica in replicas]


@dataclasses.dataclass(frozen=True)
class Question:
    """One measure of one network or pair.

    Attributes:
        measure: its name.
        settings: what it depends on in the study.
        keys: one or two runs; the row is kept with the first.
    """

    measure: str
    settings: Mapping[str, Any]
    keys: tuple[str, ...]

    @property
    def row_settings(self) -> dict[str, Any]:
        """The settings under which the row is kept: for a pair they name the other network."""
        return {**self.settings, "other": self.keys[1]} if len(self.keys) > 1 else dict(self.settings)


@dataclasses.dataclass(frozen=True, eq=False)
class MeasureJob:
    """Answer some questions about the same few networks.

    Attributes:
        questions: what to measure.
        recipes: of every network, by key.
        weights: of every network, packed, by key.
        data_folder: where the published data files lie.
    """

    questions: tuple[Question, ...]
    recipes: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, bytes]
    data_folder: str | None = None

    def run(self, *, device: str, progress: Progress = silent) -> list[tuple[str, Row]]:
        """Measure; each row comes with the key that it belongs to."""
        recipes = {key: recipe_of(recipe) for key, recipe in self.recipes.items()}
        weights = {key: unpack(content) for key, content in self.weights.items()}
        found = []
        for index, question in enumerate(self.questions):
            progress(index, len(self.questions), question.measure)
            measure = MEASURES[question.measure]
            asked = subject(
                [recipes[key] for key in question.keys],
                [weights[key] for key in question.keys],
                data_folder=self.data_folder,
                device=device,
            )
            value = plain(measure.function(asked, question.settings))
            units = ", ".join(dict.fromkeys(unit for unit in measure.columns.values() if unit))
            row = Row(measure.name, measure.version, question.row_settings, value, units)
            found.append((question.keys[0], row))
        return found


def recipe_of(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that a store's ``recipe.json`` holds."""
    return Recipe.from_dict({name: value for name, value in stored.items() if name != "schema"})


def key_of(stored: Mapping[str, Any]) -> str:
    """The key of a stored recipe, from its own fields and schema, so that recipes of older versions keep theirs."""
    text = json.dumps(dict(stored), sort_keys=True, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def pack(weights: Weights) -> bytes:
    """Weights as the bytes of a safetensors file."""
    from safetensors.torch import save

    # Views are copied: a slice of a group's tensors would take the whole group along.
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()})


def unpack(content: bytes) -> dict[str, Any]:
    """The inverse of :func:`pack`, with the names sorted."""
    from safetensors.torch import load

    # The reader gives names in an order of its own that changes from process to process, and tensors at any address;
    # sums over names and vectorised sums over entries would round differently each time.
    found = load(content)
    return {name: found[name].clone() for name in sorted(found)}


def _trained(replica: Replica, made: Mapping[str, Any], fingerprint: str, device: str) -> Trained:
    """What the store keeps of a replica: all its weights, how it went, and the scores that training ended with."""
    moments: dict[str, Weights] = {f"step-{step}": weights for step, weights in replica.checkpoints.items()}
    for number, level in enumerate(replica.levels):
        moments |= {f"level-{number}": level.weights, f"level-{number}-mask": level.masks}
    if replica.masks:
        moments["mask"] = replica.masks
    rows = [Row("training_curve", 1, {}, plain(replica.history), "nats")]
    if replica.train is not None and replica.test is not None:
        value = {
            "training_loss": replica.train.loss,
            "training_error": replica.train.error,
            "test_loss": replica.test.loss,
            "test_error": replica.test.error,
        }
        rows.append(Row(SCORE.name, SCORE.version, {}, plain(value), "nats, share"))
    recipe = replica.recipe
    how = {"status": replica.status.value, "engine": replica.engine, "seconds": replica.seconds, "notes": replica.notes}
    place = {"device": device, "data": fingerprint}
    stored = {"schema": SCHEMA, **recipe.to_dict()}
    return Trained(recipe.key(), stored, {**moments, FINAL: replica.weights}, tuple(rows), {**made, **how, **place})
