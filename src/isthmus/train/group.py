"""A group of recipes that differ in seeds only, on its way to replicas: common trunk, pruning rounds, results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from isthmus.core.errors import IsthmusError, SettingError, first_line
from isthmus.core.objective import Score
from isthmus.core.progress import Progress, within
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.weights import Weights
from isthmus.train import prune
from isthmus.train.batches import Batches, Examples
from isthmus.train.evaluate import evaluate
from isthmus.train.recipe import Recipe
from isthmus.train.run import Epoch, Run
from isthmus.train.task import Build, State, Task, prepare


@dataclasses.dataclass(frozen=True)
class Level(Record):
    """One round of iterative pruning.

    Attributes:
        density: share of the prunable weights that remain.
        weights: at the end of the round.
        masks: True where a weight may be non-zero, by tensor name.
    """

    density: float
    weights: Weights = dataclasses.field(metadata={"record": False})
    masks: Mapping[str, Tensor] = dataclasses.field(metadata={"record": False})


@dataclasses.dataclass(frozen=True)
class Replica(Record):
    """One trained network.

    Attributes:
        recipe: what it was trained by.
        weights: the whole state dict at the end.
        checkpoints: the state dict after the recipe's checkpoint steps.
        history: for every epoch, the mean loss of its batches as trained (augmented, with noisy labels).
        train: loss and error in evaluation mode on the recipe's own training examples and labels; None if not
            asked for.
        test: the same on the test set.
        status: STOPPED after the recipe's steps, DIVERGED if a loss or a weight left the finite range.
        levels: the rounds of pruning, dense first; empty without pruning.
        masks: the final masks; empty for a dense network.
        engine: how it was trained.
        notes: what the engine's choice had to say, such as why a module could not be vectorised.
        seconds: this replica's share of the wall-clock time.
    """

    recipe: Recipe
    weights: Weights = dataclasses.field(metadata={"record": False})
    checkpoints: Mapping[int, Weights] = dataclasses.field(metadata={"record": False})
    history: tuple[Epoch, ...]
    train: Score | None
    test: Score | None
    status: Status
    levels: tuple[Level, ...]
    masks: Mapping[str, Tensor] = dataclasses.field(metadata={"record": False})
    engine: str
    notes: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        score = f", test loss {self.test.loss:.4g}" if self.test is not None else ""
        return f"<Replica of {self.recipe.network} on {self.recipe.data}: {self.status.name.lower()}{score}>"

    @property
    def diverged(self) -> bool:
        """Whether it left the finite range."""
        return self.status is Status.DIVERGED


class Group:
    """Recipes that differ in seeds only, on their way to replicas."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        data: Examples,
        module: Build | nn.Module,
        *,
        device: torch.device,
        engine: str,
        scores: str,
        progress: Progress,
    ) -> None:
        self.recipes, self.recipe, self.data = list(recipes), recipes[0], data
        self.device, self.engine, self.scores, self.progress = device, engine, scores, progress
        # Replicas with one trunk are trained once up to the spawn, so they share it exactly.
        trunks = [dataclasses.replace(recipe, spawn_seed=0).key() for recipe in recipes]
        first: dict[str, int] = {}
        for index, key in enumerate(trunks):
            first.setdefault(key, index)
        self.stems = list(first.values())
        self.stem_of = [list(first).index(key) for key in trunks]
        self.batches = Batches.of(recipes, data, device=device)
        self.total = self.recipe.total_steps(self.batches.examples)
        self._check_steps()
        self.task, self.state = self._prepared(module)

    def train(self) -> list[Replica]:
        """All replicas of the group."""
        begin = time.perf_counter()
        told = within(self.progress, 0, self.total + self._scoring, share=self.total)
        run = Run(self.task, self.data, total=self.total, engine=self.engine, scores=self.scores, progress=told)
        levels: list[list[Level]] = [[] for _ in self.recipes]
        if self.recipe.pruning_levels:
            self._prune(run, levels)
        else:
            self._plain(run)
        seconds = (time.perf_counter() - begin) / len(self.recipes)
        return self._replicas(run, levels, seconds)

    def _plain(self, run: Run) -> None:
        spawn = min(self.recipe.spawn, self.total)
        if not spawn:
            run.advance(self.state, self.batches, until=self.total, apart=False)
            return
        stems = self.state.select(self.stems)
        run.advance(stems, self.batches.select(self.stems), until=spawn, apart=False)
        self.state = stems.select(self.stem_of)
        run.split(self.stem_of)
        if "perturbation" in self.recipe.spawn_vary:
            self._kick()
        run.advance(self.state, self.batches, until=self.total, apart=True)

    def _kick(self) -> None:
        """Move each replica by a Gaussian step of the recipe's relative length, in a direction of its own."""
        from isthmus.core.randomness import child

        for index, recipe in enumerate(self.recipes):
            generator = child(recipe.initialisation_seed, "perturbation", recipe.spawn_seed)
            weights = [parameter[index] for parameter in self.state.parameters]
            noise = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for w in weights]
            length = torch.stack([w.double().square().sum() for w in weights]).sum().sqrt()
            scale = recipe.perturbation * length / torch.stack([n.double().square().sum() for n in noise]).sum().sqrt()
            for weight, direction in zip(weights, noise, strict=True):
                weight.add_(direction * scale.to(weight))

    def _prune(self, run: Run, levels: list[list[Level]]) -> None:
        if not self.state.masks:
            self.state.masks = [torch.ones_like(parameter) for parameter in self.state.parameters]
        start: State | None = None
        for level in range(self.recipe.pruning_levels + 1):
            if start is None:
                run.advance(self.state, self.batches, until=self.recipe.rewind, apart=False)
                start = self.state.clone()
            run.advance(self.state, self.batches, until=self.total, apart=False)
            self._keep_level(levels)
            if level == self.recipe.pruning_levels:
                return
            masks = prune.magnitude_masks(self.state.parameters, self.state.masks, rate=self.recipe.pruning_rate)
            self.state = start.clone()
            self.state.masks = masks
            self.state.parameters = [p * m for p, m in zip(self.state.parameters, masks, strict=True)]
            # The optimiser's memory goes back too; without its mask, momentum would move what was removed.
            self.state.memory = [[t * m for t, m in zip(part, masks, strict=True)] for part in self.state.memory]
            run.rewind(self.recipe.rewind)

    def _keep_level(self, levels: list[list[Level]]) -> None:
        densities = prune.density(self.state.parameters, self.state.masks)
        for index, kept in enumerate(levels):
            kept.append(Level(densities[index], self.task.export(self.state, index), self._masks(index)))

    def _masks(self, index: int) -> dict[str, Tensor]:
        if not self.state.masks:
            return {}
        chosen = zip(self.task.parameters, self.state.masks, prune.prunable(self.state.parameters), strict=True)
        return {name: mask[index].bool().cpu() for name, mask, yes in chosen if yes}

    def _replicas(self, run: Run, levels: list[list[Level]], seconds: float) -> list[Replica]:
        replicas = []
        train, test = self._scores()
        for index, recipe in enumerate(self.recipes):
            weights = self.task.export(self.state, index)
            finite = all(bool(torch.isfinite(t).all()) for t in weights.values() if t.is_floating_point())
            diverged = index in run.diverged or not finite
            replicas.append(
                Replica(
                    recipe,
                    weights,
                    {step: saved[index] for step, saved in run.checkpoints.items()},
                    tuple(run.history[index]),
                    train[index] if train else None,
                    test[index] if test else None,
                    Status.DIVERGED if diverged else Status.STOPPED,
                    tuple(levels[index]),
                    self._masks(index),
                    run.engine,
                    tuple(run.notes),
                    seconds,
                )
            )
        return replicas

    def _scores(self) -> tuple[list[Score] | None, list[Score] | None]:
        if self.scores == "never":
            return None, None
        told = within(self.progress, self.total, self.total + self._scoring, share=self._scoring, label="scores")
        return evaluate(self.task, self.state, self.batches, self.data, progress=told)

    @property
    def _scoring(self) -> float:
        """What the scores at the end cost, in steps: a pass forwards is a third of one that also goes backwards."""
        examples = self.batches.examples + len(self.data.test_targets)
        return 0.0 if self.scores == "never" else examples / self.recipe.batch_size / 3

    def _prepared(self, module: Build | nn.Module) -> tuple[Task, State]:
        try:
            task, state = prepare(
                self.recipes, module, self.batches.inputs[:2], classes=self.data.classes, device=self.device
            )
        except IsthmusError:
            raise
        except Exception as problem:
            reason = first_line(problem)
            shape = tuple(self.batches.inputs.shape[1:])
            hint = "; isthmus.zoo.suited makes whole numbers tokens" if _tokens(self.batches.inputs[:2]) else ""
            raise SettingError(
                f"{self.recipe.network} does not take inputs of shape {shape}: {reason}{hint}"
            ) from problem
        if self.recipe.sparsity:
            state.masks = prune.random_masks(self.recipes, state.parameters)
            state.parameters = [p * m for p, m in zip(state.parameters, state.masks, strict=True)]
        return task, state

    def _check_steps(self) -> None:
        for name, last in {"spawn": self.recipe.spawn, "rewind": self.recipe.rewind}.items():
            if last > self.total:
                raise SettingError(f"{name} must lie within the {self.total} steps of the training, got {last}")
        if beyond := [step for step in self.recipe.checkpoints if step > self.total]:
            raise SettingError(f"checkpoints must lie within the {self.total} steps of the training, got {beyond[0]}")


def _tokens(inputs: Tensor) -> bool:
    """Whether real numbers may be meant as numbers of tokens."""
    return inputs.is_floating_point() and bool((inputs == inputs.round()).all() & (inputs >= 0).all())
