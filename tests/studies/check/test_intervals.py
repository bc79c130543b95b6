"""Intervals over examples where few were seen."""

import dataclasses

import pytest
import torch
from torch import nn

from isthmus.studies.check.capabilities import capability
from isthmus.studies.check.check import check
from isthmus.studies.check.intervals import height_of_errors, kept_share, least_examples, share
from isthmus.studies.check.verdict import Effort
from isthmus.studies.check.views import View
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


@pytest.mark.parametrize(("threshold", "level"), [(0.02, 0.95), (0.1, 0.9), (0.001, 0.95)])
def test_the_fewest_examples_are_those_that_can_establish_a_path(threshold, level):
    ends = [share(torch.zeros(least_examples(threshold, level=level) - less), level=level).high for less in (0, 1)]
    assert ends[0] <= threshold < ends[1]


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


def seen(wrong):
    return View(torch.zeros(len(wrong)), wrong.long(), torch.zeros(len(wrong), dtype=torch.long), 0.0, 0.0)


@pytest.mark.parametrize("examples", [36, 200])
def test_what_is_kept_is_covered_though_the_end_is_a_sample_too(examples):
    """Accuracies of .9 and .85 above a floor of .1, independent: the average's own interval covers .83."""
    generator, hits = torch.Generator().manual_seed(examples), 0
    for _ in range(300):
        views = [seen(torch.rand(examples, generator=generator) < rate) for rate in (0.1, 0.4, 0.15)]
        kept = capability("all", tuple(views), torch.ones(examples), floor=0.1).kept
        hits += kept.low <= 0.75 / 0.8 <= kept.high
    assert hits >= 272  # 95 % of 300 is 285; the binomial lies below 272 once in 1,000


def test_fieller_s_ends_are_where_the_difference_is_just_significant():
    right, end = torch.tensor([1.0] * 60 + [0.0] * 40), torch.tensor([1.0] * 50 + [0.0] * 20 + [1.0] * 30)
    found = kept_share(right, end, floor=0.1)
    assert found.estimate == pytest.approx(0.5 / 0.7)
    cells = {(1, 1): 50.5, (1, 0): 10.5, (0, 1): 30.5, (0, 0): 10.5}
    for k in (found.low, found.high):
        values = [(a - k * e, count / 102) for (a, e), count in cells.items()]
        mean = sum(value * share for value, share in values)
        variance = sum(value**2 * share for value, share in values) - mean**2
        assert (mean - 0.1 * (1 - k)) ** 2 == pytest.approx(1.959963984540054**2 * variance / 102)
    assert kept_share(end, torch.zeros(100), floor=0.1).method == "none: no end is above chance"
    assert torch.isnan(torch.tensor(kept_share(end[:3], end[:3] * 0 + torch.tensor([1.0, 0, 0]), floor=0.3).high))
