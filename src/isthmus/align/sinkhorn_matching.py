"""Sinkhorn matching: descend a loss in the soft permutations themselves, then round."""

from __future__ import annotations

import dataclasses
import time
from typing import Literal

import torch
from torch import Tensor

from isthmus.align import soft
from isthmus.align.bound import upper_bound
from isthmus.align.descent import Best, draw, loss_on
from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, settings_of
from isthmus.align.straight_through import check_steps
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights

Loss = Literal["l2", "midpoint", "random_point"]


@dataclasses.dataclass(frozen=True, eq=False)
class SinkhornMatching:
    """One doubly stochastic matrix a group, parametrised by Sinkhorn's normalisation and trained by Adam.

    Losses: ``l2``, the squared distance of the weights (needs no data); ``midpoint``, the loss halfway between the
    networks; ``random_point``, the loss at a random place between them, a new one each step. The best rounded
    permutation is kept, weight matching's and the identity among them.

    Attributes:
        loss: what is descended.
        objective: needed for the two losses that look at data.
        steps: gradient steps.
        rate: Adam's step length, for logits in units of the temperature.
        temperature: how soft the matrices are; the start is a permutation at this temperature.
        batch_size: examples a step.
        every: steps between evaluations of the rounded permutation.

    Reference: Peña et al., "Re-basin via implicit Sinkhorn differentiation", arXiv 2212.12042, equations 8 to 10;
    here the iterations are differentiated as they are.
    """

    loss: Loss = "l2"
    objective: Objective | None = None
    steps: int = 100
    rate: float = 0.3
    temperature: float = 1.0
    batch_size: int = 256
    every: int = 10

    def __post_init__(self) -> None:
        check_steps(self.steps, self.rate, self.batch_size, self.every)
        if self.loss not in ("l2", "midpoint", "random_point"):
            raise SettingError(f"loss must be l2, midpoint or random_point, got {self.loss}")
        if self.loss != "l2" and self.objective is None:
            raise SettingError(f"the {self.loss} loss needs an objective, got none")
        if self.temperature <= 0:
            raise SettingError(f"temperature must be > 0, got {self.temperature}")

    def __call__(
        self,
        symmetry: Symmetry,
        moving: Weights,
        fixed: Weights,
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> Match:
        """Match two solutions; arguments as for :class:`WeightMatching`.

        Cost: for each step, 20 normalisations of each group's matrix, soft matrices times weights, and for the losses
        on data one network call, all forward and backward.
        """
        began = time.perf_counter()
        landscape = Landscape.of(symmetry, moving, fixed)
        judge = self._judge(landscape, moving, fixed)
        still = symmetry.identity()
        identity = judge(still)
        start = WeightMatching()(symmetry, moving, fixed, generator=generator).permutation
        kept, reached = max([(still, identity), (start, judge(start))], key=lambda pair: pair[1])
        history = [identity, reached]
        logits = self._begin(landscape, start)
        optimiser = torch.optim.Adam(list(logits.values()), lr=self.rate)
        for step in range(self.steps if logits else 0):
            optimiser.zero_grad()
            softs = {name: soft.sinkhorn(matrix / self.temperature) for name, matrix in logits.items()}
            self._value(landscape, softs, moving, fixed, generator).backward()
            optimiser.step()
            if (step + 1) % self.every == 0 or step + 1 == self.steps:
                rounded = soft.nearest(symmetry, logits)
                value = judge(rounded)
                if value > reached:
                    kept, reached = rounded, value
                history.append(reached)
            progress(step + 1, self.steps, "Sinkhorn")
        return Match(
            permutation=kept,
            objective=reached,
            identity_objective=identity,
            upper_bound=upper_bound(landscape) if self.loss == "l2" else float("nan"),
            measure="linear similarity of weights" if self.loss == "l2" else "minus the loss at the midpoint",
            sweeps=self.steps,
            status=Status.CONVERGED,
            unsettled=(),
            history=tuple(history),
            seconds={"all groups": time.perf_counter() - began},
            method="Sinkhorn",
            settings=settings_of(self),
        )

    def _begin(self, landscape: Landscape, start: Permutation) -> dict[str, Tensor]:
        """Logits whose matrices lean towards a permutation: mixed, with a clear favourite."""
        like = next(iter(landscape.fixed.values()), torch.zeros(1))
        hard = soft.hard(start, like)
        return {
            # The favourite gets as much as all the others together.
            name: (
                matrix * float(torch.tensor(max(len(matrix) - 1, 1)).log() + 0.5) * self.temperature
            ).requires_grad_()
            for name, matrix in hard.items()
        }

    def _value(
        self, landscape: Landscape, softs: soft.Soft, moving: Weights, fixed: Weights, generator: torch.Generator
    ) -> Tensor:
        """The loss of soft matrices."""
        if self.loss == "l2" or self.objective is None:
            mixed = soft.apply(landscape.symmetry, softs, dict(landscape.moving))
            parts = [(mixed[n] - landscape.fixed[n]).square().sum() for n in landscape.names]
            scale = max(landscape.scale / max(sum(m.shape[0] for m in softs.values()), 1), 1e-12)
            return torch.stack(parts).sum() / scale
        names = self.objective.network.parameter_names
        mixed = soft.apply(landscape.stacking.original, softs, {n: moving[n] for n in names})
        place = 0.5 if self.loss == "midpoint" else float(torch.rand((), generator=generator))
        between = {**fixed, **{n: torch.lerp(fixed[n], mixed[n].to(fixed[n].dtype), place) for n in names}}
        inputs, targets = draw(self.objective, self.batch_size, generator)
        return loss_on(self.objective, between, inputs, targets)

    def _judge(self, landscape: Landscape, moving: Weights, fixed: Weights):
        """How good a hard permutation is."""
        if self.loss == "l2" or self.objective is None:
            own = landscape.stacking.permutation
            return lambda p: landscape.objective({n: own(p).moved(n, landscape.moving[n]) for n in landscape.names})
        best = Best(self.objective, (fixed, moving))
        still = landscape.stacking.original.identity()
        return lambda p: -best.offer((still, p))
