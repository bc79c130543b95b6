"""The trainings of the study of continual learning, and the measurements along the lines between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connect import reestimate
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, within
from isthmus.core.randomness import child_seed
from isthmus.core.weights import Weights, lerp, stack, to
from isthmus.train import Recipe, train
from isthmus.zoo.data import Data
from isthmus.zoo.models import build

# arm → the networks at its two ends
ENDS: Mapping[str, tuple[str, str]] = {
    "shared": ("first", "again"),
    "parallel": ("first", "second"),
    "incremental": ("first", "after"),
    "doubled": ("first", "longer"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Ends:
    """Trained networks by name; each has one set of weights for every replica."""

    networks: Mapping[str, Sequence[Weights]]

    def start(self, arm: str) -> Sequence[Weights]:
        """What lies at α = 0."""
        return self.networks[ENDS[arm][0]]

    def end(self, arm: str) -> Sequence[Weights]:
        """What lies at α = 1."""
        return self.networks[ENDS[arm][1]]


class Trainings:
    """All trainings of one study; the replicas of each are trained together."""

    def __init__(
        self, recipe: Recipe, task: Mapping[str, Any], replicas: int, device: str | torch.device, progress: Progress
    ) -> None:
        if bad := [name for name in task if name in ("network", "settings", "data", "precision")]:
            raise SettingError(f"a task continues the base's own network, so it must not set {bad[0]}")
        self.base_recipe, self._task, self._count = recipe, dict(task), replicas
        self._device, self._progress = device, progress
        self._done, self._total = 0.0, 1.0

    def run(
        self, data: Data, tasks: Sequence[Data], *, controls: bool, learned: Callable[[Ends, str], None] | None = None
    ) -> Ends:
        """Train the base and every end.

        Args:
            data: of the base.
            tasks: the first and the second.
            controls: also train jointly and with replay.
            learned: called with what there is and the name of a task's first end as soon as that is trained; may
                refuse, before the rest is paid for.

        Raises:
            SettingError: a network diverged; names it.
        """
        # In units of one task's training.
        self._total = 7.0 + (3.0 if controls else 0.0)
        first, second = tasks
        found: dict[str, list[Weights]] = {}
        found["base"] = self._kept("base", self.base_recipe.replicates(self._count), data, build, 1.0)
        base = found["base"]
        found["first"] = self.continued("first", first, base)
        if learned is not None:
            learned(Ends(found), "first")
        found["second"] = self.continued("second", second, base)
        if learned is not None:
            learned(Ends(found), "second")
        found["again"] = self.continued("again", first, base)
        found["longer"] = self.continued("longer", second, base, order="second", factor=2, cost=2.0)
        # The order of the second task's examples is that of the parallel arm: only the start differs.
        found["after"] = self.continued("after", second, found["first"], order="second")
        if controls:
            found["joint"] = self.continued("joint", joined([first, second]), base, cost=2.0)
            found["replay"] = self.continued("replay", replayed(first, second), found["first"])
        return Ends(found)

    def fresh(self, data: Data) -> tuple[list[Weights], list[Weights]]:
        """Networks trained on a first task by the base's recipe, and their initialisations."""
        recipes = self.base_recipe.replicates(self._count)
        initial: list[Weights] = [to(build(recipe).state_dict(), device=self._device) for recipe in recipes]
        return self._kept("first task", recipes, data, build, 1.0), initial

    def task_recipe(self, replica: int, order: str, *, factor: int = 1) -> Recipe:
        """One replica's recipe of a task; its examples come in an order of their own."""
        recipe = Recipe.from_dict({**self.base_recipe.to_dict(), **self._task})
        longer = {"epochs": recipe.epochs * factor}
        if recipe.steps is not None:
            longer["steps"] = recipe.steps * factor
        seeds = {
            "initialisation_seed": replica,
            "order_seed": child_seed(replica, "continual", "order", order) >> 15,
            "augmentation_seed": child_seed(replica, "continual", "augmentation", order) >> 15,
        }
        return dataclasses.replace(recipe, **longer, **seeds)

    def continued(
        self,
        name: str,
        data: Data,
        starts: Sequence[Weights],
        *,
        order: str | None = None,
        factor: int = 1,
        cost: float = 1.0,
    ) -> list[Weights]:
        """Train on from given weights, one set for each replica; ``cost`` is for the progress alone."""
        recipes = [self.task_recipe(replica, order or name, factor=factor) for replica in range(self._count)]
        own = {recipe.key(): weights for recipe, weights in zip(recipes, starts, strict=True)}

        def module(recipe: Recipe) -> nn.Module:
            made = build(recipe)
            made.load_state_dict(dict(own[recipe.key()]))
            return made

        return self._kept(name, recipes, data, module, cost)

    def _kept(self, name: str, recipes: Sequence[Recipe], data: Data, module: Any, cost: float) -> list[Weights]:
        replicas = train(
            recipes, data=data, module=module, device=self._device, scores="never",
            progress=within(self._progress, self._done, self._total, share=cost, label=f"training {name}"),
        )  # fmt: skip
        self._done += cost
        if lost := [place for place, replica in enumerate(replicas) if replica.diverged]:
            raise SettingError(f"every network must train without diverging, but {name}, replica {lost[0]} did; "
                               "lower the rate")  # fmt: skip
        return [to(replica.weights, device=self._device) for replica in replicas]


class Bench:
    """Accuracy on every probe, of networks and of everything on the line between two of them.

    Merged networks with BatchNorm have their statistics estimated anew on ``inputs``; the ends keep their own.
    """

    def __init__(
        self, network: Network, objectives: Mapping[tuple[str, str], Objective], inputs: Tensor, points: int
    ) -> None:
        self.network, self._objectives, self._inputs = network, objectives, inputs
        self.positions = tuple(number / (points - 1) for number in range(points))

    def along(self, starts: Sequence[Weights], ends: Sequence[Weights]) -> dict[tuple[str, str], Tensor]:
        """Probe → accuracy, (replicas, positions)."""
        lines = [stack([self.mixed(a, b, t) for t in self.positions]) for a, b in zip(starts, ends, strict=True)]
        return {
            probe: torch.stack([1 - objective.many(line).error for line in lines])
            for probe, objective in self._objectives.items()
        }

    def at(self, networks: Sequence[Weights]) -> dict[tuple[str, str], Tensor]:
        """Probe → accuracy, (replicas, 1)."""
        return {probe: self.accuracy(networks, probe) for probe in self._objectives}

    def accuracy(self, networks: Sequence[Weights], probe: tuple[str, str]) -> Float[Tensor, "replicas 1"]:
        """The accuracy on one probe."""
        objective = self._objectives[probe]
        return torch.tensor([[1 - objective(weights).error] for weights in networks], dtype=torch.float64)

    def mixed(self, start: Weights, end: Weights, t: float = 0.5) -> Weights:
        """The network at t, ready to be used."""
        weights = lerp(start, end, t)
        if self.network.has_batch_statistics and 0.0 < t < 1.0:
            return reestimate(self.network, weights, self._inputs)
        return weights

    def ends_of(self, arm: str) -> tuple[str, str]:
        """The names of an arm's two networks."""
        return ENDS[arm]


def joined(parts: Sequence[Data]) -> Data:
    """The examples of several tasks as one."""
    first = parts[0]
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("train_inputs", "train_targets", "test_inputs", "test_targets")
    }
    return dataclasses.replace(first, **tensors, name=" and ".join(part.name for part in parts))


def replayed(earlier: Data, later: Data) -> Data:
    """The later task, every second example of which comes from the earlier one instead; as many steps as before."""
    swap = torch.arange(len(later.train_targets), device=later.train_targets.device) % 2 == 1
    swap[len(earlier.train_targets) :] = False
    inputs, targets = later.train_inputs.clone(), later.train_targets.clone()
    places = swap.nonzero().flatten()
    inputs[places], targets[places] = earlier.train_inputs[places], earlier.train_targets[places]
    return dataclasses.replace(
        later, train_inputs=inputs, train_targets=targets, name=f"{later.name} and {earlier.name} replayed"
    )
