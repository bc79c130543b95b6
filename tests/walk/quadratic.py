"""A landscape whose every law is known: loss = ½ Σ λ θ²."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective


class Bowl(nn.Module):
    """Outputs θ·√λ for every example."""

    def __init__(self, curvatures: Tensor, start: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("curvatures", curvatures)
        self.theta = nn.Parameter(torch.zeros_like(curvatures) if start is None else start)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.theta * self.curvatures.sqrt()


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * outputs.square().sum(1)


def bowl(curvatures: list[float], start: list[float] | None = None) -> tuple[Objective, dict[str, Tensor]]:
    values = torch.tensor(curvatures, dtype=torch.float64)
    module = Bowl(values, None if start is None else torch.tensor(start, dtype=torch.float64))
    network = Network.of(module)
    objective = Objective(network, torch.ones(1, 1, dtype=torch.float64), torch.zeros(1), loss=half_square, metrics={})
    return objective, dict(network.weights)
