"""Adapters: isthmus and its peers as the tools that the checks ask for, each called as its own documentation says."""

from __future__ import annotations

import torch
from checks import Problem
from torch import nn

from isthmus.connect import Line, Marked, Plane, barrier, surface
from isthmus.core.network import Network
from isthmus.core.objective import Objective


class Isthmus:
    """This library, with statistics mixed (the checks know the answer for that policy) or estimated anew."""

    def __init__(self, normalisation: str) -> None:
        self.normalisation = normalisation

    def line(self, start: nn.Module, end: nn.Module, problem: Problem, points: int) -> tuple[list[float], list[float]]:
        objective = self._objective(start, problem)
        line = Line(objective.network.weights, Network.of(end).weights)
        result = barrier(
            line,
            objective,
            points=points,
            normalisation=self.normalisation,  # type: ignore[arg-type]
            inputs=problem.inputs,
        )
        return result.positions.tolist(), result.loss.tolist()

    def plane(
        self, origin: nn.Module, first: nn.Module, second: nn.Module, problem: Problem, points: int
    ) -> tuple[list[float], list[float], list[list[float]]]:
        objective = self._objective(origin, problem)
        weights = [Network.of(module).weights for module in (origin, first, second)]
        sides = [{name: side[name] - weights[0][name] for name in side} for side in weights[1:]]
        marked = Marked(Plane(weights[0], sides[0], sides[1]), torch.zeros(1, 2), (weights[0],))
        result = surface(
            marked, objective, points=points, x_range=(0.0, 1.0), y_range=(0.0, 1.0), inputs=problem.inputs
        )
        return result.x.tolist(), result.y.tolist(), result.loss.tolist()

    @staticmethod
    def _objective(module: nn.Module, problem: Problem) -> Objective:
        return Objective(
            Network.of(module),
            problem.inputs,
            problem.targets,
            loss=problem.loss,
            metrics={},
            batch_size=problem.batch_size,
        )


class LossLandscapes:
    """loss-landscapes 3.0.6 with its default settings."""

    def line(self, start: nn.Module, end: nn.Module, problem: Problem, points: int) -> tuple[list[float], list[float]]:
        import loss_landscapes

        losses = loss_landscapes.linear_interpolation(start, end, self._metric(problem), steps=points)
        # It steps before it evaluates: these are the positions where its values really lie.
        return [(index + 1) / points for index in range(points)], losses.tolist()

    def plane(
        self, origin: nn.Module, first: nn.Module, second: nn.Module, problem: Problem, points: int
    ) -> tuple[list[float], list[float], list[list[float]]]:
        import loss_landscapes

        losses = loss_landscapes.planar_interpolation(origin, first, second, self._metric(problem), steps=points)
        # The positions that its source states for the cell (i, j).
        sides = [index / points for index in range(points)]
        return sides, sides, losses.tolist()

    @staticmethod
    def _metric(problem: Problem):
        from loss_landscapes.metrics import Loss

        def mean(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return problem.loss(outputs, targets).mean()

        return Loss(mean, problem.inputs, problem.targets)
