"""Small problems whose exact Hessians are known in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.operator import Operator
from isthmus.core.weights import Weights, flatten, unflatten


class Exact:
    """Truth by another road: ``torch.autograd.functional`` on all examples at once, float64."""

    @staticmethod
    def loss(objective: Objective, weights: Weights, vector: Tensor) -> Tensor:
        network = objective.network
        wide = {name: t.double() if t.is_floating_point() else t for name, t in weights.items()}
        varied = unflatten(vector, wide, tensors=network.parameter_names)
        inputs = [part.double() if part.is_floating_point() else part for part in objective.parts]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return objective.loss(network(varied, *inputs), objective.targets).mean()

    @classmethod
    def hessian(cls, objective: Objective, weights: Weights) -> Tensor:
        start = flatten(weights, tensors=objective.network.parameter_names).double()
        return torch.autograd.functional.hessian(lambda vector: cls.loss(objective, weights, vector), start)

    @classmethod
    def gauss_newton(cls, objective: Objective, weights: Weights) -> Tensor:
        """The mean of Jᵀ(diag p − p pᵀ)J, from the full Jacobian of class scores (examples, classes)."""
        network = objective.network
        wide = {name: t.double() if t.is_floating_point() else t for name, t in weights.items()}
        inputs = [part.double() if part.is_floating_point() else part for part in objective.parts]

        def scores(vector: Tensor) -> Tensor:
            return network(unflatten(vector, wide, tensors=network.parameter_names), *inputs)

        start = flatten(weights, tensors=network.parameter_names).double()
        jacobian = torch.autograd.functional.jacobian(scores, start)
        p = scores(start).softmax(1)
        inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        return torch.einsum("nap,nab,nbq->pq", jacobian, inner, jacobian) / len(p)


@pytest.fixture
def exact() -> type[Exact]:
    return Exact


@pytest.fixture
def classifier() -> Objective:
    """A small network with smooth and kinked layers, 23 examples in batches of 7 (the last has 2)."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    inputs, targets = torch.randn(23, 4), torch.randint(3, (23,))
    return Objective(Network.of(module), inputs, targets, batch_size=7)


@pytest.fixture(scope="session")
def spread() -> tuple[Operator, Tensor]:
    """A matrix of 600 known eigenvalues in a random basis: a bulk near zero, eight outliers, a few negative ones."""
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(600, generator=generator, dtype=torch.float64).square() * 0.05
    values[:8] = torch.tensor([30.0, 22, 15, 11, 8, 6, 5, 4], dtype=torch.float64)
    values[8:20] = -torch.rand(12, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(600, 600, generator=generator, dtype=torch.float64)).Q
    matrix = (basis * values) @ basis.T
    return Operator(600, lambda vectors: matrix @ vectors, dtype=torch.float64), values.sort().values
