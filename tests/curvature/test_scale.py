"""Sharpness after the scale that a network does not see was taken out: one for all copies that differ by scales."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from isthmus.core.canonical import rescaled, unit_scale
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.curvature import eigenpairs, hessian, random_sharpness, trace, worst_case
from isthmus.discover import discover
from isthmus.zoo import network

CASES = {
    "plain": lambda: nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
    "BatchNorm VGG": lambda: network("vgg", inputs=(3, 2, 2), classes=3, channels=(3, 4), norm="batch"),
    "ResNet-20": lambda: network("resnet20", inputs=(3, 2, 2), classes=3, width=0.125),
}


@dataclasses.dataclass
class Case:
    objective: Objective
    symmetry: Symmetry
    weights: dict[str, torch.Tensor]

    @property
    def copy(self) -> dict[str, torch.Tensor]:
        """Every unit of every scale group with a factor of its own between 1/3 and 3."""
        generator = child(1, "factors")
        scales = [group for group in self.symmetry.groups if group.kind == "scale"]
        factors = {g.name: 3 ** (2 * torch.rand(g.size, generator=generator, dtype=torch.float64) - 1) for g in scales}
        return rescaled(self.symmetry, self.weights, factors)


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    torch.manual_seed(0)
    module = CASES[request.param]().eval()
    shape = (12,) if request.param == "plain" else (3, 2, 2)
    symmetry = discover(module, torch.randn(2, *shape), kinds=("permutation", "scale"))
    module = module.double()
    inputs, targets = torch.randn(24, *shape, dtype=torch.float64), torch.randint(3, (24,))
    weights = {
        # Fresh gains, shifts and running statistics are ones and zeros, which hide mistakes.
        name: t + 0.3 * torch.rand_like(t) if t.is_floating_point() and t.dim() == 1 else t
        for name, t in module.state_dict().items()
    }
    return Case(Objective(Network.of(module), inputs, targets), symmetry, weights)


def measures(objective: Objective, weights: dict[str, torch.Tensor]) -> dict[str, float]:
    operator = hessian(objective, weights)
    return {
        "eigenvalue": float(eigenpairs(operator, 1, tolerance=1e-9).values[0]),
        "trace": trace(operator, generator=child(0, "trace"), products=30).estimate,
        "random": random_sharpness(objective, weights, generator=child(0, "directions"), directions=5).rise,
        "worst": worst_case(objective, weights, steps=3).rise,
    }


def test_sharpness_forgets_the_scale_once_it_is_taken_out(case):
    copy = case.copy
    assert case.objective(copy).loss == pytest.approx(case.objective(case.weights).loss, rel=1e-9)
    found = measures(case.objective, unit_scale(case.symmetry, case.weights))
    again = measures(case.objective, unit_scale(case.symmetry, copy))
    for name, value in found.items():
        assert again[name] == pytest.approx(value, rel=1e-6), name


def test_without_taking_it_out_any_sharpness_can_be_had(case):
    plain, scaled = (measures(case.objective, weights) for weights in (case.weights, case.copy))
    for name in ("eigenvalue", "trace", "worst"):
        assert abs(scaled[name] / plain[name] - 1) > 0.1, name
