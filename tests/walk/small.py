"""A small classifier with a hand-written symmetry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.symmetry import Site, Symmetry, UnitGroup


def classifier(hidden: int = 8, *, dtype: torch.dtype = torch.float32, examples: int = 60, seed: int = 0) -> Objective:
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, 3)).to(dtype)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
    inputs = torch.randn(examples, 5, generator=generator, dtype=torch.float32)
    targets = inputs[:, :3].argmax(1)
    return Objective(Network.of(module), inputs, targets, batch_size=128)


def symmetry(hidden: int = 8) -> Symmetry:
    rows = torch.arange(hidden)[:, None]
    sites = (Site("0.weight", 0, rows), Site("0.bias", 0, rows), Site("2.weight", 1, rows))
    shapes = {"0.weight": (hidden, 5), "0.bias": (hidden,), "2.weight": (3, hidden), "2.bias": (3,)}
    return Symmetry((UnitGroup("0.weight", hidden, sites),), shapes)


def trained(objective: Objective, start: dict[str, Tensor] | None = None, *, steps: int = 300) -> dict[str, Tensor]:
    """Plain gradient descent: also the ``descend`` of the return tests."""
    weights = dict(start or objective.network.weights)
    for _ in range(steps):
        _, gradient = objective.gradient(weights)
        weights = {n: t - 0.5 * gradient[n] if n in gradient else t for n, t in weights.items()}
    return weights
