"""The memory that a captured training step reads and writes, for one or more replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from isthmus.train.batches import Batches
from isthmus.train.engines import Stretch
from isthmus.train.task import State


class Tape:
    """Every tensor that a branch of a captured step reads or writes; they must live as long as the graph does.

    Attributes:
        state: weights that the branch trains.
        stream: where the branch is captured.
        place: the step within the epoch, on the device.
        step: the step within the whole training, on the device.
    """

    def __init__(self, state: State, stretch: Stretch, stream: torch.cuda.Stream) -> None:
        self.state, self.stream = state, stream
        # Labels and subsets of its own: the next chunk of replicas brings others.
        self.batches = dataclasses.replace(stretch.batches, **_rows(stretch.batches, torch.clone))
        self.order = stretch.plan.order.clone()
        alterations = stretch.plan.alterations
        self.alterations = None if alterations is None else alterations.clone()
        self.rates = stretch.rates.clone()
        device = state.losses.device
        self.place = torch.zeros((), dtype=torch.int64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)

    def load(self, state: State, stretch: Stretch) -> None:
        """Set the graph's memory to where a stretch begins.

        Fewer replicas than the graph trains are the first ones; what is done to the others is nobody's.
        """
        count = state.count
        own = self.state.part(0, count)
        own.copy_(state)
        if own.masks:
            torch._foreach_copy_(own.masks, state.masks)  # another round of pruning has others
        self.order[:count].copy_(stretch.plan.order)
        if self.alterations is not None and stretch.plan.alterations is not None:
            self.alterations[:count].copy_(stretch.plan.alterations)
        theirs = _rows(stretch.batches, lambda tensor: tensor)
        for name, tensor in _rows(self.batches, lambda tensor: tensor[:count]).items():
            tensor.copy_(theirs[name])
        self.rates.copy_(stretch.rates)
        self.place.fill_(stretch.first)
        self.step.fill_(stretch.start)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """The batch at the present place."""
        positions = self.place * self.batches.batch_size + torch.arange(size, device=self.place.device)
        order = self.order.index_select(1, positions)
        alterations = None if self.alterations is None else self.alterations.index_select(1, positions)
        return self.batches.fetch(order, alterations)

    def rate(self) -> Tensor:
        """The learning rate at the present step."""
        return self.rates.index_select(0, self.step.view(1)).squeeze(0)

    def back(self, marks: tuple[Tensor, Tensor]) -> None:
        """Set the counters."""
        self.place.copy_(marks[0])
        self.step.copy_(marks[1])


def _rows(batches: Batches, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What of a group's data differs from replica to replica, changed."""
    found = {"targets": batches.targets if batches.recipes[0].label_noise else None, "subsets": batches.subsets}
    return {name: change(tensor) for name, tensor in found.items() if tensor is not None}
