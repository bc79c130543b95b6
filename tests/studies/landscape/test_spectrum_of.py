"""The spectrum at a solution: what was asked for reaches the quadrature."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.curvature import density, eigenpairs, hessian
from isthmus.studies.landscape.solution import spectrum_of


@pytest.fixture
def problem():
    """Least squares: the Hessian is the inputs' second moment, once for each of the outputs."""
    inputs, targets = torch.randn(40, 12, dtype=torch.float64), torch.randn(40, 6, dtype=torch.float64)
    module = nn.Linear(12, 6, bias=False).double()
    return Network.of(module).weights, Objective(Network.of(module), inputs, targets, squared_error, {})


@pytest.mark.parametrize("probes", [2, 3, 7])
def test_a_density_has_as_many_probes_as_asked_for(problem, probes):
    weights, objective = problem
    found = spectrum_of(weights, objective, name="one", probes=probes, steps=4, pairs=1, seed=3).density
    assert found.nodes.shape == found.weights.shape == (probes, 4)
    operator = hessian(objective, weights)
    largest = eigenpairs(operator, 1)
    again = density(operator, generator=child(3, "density"), probes=probes, steps=4, outliers=largest)
    torch.testing.assert_close(found.nodes, again.nodes, rtol=1e-6, atol=1e-8)
    assert found.products == again.products


def test_five_probes_where_nothing_is_said(problem):
    weights, objective = problem
    assert len(spectrum_of(weights, objective, name="one", steps=4, pairs=1).density.nodes) == 5


def test_few_probes_of_a_small_matrix_give_its_mean_eigenvalue(problem):
    """72 eigenvalues are no more than (11 + 1) × 6 products: decomposed whole, and the trace is the closed form's."""
    weights, objective = problem
    found = spectrum_of(weights, objective, name="one", probes=11, steps=6, pairs=1).density
    moment = objective.inputs.T @ objective.inputs * 2 / len(objective.inputs) / 6
    assert found.nodes.shape[0] == 1
    assert found.moment(1) == pytest.approx(float(moment.diagonal().mean()), rel=1e-8)
