"""Straight-through estimation: descend the loss between networks through the projection onto permutations."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.align.ascent import Ascent
from isthmus.align.descent import Best, draw, loss_on
from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, settings_of
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class StraightThrough:
    """Find the permutation whose midpoint has the smallest loss, starting from weight matching.

    A latent copy of the weights is trained. Forwards it is replaced by the permuted solution nearest to it; backwards
    the gradient passes as if it had not been. The permutation with the smallest loss over the whole objective is kept,
    weight matching's and the identity among them.

    Attributes:
        objective: what is descended; its examples are drawn with replacement.
        steps: gradient steps (Adam).
        rate: their length, as a share of the root mean square of the weights.
        batch_size: examples a step.
        every: steps between evaluations of the current permutation.

    Reference: Ainsworth et al., arXiv 2209.04836, algorithm 2.
    """

    objective: Objective
    steps: int = 100
    rate: float = 0.01
    batch_size: int = 256
    every: int = 10

    def __post_init__(self) -> None:
        check_steps(self.steps, self.rate, self.batch_size, self.every)

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

        Cost: for each step one gradient and one projection (a coordinate ascent from the last permutation); for each
        evaluation one pass over the objective.
        """
        began = time.perf_counter()
        start = WeightMatching()(symmetry, moving, fixed, generator=generator)
        best = Best(self.objective, (fixed, moving))
        still = symmetry.identity()
        identity_loss = best.offer((still, still))
        best.offer((still, start.permutation))
        descend(self, symmetry, best, [still, start.permutation], frozen=1, generator=generator, progress=progress)
        return Match(
            permutation=best.permutations[1],
            objective=-best.loss,
            identity_objective=-identity_loss,
            upper_bound=float("nan"),
            measure="minus the loss at the midpoint",
            sweeps=self.steps,
            status=Status.CONVERGED,
            unsettled=(),
            history=tuple(best.history),
            seconds={"all groups": time.perf_counter() - began},
            method="straight-through estimator",
            settings=settings_of(self),
        )


def descend(
    method: StraightThrough,
    symmetry: Symmetry,
    best: Best,
    starts: Sequence[Permutation],
    *,
    frozen: int,
    generator: torch.Generator,
    progress: Progress = silent,
) -> None:
    """Train the latent weights of all solutions but the first ``frozen`` ones, offering what is found to ``best``.

    Two solutions meet at their midpoint; more meet at a random point of their simplex, a new one each step.
    """
    current = list(starts)
    moved = [p.apply(solution) for p, solution in zip(current, best.solutions, strict=True)]
    names = [n for n in best.objective.network.parameter_names if moved[0][n].is_floating_point()]
    latent = [{n: weights[n].detach().clone().requires_grad_() for n in names} for weights in moved[frozen:]]
    groups = [
        {"params": [tensor], "lr": method.rate * float(tensor.detach().square().mean().sqrt().clamp_min(1e-6))}
        for tensors in latent
        for tensor in tensors.values()
    ]
    optimiser = torch.optim.Adam(groups)
    for step in range(method.steps):
        points = [dict(moved[i]) for i in range(frozen)]
        for place, tensors in enumerate(latent):
            source = frozen + place
            current[source] = _project(symmetry, best.solutions[source], tensors, current[source], generator)
            moved[source] = current[source].apply(best.solutions[source])
            through = {n: moved[source][n].detach() + (t - t.detach()) for n, t in tensors.items()}
            points.append({**moved[source], **through})
        shares = _shares(len(points), generator)
        mixed = dict(points[0])
        for name in names:
            mixed[name] = torch.stack([w * point[name] for w, point in zip(shares, points, strict=True)]).sum(0)
        inputs, targets = draw(best.objective, method.batch_size, generator)
        optimiser.zero_grad()
        loss_on(best.objective, mixed, inputs, targets).backward()
        optimiser.step()
        if (step + 1) % method.every == 0 or step + 1 == method.steps:
            best.offer(current)
        progress(step + 1, method.steps, "straight-through")


def check_steps(steps: int, rate: float, batch_size: int, every: int) -> None:
    """Refuse settings of a descent that are out of range."""
    if min(steps, batch_size, every) < 1 or rate <= 0:
        given = f"{steps}, {batch_size}, {every} and {rate}"
        raise SettingError(f"steps, batch_size and every must be ≥ 1 and rate > 0, got {given}")


def _project(
    symmetry: Symmetry, solution: Weights, latent: Weights, last: Permutation, generator: torch.Generator
) -> Permutation:
    """The permutation that brings a solution nearest to the latent weights, climbing from the last one."""
    target = {**solution, **{name: tensor.detach() for name, tensor in latent.items()}}
    ascent = Ascent.at(Landscape.of(symmetry, solution, target), last, generator=generator)
    ascent.climb(sweeps=20)
    return ascent.answer


def _shares(count: int, generator: torch.Generator) -> list[float]:
    """The midpoint for two; for more, a point drawn uniformly from the simplex."""
    if count == 2:
        return [0.5, 0.5]
    draws: Tensor = -torch.rand(count, generator=generator).clamp_min(1e-12).log()
    return (draws / draws.sum()).tolist()
