"""Intervals over examples where few were seen."""

import dataclasses

import pytest
import torch
from torch import nn

from isthmus.studies.check.check import check
from isthmus.studies.check.intervals import height_of_errors
from isthmus.studies.check.verdict import Effort
from isthmus.zoo.data import load

GRID = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("examples", [10, 60])
def test_few_examples_that_all_stay_right_do_not_settle_a_path(examples):
    """The upper end is z²/(n + z²), by hand; a path from a model to itself is flat, whatever the examples."""
    wrong = torch.zeros(3, examples, dtype=torch.float64)
    loss = torch.tensor([[0.1], [0.4], [0.1]], dtype=torch.float64).expand(3, examples)
    z = 1.959963984540054
    for curve, high in ((loss, z**2 / (examples + z**2)), (loss[:1].expand(3, -1), 0.0)):
        found = height_of_errors(curve, wrong, GRID, generator=torch.Generator(), level=0.95)
        assert (found.estimate, found.low) == (0.0, 0.0)
        assert found.high == pytest.approx(high)


def test_rare_errors_are_covered():
    """An error of .03 half-way and none at the ends, 50 examples: a fifth of samples hold none at all."""
    generator, below = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        wrong = torch.zeros(3, 50, dtype=torch.float64)
        wrong[1] = (torch.rand(50, generator=generator) < 0.03).double()
        found = height_of_errors(wrong + GRID[:, None], wrong, GRID, generator=generator, level=0.95)
        below += found.high < 0.03
    assert below <= 16  # 2.5 % of 300 is 7.5; the binomial goes beyond 16 once in 500


def test_one_example_establishes_nothing():
    digits = load("digits")
    one = dataclasses.replace(digits, test_inputs=digits.test_inputs[:1], test_targets=digits.test_targets[:1])
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    ends = [{name: scale * tensor for name, tensor in module.state_dict().items()} for scale in (1.0, 1.5)]
    effort = Effort(points=5, repair_points=3, directions=2, curvature=False)
    assert not check(module, ends, one, effort=effort).established
