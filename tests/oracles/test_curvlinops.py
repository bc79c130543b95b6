"""Products, and residuals of eigenpairs, against curvlinops, an independent implementation, on a small network."""

import dataclasses

import pytest
import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.curvature import eigenpairs, gauss_newton, hessian

curvlinops = pytest.importorskip("curvlinops")


@pytest.fixture(scope="module")
def problem():
    """Thirty images in batches of 12, 12 and 6; float64."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 10)
    ).double()
    images, labels = torch.rand(30, 1, 8, 8, dtype=torch.float64), torch.randint(10, (30,))
    return module, Objective(Network.of(module), images, labels, batch_size=12)


@pytest.mark.parametrize(("ours", "theirs"), [(hessian, "HessianLinearOperator"), (gauss_newton, "GGNLinearOperator")])
def test_products_and_residuals(problem, ours, theirs):
    module, objective = problem
    batches = [(inputs, targets) for (inputs,), targets in objective.batches()]
    parameters = list(module.parameters())
    other = getattr(curvlinops, theirs)(module, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False)
    operator = ours(objective, objective.network.weights)
    vectors = torch.randn(operator.size, 3, dtype=torch.float64)
    assert torch.allclose(operator @ vectors, other @ vectors, rtol=1e-9, atol=1e-12)
    pairs = eigenpairs(operator, 3)
    gap = other @ pairs.vectors - pairs.vectors * pairs.values
    assert torch.allclose(gap.norm(dim=0), pairs.residuals, atol=1e-9)
    assert (pairs.residuals < 1e-3 * pairs.values[0]).all()


def test_a_short_last_batch_has_its_share_only(problem):
    _, objective = problem
    whole = dataclasses.replace(objective, batch_size=30)
    vector = torch.ones(hessian(whole, whole.network.weights).size, dtype=torch.float64)
    one, other = (hessian(o, o.network.weights) @ vector for o in (objective, whole))
    assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)
