"""Many solutions at once: scores and gradients equal those of one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isthmus.core import weights as w
from isthmus.core.network import Network
from isthmus.core.objective import Objective


@pytest.fixture(scope="module")
def case() -> tuple[Objective, dict[str, torch.Tensor]]:
    torch_generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    network = Network.of(module)
    inputs = torch.randn(7, 4, generator=torch_generator, dtype=torch.float64)
    targets = torch.randint(3, (7,), generator=torch_generator)
    solutions = [
        {n: torch.randn(t.shape, generator=torch_generator, dtype=t.dtype) for n, t in network.weights.items()}
        for _ in range(3)
    ]
    return Objective(network, inputs, targets, batch_size=3), w.stack(solutions)


@pytest.mark.parametrize("together", [True, False])
def test_scores_and_gradients_are_each_solutions_own(case, together):
    objective, stacked = case
    scores = objective.many(stacked, together=together)
    graded, gradients = objective.gradients(stacked, together=together)
    for index in range(3):
        score, gradient = objective.gradient(w.pick(stacked, index))
        assert float(scores.loss[index]) == pytest.approx(score.loss, abs=1e-14)
        assert float(graded.loss[index]) == pytest.approx(score.loss, abs=1e-14)
        assert float(graded.error[index]) == pytest.approx(score.error, abs=1e-14)
        for name, part in gradient.items():
            torch.testing.assert_close(gradients[name][index], part, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_half_precision_add_up_wide(dtype):
    """A sum over 3,000 large examples leaves float16, and batch after batch is lost in bfloat16's eight bits."""
    generator = torch.Generator().manual_seed(0)
    network = Network.of(nn.Linear(4, 3))
    inputs = 100 + torch.randn(3000, 4, generator=generator)
    objective = Objective(network, inputs, torch.zeros(3000, dtype=torch.long), batch_size=100)
    one = {"weight": torch.zeros(3, 4, dtype=dtype), "bias": torch.zeros(3, dtype=dtype)}
    exact = w.to(one, dtype=torch.float64)
    _, truth = objective.gradient(exact)
    for together in (True, False):
        _, found = objective.gradients(w.stack([one, one]), together=together)
        assert found["weight"].dtype == dtype
        for name, value in truth.items():
            assert torch.allclose(found[name].double(), value.expand_as(found[name]), rtol=0.01)
