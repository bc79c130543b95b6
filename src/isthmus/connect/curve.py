"""Scores along one path: found as they are asked for, many at once where that is faster, closer where it bends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from isthmus.connect.grid import gaps
from isthmus.connect.known import Known
from isthmus.connect.measures import Measures
from isthmus.connect.paths import Line, Path
from isthmus.connect.treatment import Treatment
from isthmus.core import weights as algebra
from isthmus.core.objective import Objective
from isthmus.core.portions import Portions
from isthmus.core.progress import Progress
from isthmus.core.score import Score
from isthmus.core.status import Status
from isthmus.core.weights import Weights


@dataclasses.dataclass(eq=False)
class Curve:
    """The scores known so far along one path, and the ways to find more."""

    path: Path
    objective: Objective
    treat: Treatment
    measures: Measures
    known: Known
    together: int | None
    progress: Progress
    scores: dict[float, Score] = dataclasses.field(default_factory=dict)
    buffers: dict[str, Tensor] | None = None

    def add(self, positions: Sequence[float]) -> None:
        """Score further positions: one by one on a CPU, many at once on a GPU, the ends always by themselves."""
        missing = [t for t in positions if t not in self.scores]
        wanted = len(self.scores) + len(missing)
        # Many at once may round otherwise; an end shall have the very value that the objective gives it alone.
        inner = [t for t in missing if t not in (0.0, 1.0)]
        device = next(iter(self.path(0.0).values())).device
        portions = Portions(self.together or (1 if device.type == "cpu" else None))

        def score(some: Sequence[float]) -> None:
            self.scores.update(zip(some, self._score(some), strict=True))
            self.progress(len(self.scores), wanted, "path")

        for end in (t for t in missing if t in (0.0, 1.0)):
            self.scores[end] = self._end(end, treated=False)
            self.progress(len(self.scores), wanted, "path")
        portions(len(inner), lambda part: score(inner[part]))

    def refine(self, bound: float, most: int) -> Status:
        """Halve every interval that may hide a barrier higher by more than the bound."""
        while True:
            grid = sorted(self.scores)
            positions = torch.tensor(grid, dtype=torch.float64)
            loss = torch.tensor([self.scores[t].loss for t in grid], dtype=torch.float64)
            if not bool(torch.isfinite(loss).all()):
                return Status.DIVERGED
            hidden = gaps(positions, loss)
            worst = [int(i) for i in hidden.argsort(descending=True) if float(hidden[i]) > bound]
            if not worst:
                return Status.CONVERGED
            if len(grid) >= most:
                return Status.STOPPED
            self.add([(grid[i] + grid[i + 1]) / 2 for i in worst[: most - len(grid)]])

    def treated_ends(self) -> tuple[Score, Score] | None:
        """The scores of both ends when they are treated like inner points."""
        if not self.treat.layers:
            return None
        return self._end(0.0, treated=True), self._end(1.0, treated=True)

    def _end(self, t: float, *, treated: bool) -> Score:
        """An end's score, as it is or treated as inner points are, which it may have from another path."""
        weights = self.path(t)

        def score() -> Score:
            return self._one(self.treat(weights, t) if treated else weights)

        # Further measures compare with this path's own ends.
        return score() if self.measures.wanted else self.known("treated" if treated else "plain", weights, score)

    def _one(self, weights: Weights) -> Score:
        """One point's score with the further measures in it."""
        score = self.objective(weights)
        return dataclasses.replace(score, metrics={**score.metrics, **self.measures(weights)})

    def _score(self, positions: Sequence[float]) -> list[Score]:
        if len(positions) == 1 or self.measures.wanted:
            return [self._one(weights) for weights in self._weights(positions)]
        scores = self.objective.many(algebra.stack(list(self._weights(positions))), together=True)
        return [scores[index] for index in range(len(positions))]

    def _weights(self, positions: Sequence[float]) -> Iterator[Weights]:
        reuse = isinstance(self.path, Line) and (len(positions) == 1 or bool(self.measures.wanted))
        for t in positions:
            yield self.treat(self._reused(t) if reuse else self.path(t), t)

    def _reused(self, t: float) -> Weights:
        """The point of a line in memory that the next point overwrites."""
        assert isinstance(self.path, Line)
        if self.buffers is None:
            self.buffers = self.path.buffers()
        return self.path.write(t, self.buffers)
