"""Many straight lines at once: all points of all lines go through the network in a few large calls.

A small network's forward pass is a few short kernels, and a GPU that is given one point of one pair at a time waits for
Python. Here a block of lines becomes one stacked set of weights, so that 66 pairs of 25 points take a few dozen calls
instead of thousands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.connect.barrier import Barrier, kinds
from isthmus.connect.grid import grid_of
from isthmus.connect.known import Known
from isthmus.connect.layers import statistics_layers
from isthmus.connect.paths import Line
from isthmus.core import weights as algebra
from isthmus.core.objective import Objective
from isthmus.core.portions import Portions
from isthmus.core.score import Score, Scores
from isthmus.core.weights import Weights

_UNDERSTOOD = {"points", "positions", "together", "normalisation", "inputs", "layers", "sequential", "most", "known"}
_MOST = 512  # points at once, where the caller does not say: beyond, a GPU has long been busy all the time


def takes_together(objective: Objective, solutions: Sequence[Weights], **settings: object) -> bool:
    """Whether lines with these settings of :func:`isthmus.connect.barrier` may be measured together.

    They may where nothing is done to a point but to evaluate it (no statistics to estimate, no further measures, no
    grid that grows), and it pays: on a GPU, or where the caller asks for more points ``together`` than one.
    """
    if any(value not in (None, ()) for name, value in settings.items() if name not in _UNDERSTOOD):
        return False
    policy = settings.get("normalisation", "reestimate")
    if policy != "interpolate" and (policy != "reestimate" or statistics_layers(objective.network)):
        return False
    together = settings.get("together")
    if together is None:
        return next(iter(solutions[0].values())).device.type != "cpu"
    return isinstance(together, int) and together > 1


@dataclasses.dataclass(eq=False)
class Bundle:
    """Measures many lines on one objective, a block of lines at a time.

    Attributes:
        objective: what is measured.
        grid: the positions on every line.
        portions: how many points go at once.
        policy: what the caller asked for statistics that the network does not have.
        known: scores of ends that several lines have.
    """

    objective: Objective
    grid: Sequence[float]
    portions: Portions = dataclasses.field(default_factory=lambda: Portions(_MOST))
    policy: str = "reestimate"
    known: Known = dataclasses.field(default_factory=Known)

    @classmethod
    def of(
        cls,
        objective: Objective,
        *,
        points: int = 25,
        positions: Sequence[float] | None = None,
        together: int | None = None,
        normalisation: str = "reestimate",
        known: Known | None = None,
        **_: object,
    ) -> Bundle:
        """A bundle with the settings of :func:`isthmus.connect.barrier`.

        Raises:
            SettingError: the grid is refused.
        """
        portions = Portions(together or _MOST)
        return cls(objective, grid_of(points, positions, None), portions, normalisation, known or Known())

    @property
    def lines_at_once(self) -> int:
        """How many lines make a block."""
        return max(1, (self.portions.most or _MOST) // len(self._inner))

    def __call__(self, lines: Sequence[Line]) -> list[Barrier]:
        """The barriers of some lines. Ends are evaluated alone, so that each has the value that it has anywhere.

        Raises:
            WeightsError: NaN or infinities at an end.
        """
        scores: list[dict[float, Score]] = []
        for line in lines:
            for weights, what in ((line.start, "the start of the path"), (line.end, "the end of the path")):
                algebra.check_finite(weights, what=what)
            scores.append({0.0: self._end(line.start), 1.0: self._end(line.end)})
        points = [(place, t) for place in range(len(lines)) for t in self._inner]
        for chunk, found in self._scored(lines, points):
            for index, (place, t) in enumerate(chunk):
                scores[place][t] = found[index]
        precision = kinds(lines[0].start)
        return [Barrier.of(one, self.grid, normalisation=self.policy, dtype=precision) for one in scores]

    @property
    def _inner(self) -> list[float]:
        return [t for t in sorted({*self.grid, 0.5}) if t not in (0.0, 1.0)]

    def _end(self, weights: Weights) -> Score:
        return self.known("plain", weights, lambda: self.objective(weights))

    def _scored(
        self, lines: Sequence[Line], points: Sequence[tuple[int, float]]
    ) -> list[tuple[Sequence[tuple[int, float]], Scores]]:
        starts, ends = (algebra.stack([getattr(line, name) for line in lines]) for name in ("start", "end"))

        def score(part: slice) -> tuple[Sequence[tuple[int, float]], Scores]:
            return points[part], self.objective.many(_mixed(starts, ends, points[part]), together=True)

        return self.portions(len(points), score)


def _mixed(starts: Weights, ends: Weights, points: Sequence[tuple[int, float]]) -> dict[str, Tensor]:
    """Stacked weights of the points (line, t), mixed as :func:`isthmus.core.weights.lerp` mixes one."""
    mixed = {}
    for name, start in starts.items():
        device = start.device
        rows = torch.tensor([row for row, _ in points], device=device)
        left, right = start.index_select(0, rows), ends[name].to(device).index_select(0, rows)
        shape = (-1, *[1] * (start.dim() - 1))
        if not algebra.mixes(start):
            near = torch.tensor([t <= 0.5 for _, t in points], device=device).view(shape)
            mixed[name] = torch.where(near, left, right)
            continue
        wide = torch.promote_types(start.dtype, torch.float32)  # half precision is mixed in float32 and rounded once
        t = torch.tensor([t for _, t in points], dtype=wide, device=device).view(shape)
        mixed[name] = torch.lerp(left.to(wide), right.to(wide), t).to(start.dtype)
    return mixed
