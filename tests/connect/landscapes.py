"""Losses with known shapes, and a network with running statistics."""

import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


class Valley(nn.Module):
    """Its output is the square of a distance: with `value` as loss, the landscape is a quadratic in the weight."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, centres: torch.Tensor) -> torch.Tensor:
        return (self.point - centres).square().sum(1)


def value(outputs, targets):
    return outputs


def valley(centres, function=value):
    network = Network.of(Valley(centres.shape[1]))
    return Objective(network, centres, torch.zeros(len(centres)), loss=function, metrics={})


def point(*entries):
    return {"point": torch.tensor(entries, dtype=torch.float64)}


def norm_net(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    generator = child(seed, "statistics")
    module[1].running_mean = torch.randn(4, generator=generator, dtype=torch.float64)
    module[1].running_var = torch.rand(4, generator=generator, dtype=torch.float64) + 0.5
    return module


def norm_objective():
    generator = child(7, "inputs")
    inputs = torch.randn(31, 1, 6, 6, generator=generator, dtype=torch.float64)
    module = norm_net(0)
    return Objective(Network.of(module), inputs, torch.randint(3, (31,), generator=generator), batch_size=8), inputs
