"""Writes in place: a graph is walked as it is where nobody reads the written memory under another name afterwards."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.discover import discover
from isthmus.discover.graphs import writes_into_views


class Written(nn.Module):
    """A hidden layer, and some writing in place between it and the head."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.second, self.way = nn.Linear(6, 4), nn.Linear(4, 3), way
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        return self.second(getattr(self, self.way)(hidden).relu())

    def own_name(self, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden.reshape(-1, 2, 2).flatten(1), 0.1, self.training, inplace=True)

    def a_view_alone(self, hidden: Tensor) -> Tensor:
        part = (hidden * 1).view(-1, 4)
        return part.mul_(2)

    def the_whole_afterwards(self, hidden: Tensor) -> Tensor:
        whole = hidden * 1
        whole[:, :1].mul_(3)
        return whole

    def a_view_of_before(self, hidden: Tensor) -> Tensor:
        whole = hidden * 1
        part = whole[:, :1]
        whole.mul_(3)
        return whole + part

    def twice(self, hidden: Tensor) -> Tensor:
        whole = hidden * 1
        whole.mul_(2)[:, :1].add_(1)
        return whole

    def a_buffer(self, hidden: Tensor) -> Tensor:
        self.seen.add_(1)
        return hidden + 0 * self.seen


@pytest.mark.parametrize(
    ("way", "wanted"),
    [
        ("own_name", False),
        ("a_view_alone", False),
        ("the_whole_afterwards", True),
        ("a_view_of_before", True),
        ("twice", True),
        ("a_buffer", True),
    ],
)
def test_only_writes_that_are_seen_elsewhere_need_the_functional_form(way, wanted):
    module = Written(way).eval()
    graph = torch.export.export(module, (torch.randn(2, 6),)).graph
    assert writes_into_views(graph) is wanted


@pytest.mark.parametrize(
    ("way", "free"), [("own_name", 4), ("a_view_alone", 4), ("the_whole_afterwards", 3), ("twice", 3)]
)
def test_and_the_units_found_are_those_that_the_writes_leave_alike(way, free):
    symmetry = discover(Written(way).eval(), torch.randn(2, 6))
    assert max(group.size for group in symmetry.groups) == free
