"""The loss on the simplex of n solutions: do they lie in one convex basin, all of them at once?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.layers import Inputs
from isthmus.connect.paths import Simplex
from isthmus.connect.treatment import Statistics, refreshing
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.score import Score, Scores


@dataclasses.dataclass(frozen=True, eq=False)
class SimplexBarrier(Record):
    """Scores at points of a simplex.

    Attributes:
        coordinates: the shares of each point; the first is the centre, 1/n each.
        loss: mean loss at each point.
        metrics: further means.
        corners: each solution's own score.
        above: loss at each point minus the corners' losses mixed with its shares.
        height: the largest entry of ``above`` and 0, the simplex's loss barrier over these points.
        centre: ``above`` at the centre, signed: the loss of the average of all against their mean loss.
        mean_above: the mean of ``above`` over the random points.
        normalisation: the policy for running statistics.
    """

    coordinates: Float[Tensor, "points solutions"]
    loss: Float[Tensor, " points"]
    metrics: Mapping[str, Float[Tensor, " points"]]
    corners: tuple[Score, ...]
    above: Float[Tensor, " points"]
    height: float
    centre: float
    mean_above: float
    normalisation: str


def simplex_barrier(
    simplex: Simplex,
    objective: Objective,
    *,
    points: int = 30,
    generator: torch.Generator,
    normalisation: Statistics = "reestimate",
    inputs: Inputs | None = None,
    progress: Progress = silent,
) -> SimplexBarrier:
    """Evaluate an objective at the centre and at random points of a simplex, uniform over it.

    Args:
        simplex: of the solutions, aligned to each other if they shall be.
        objective: what is measured.
        points: random points, at least 3.
        generator: draws them.
        normalisation: ``reestimate`` running statistics over ``inputs``, or ``interpolate``.
        inputs: training inputs for the statistics.
        progress: told after every point.

    Raises:
        SettingError: fewer than three points, an unknown policy, or no data for it.
        WeightsError: NaN or infinities at a corner.

    Cost: points + 1 + n passes over the objective's data.

    Reference: the test of strong linear connectivity in Sharma et al., arXiv 2404.06498.
    """
    if points < 3:
        raise SettingError(f"points must be at least 3 to see inside the simplex, got {points}")
    refreshed = refreshing(objective, inputs, policy=normalisation)
    for index, solution in enumerate(simplex.solutions):
        algebra.check_finite(solution, what=f"solution {index}")
    shares = _shares(len(simplex.solutions), points, generator)
    scores: list[Score] = []
    for row in shares.tolist():
        scores.append(objective(refreshed(simplex(row))))
        progress(len(scores), len(shares), "simplex")
    corners = tuple(objective(solution) for solution in simplex.solutions)
    found = Scores.of(scores)
    above = found.loss - shares @ Scores.of(corners).loss
    return SimplexBarrier(
        coordinates=shares,
        loss=found.loss,
        metrics=found.metrics,
        corners=corners,
        above=above,
        height=float(above.clamp_min(0.0).max()),
        centre=float(above[0]),
        mean_above=float(above[1:].mean()),
        normalisation=normalisation,
    )


def _shares(corners: int, points: int, generator: torch.Generator) -> Float[Tensor, "points corners"]:
    """The centre and points drawn from the flat Dirichlet law: normalised exponentials."""
    # 1 − u avoids log 0.
    gaps = -(1.0 - torch.rand(points, corners, generator=generator, dtype=torch.float64)).log()
    return torch.cat([torch.full((1, corners), 1 / corners, dtype=torch.float64), gaps / gaps.sum(1, keepdim=True)])
