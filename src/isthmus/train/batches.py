"""Batches: which examples each replica sees at each step, and how they are altered.

The data stay where they are; a batch is a gather by index, and crop, flip and cutout are done in that same gather.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Int64
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.losses import IGNORED, check_labels
from isthmus.core.randomness import child_seed
from isthmus.train.recipe import Recipe
from isthmus.train.streams import draw, orders


class Examples(Protocol):
    """What training needs of a data set."""

    @property
    def train_inputs(self) -> Tensor:
        """Examples first."""
        ...

    @property
    def train_targets(self) -> Tensor:
        """Class numbers from 0, examples first."""
        ...

    @property
    def test_inputs(self) -> Tensor:
        """Of the same shape after the first axis."""
        ...

    @property
    def test_targets(self) -> Tensor:
        """Class numbers from 0."""
        ...

    @property
    def classes(self) -> int:
        """How many classes there are."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """One epoch of a group of replicas.

    Attributes:
        order: positions among a replica's own training examples, one row for each replica.
        alterations: for each position of the order: crop's row and column, flip, cutout's row and column.
    """

    order: Int64[Tensor, "replicas examples"]
    alterations: Int64[Tensor, "replicas examples 5"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The training set of a group of replicas on their device.

    Attributes:
        recipes: the replicas' recipes; they differ in seeds only.
        inputs: all training inputs, shared by the replicas.
        targets: each replica's labels for *all* examples, noise included; one row for all of them where they agree.
        subsets: which examples each replica uses; None where each uses all.
    """

    recipes: tuple[Recipe, ...]
    inputs: Tensor
    targets: Tensor
    subsets: Int64[Tensor, "replicas used"] | None

    @classmethod
    def of(cls, recipes: Sequence[Recipe], data: Examples, *, device: torch.device) -> Batches:
        """Lay out the data for a group.

        Raises:
            DataError: labels out of range, more examples wanted than there are, augmentation of what is no image.
        """
        recipe, targets = recipes[0], data.train_targets
        if recipe.loss == "cross_entropy":
            check_labels(targets, data.classes)
            if bool((targets == IGNORED).any()):  # each engine would have to count what it averages over
                raise DataError(f"training takes labels that all count, got {IGNORED}; only measures pass over these")
        if recipe.augmentation and data.train_inputs.dim() != 4:
            shape = tuple(data.train_inputs.shape[1:])
            raise DataError(f"augmentation needs images of (channels, height, width), got inputs of {shape}")
        if recipe.subset is not None and recipe.subset > len(targets):
            raise DataError(f"subset must be at most the {len(targets)} training examples, got {recipe.subset}")
        inputs = data.train_inputs.to(device)
        if inputs.is_floating_point():
            inputs = inputs.to(torch.float64 if recipe.precision == "float64" else torch.float32)
        different = recipes if recipe.label_noise else recipes[:1]
        labels = torch.stack([noisy_labels(targets.cpu(), one, classes=data.classes) for one in different]).to(device)
        subsets = None
        if recipe.subset is not None:
            subsets = torch.stack([_subset(one, len(targets)) for one in recipes]).to(device)
        return cls(tuple(recipes), inputs, labels, subsets)

    @property
    def examples(self) -> int:
        """Training examples that each replica uses."""
        return len(self.inputs) if self.subsets is None else self.subsets.shape[1]

    @property
    def batch_size(self) -> int:
        """Examples in a full batch."""
        return min(self.recipes[0].batch_size, self.examples)

    def select(self, indices: Sequence[int]) -> Batches:
        """The same data for some of the replicas, in the given order."""
        chosen = torch.tensor(list(indices), device=self.targets.device)
        return Batches(
            tuple(self.recipes[index] for index in indices),
            self.inputs,
            self.targets if len(self.targets) == 1 else self.targets.index_select(0, chosen),
            None if self.subsets is None else self.subsets.index_select(0, chosen),
        )

    def own(self, index: int) -> tuple[Tensor, Tensor]:
        """One replica's whole training set: its examples, unaltered, and its labels."""
        targets = self.targets[index if len(self.targets) > 1 else 0]
        if self.subsets is None:
            return self.inputs, targets
        return self.inputs[self.subsets[index]], targets[self.subsets[index]]

    def plan(self, epoch: int, *, apart: bool) -> Plan:
        """Order and alterations of one epoch; ``apart`` once replicas have left their common trunk."""
        device, count = self.inputs.device, self.examples
        order = orders([_seed(one, "order", epoch, apart) for one in self.recipes], count, device=device)
        if not self.recipes[0].augmentation:
            return Plan(order, None)
        seeds = [_seed(one, "augmentation", epoch, apart) for one in self.recipes]
        numbers = draw(seeds, count * 5, device=device).view(len(seeds), count, 5)
        height, width = self.inputs.shape[2:]
        padding = self.recipes[0].crop_padding
        limits = torch.tensor([2 * padding + 1, 2 * padding + 1, 2, height, width], device=device)
        return Plan(order, numbers % limits)

    def fetch(self, order: Tensor, alterations: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs and labels for positions ``(replicas, batch)`` of each replica's own examples."""
        examples = order if self.subsets is None else self.subsets.gather(1, order)
        labels = self.targets[0][examples] if len(self.targets) == 1 else _rows(self.targets, examples)
        if alterations is None:
            return _selected(self.inputs, examples), labels
        return self._altered(examples, alterations), labels

    def _altered(self, examples: Tensor, alterations: Tensor) -> Tensor:
        """Gather, crop, flip and cut out in one indexing operation: (replicas, batch, channels, height, width)."""
        recipe = self.recipes[0]
        height, width = self.inputs.shape[2:]
        rows = torch.arange(height, device=examples.device).expand(*examples.shape, height)
        columns = torch.arange(width, device=examples.device).expand(*examples.shape, width)
        shift_y, shift_x, flip, centre_y, centre_x = (part[..., None] for part in alterations.unbind(-1))
        kept = torch.ones((*examples.shape, height, width), dtype=torch.bool, device=examples.device)
        if "cutout" in recipe.augmentation:
            half = recipe.cutout_size // 2
            cut_y = (rows >= centre_y - half) & (rows < centre_y - half + recipe.cutout_size)
            cut_x = (columns >= centre_x - half) & (columns < centre_x - half + recipe.cutout_size)
            kept = ~(cut_y[..., :, None] & cut_x[..., None, :])
        if "flip" in recipe.augmentation:
            columns = torch.where(flip.bool(), width - 1 - columns, columns)
        if "crop" in recipe.augmentation:
            rows = rows + shift_y - recipe.crop_padding
            columns = columns + shift_x - recipe.crop_padding
            inside_y = (rows >= 0) & (rows < height)
            inside_x = (columns >= 0) & (columns < width)
            kept = kept & inside_y[..., :, None] & inside_x[..., None, :]
        images = self.inputs[
            examples[..., None, None],
            :,
            rows.clamp(0, height - 1)[..., :, None],
            columns.clamp(0, width - 1)[..., None, :],
        ]  # (replicas, batch, height, width, channels)
        return (images * kept[..., None]).movedim(-1, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Stretch:
    """Some steps of one epoch.

    Attributes:
        batches: the group's data.
        plan: the epoch's order.
        first: the first step, counted within the epoch.
        last: one past the last step, counted within the epoch.
        start: what the first step is counted over the whole training.
        rates: the learning rate of every step of the whole training, on the device.
    """

    batches: Batches
    plan: Plan
    first: int
    last: int
    start: int
    rates: Tensor

    def part(self, first: int, last: int) -> Stretch:
        """The same steps for some of the replicas."""
        alterations = self.plan.alterations
        plan = Plan(self.plan.order[first:last], None if alterations is None else alterations[first:last])
        return dataclasses.replace(self, batches=self.batches.select(range(first, last)), plan=plan)

    def to(self, last: int) -> Stretch:
        """The steps up to ``last`` only."""
        return dataclasses.replace(self, last=last)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of one step of the epoch, with a leading replica axis."""
        size = self.batches.batch_size
        part = slice(index * size, (index + 1) * size)
        alterations = self.plan.alterations
        return self.batches.fetch(self.plan.order[:, part], None if alterations is None else alterations[:, part])

    def size(self, index: int) -> int:
        """Examples in the batch of one step; the epoch's last may be smaller."""
        return min(self.batches.batch_size, self.batches.examples - index * self.batches.batch_size)

    def rates_here(self) -> list[float]:
        """The learning rates of these steps."""
        return self.rates[self.start : self.start + self.last - self.first].tolist()


def noisy_labels(targets: Tensor, recipe: Recipe, *, classes: int) -> Tensor:
    """The labels that a recipe trains on: exactly the rounded share of wrong ones, each another class, evenly drawn."""
    if not recipe.label_noise:
        return targets
    if targets.dim() != 1 or targets.is_floating_point():
        raise DataError(f"label_noise needs one class number for each example, got shape {tuple(targets.shape)}")
    count = round(recipe.label_noise * len(targets))
    chosen = orders([child_seed(recipe.label_noise_seed, "label noise", "which")], len(targets))[0, :count]
    shift = 1 + draw([child_seed(recipe.label_noise_seed, "label noise", "class")], count)[0] % max(1, classes - 1)
    noisy = targets.clone()
    noisy[chosen] = (targets[chosen] + shift) % classes
    return noisy


def _subset(recipe: Recipe, examples: int) -> Tensor:
    return orders([child_seed(recipe.subset_seed, "subset")], examples)[0, : recipe.subset]


def _seed(recipe: Recipe, purpose: str, epoch: int, apart: bool) -> int:
    """The stream of one epoch; after the spawn, what the recipe varies comes from the replica's own stream."""
    seed = recipe.order_seed if purpose == "order" else recipe.augmentation_seed
    if apart and recipe.spawn and purpose in recipe.spawn_vary:
        return child_seed(seed, purpose, "spawn", recipe.spawn_seed, epoch)
    return child_seed(seed, purpose, epoch)


def _selected(inputs: Tensor, examples: Tensor) -> Tensor:
    """Rows of all inputs; on a CPU selecting was measured to be up to four times as fast as indexing."""
    if inputs.device.type != "cpu":
        return inputs[examples]
    return inputs.index_select(0, examples.reshape(-1)).view(*examples.shape, *inputs.shape[1:])


def _rows(targets: Tensor, examples: Tensor) -> Tensor:
    """Labels of each replica's examples."""
    if targets.dim() == 2:
        return targets.gather(1, examples)
    replicas = torch.arange(len(targets), device=targets.device)[:, None]
    return targets[replicas, examples]
