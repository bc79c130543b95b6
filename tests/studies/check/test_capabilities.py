"""What a merge keeps of a capability, and how surely."""

import pytest
import torch

from isthmus.studies.check.capabilities import by_class, capability
from isthmus.studies.check.views import View


def seen(right):
    wrong = ~torch.as_tensor(right, dtype=torch.bool)
    targets = torch.zeros(len(wrong), dtype=torch.long)
    return View(torch.zeros(len(wrong)), wrong.long(), targets, 0.0, 0.0, None)


@pytest.mark.parametrize("right", [10, 7, 0])
def test_ten_examples_never_say_that_nothing_can_go_wrong(right):
    """A sample without a mistake has a width, and one that knows nothing may know a little."""
    good, average = seen([1] * 10), seen([1] * right + [0] * (10 - right))
    found = capability("all", (good, good, average), torch.ones(10), floor=0.1)
    assert found.kept.estimate == pytest.approx((right / 10 - 0.1) / 0.9)
    assert found.kept.low <= found.kept.estimate <= found.kept.high
    assert found.kept.high - found.kept.low > 0.25


def test_every_class_that_has_examples_is_a_capability_of_its_own():
    found = by_class(torch.tensor([2, 0, 2, 2]), 4)
    assert {name: examples.nonzero().flatten().tolist() for name, examples in found.items()} == {
        "0": [1],
        "2": [0, 2, 3],
    }
