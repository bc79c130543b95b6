"""What a tool that evaluates a loss between networks must get right. Every check has a known answer.

A check takes a tool (see ``adapters.py``) and raises ``AssertionError`` where the tool is wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

# Answers are known to rounding in float64.
CLOSE = 1e-9


@dataclasses.dataclass(frozen=True)
class Problem:
    """Data and a loss with one value for each example."""

    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    batch_size: int = 1000

    def value(self, module: nn.Module) -> float:
        """The mean over all examples, evaluated by hand."""
        module = copy.deepcopy(module).eval()
        with torch.no_grad():
            return float(self.loss(module(self.inputs), self.targets).mean())


class Tool(Protocol):
    """What is checked. Modules come in evaluation mode."""

    def line(self, start: nn.Module, end: nn.Module, problem: Problem, points: int) -> tuple[list[float], list[float]]:
        """Positions in [0, 1] and the loss at each."""
        ...

    def plane(
        self, origin: nn.Module, first: nn.Module, second: nn.Module, problem: Problem, points: int
    ) -> tuple[list[float], list[float], list[list[float]]]:
        """Coordinates towards first and second (origin 0, ends 1), and the loss for each pair of them."""
        ...


class Point(nn.Module):
    """Its output is its squared distance from each input: the mean loss is a quadratic in the weights."""

    def __init__(self, *entries: float) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(entries, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.point - inputs).square().sum(1)


def value(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


def negative(outputs: Tensor, targets: Tensor) -> Tensor:
    return -outputs


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1)


def crossed(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def quadratic_has_its_known_barrier(tool: Tool) -> None:
    """Along a line through a concave quadratic the loss is −|p(t)|² and the barrier |end − start|²/4."""
    problem = Problem(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3), negative)
    positions, losses = tool.line(Point(-1.0, 2.0).eval(), Point(3.0, 2.0).eval(), problem, 9)
    agree(losses, [-((4 * t - 1) ** 2 + 4) for t in positions])
    start, end = -5.0, -13.0
    above = [loss - ((1 - t) * start + t * end) for t, loss in zip(positions, losses, strict=True)]
    agree([max(above)], [max(16 * t * (1 - t) for t in positions)])


def linear_network_follows_its_polynomial(tool: Tool) -> None:
    """Two linear layers: the output is quadratic in t, the squared error a polynomial of degree four."""
    start, end = (two_layers(seed, nn.Identity()) for seed in (0, 1))
    inputs, targets = drawn(2, 6, 3), drawn(3, 6, 2)
    a1, a2 = (layer.weight.detach().clone() for layer in (start[0], start[2]))
    b1, b2 = (layer.weight.detach().clone() for layer in (end[0], end[2]))
    problem = Problem(inputs, targets, squared)
    positions, losses = tool.line(start, end, problem, 7)
    expected = []
    for t in positions:
        outputs = inputs @ (a1 + t * (b1 - a1)).T @ (a2 + t * (b2 - a2)).T
        expected.append(float((outputs - targets).square().sum(1).mean()))
    agree(losses, expected)


def permuted_copy_is_the_same_network_at_both_ends_only(tool: Tool) -> None:
    """A copy with its hidden units in another order has the same loss; half-way there is another network."""
    start = two_layers(0, nn.Tanh())
    end, order = copy.deepcopy(start), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        end[0].weight.copy_(start[0].weight[order])
        end[2].weight.copy_(start[2].weight[:, order])
    middle = copy.deepcopy(start)
    with torch.no_grad():
        for layer in (0, 2):
            middle[layer].weight.copy_((start[layer].weight + end[layer].weight) / 2)
    problem = Problem(drawn(2, 6, 3), drawn(3, 6, 2), squared)
    same, half = problem.value(start), problem.value(middle)
    positions, losses = tool.line(start, end, problem, 10)
    found = dict(zip((round(t, 9) for t in positions), losses, strict=True))
    agree([found[1.0]], [same])
    if 0.5 in found:
        agree([found[0.5]], [half])
    assert max(abs(loss - same) for loss in losses) > 1e-3


def other_statistics_count_at_the_end(tool: Tool) -> None:
    """Two networks with equal parameters and other running statistics are different networks."""
    start, problem = normed(), Problem(drawn(2, 9, 3), torch.arange(9) % 2, crossed)
    end = copy.deepcopy(start)
    end[1].running_mean.add_(1.5)
    end[1].running_var.mul_(4.0)
    expected = problem.value(end)
    assert abs(expected - problem.value(start)) > 1e-3
    positions, losses = tool.line(start, end, problem, 5)
    agree([losses[positions.index(1.0)]], [expected])


def uneven_batches_have_their_share(tool: Tool) -> None:
    """Eleven examples in batches of four: the mean is over examples, not over batches."""
    inputs = torch.arange(11, dtype=torch.float64).square().unsqueeze(1)
    problem = Problem(inputs, torch.zeros(11), value, batch_size=4)
    start, end = Point(0.0).eval(), Point(2.0).eval()
    positions, losses = tool.line(start, end, problem, 5)
    agree(losses, [float((2 * t - inputs).square().mean()) for t in positions])


def the_start_is_evaluated(tool: Tool) -> None:
    """The first value belongs to the start itself."""
    start, end, problem = (
        two_layers(0, nn.ReLU()),
        two_layers(1, nn.ReLU()),
        Problem(drawn(2, 6, 3), drawn(3, 6, 2), squared),
    )
    expected = problem.value(start)
    positions, losses = tool.line(start, end, problem, 5)
    assert positions[0] == 0.0, f"the first position is {positions[0]}"
    agree(losses[:1], [expected])


def the_end_is_evaluated(tool: Tool) -> None:
    """The last value belongs to the end itself."""
    start, end, problem = (
        two_layers(0, nn.ReLU()),
        two_layers(1, nn.ReLU()),
        Problem(drawn(2, 6, 3), drawn(3, 6, 2), squared),
    )
    expected = problem.value(end)
    positions, losses = tool.line(start, end, problem, 5)
    assert positions[-1] == 1.0, f"the last position is {positions[-1]}"
    agree(losses[-1:], [expected])


def inputs_are_left_untouched(tool: Tool) -> None:
    """Neither the modules nor the data are written to, and modes stay."""
    start, end = normed(), normed()
    with torch.no_grad():
        end[0].weight.add_(1.0)
    problem = Problem(drawn(2, 9, 3), torch.arange(9) % 2, crossed)
    before = [copy.deepcopy(module) for module in (start, end)]
    data = [problem.inputs.clone(), problem.targets.clone()]
    tool.line(start, end, problem, 5)
    for module, old in zip((start, end), before, strict=True):
        for name, tensor in old.state_dict().items():
            assert torch.equal(module.state_dict()[name], tensor), f"{name} has changed"
        assert [part.training for part in module.modules()] == [part.training for part in old.modules()]
    assert torch.equal(problem.inputs, data[0])
    assert torch.equal(problem.targets, data[1])


def a_plane_lies_where_it_says(tool: Tool) -> None:
    """Each cell of a plane over a quadratic belongs to the coordinates that the tool gives for it."""
    problem = Problem(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2), value)
    origin, first, second = Point(1.0, 2.0).eval(), Point(4.0, 2.0).eval(), Point(1.0, -3.0).eval()
    rows, columns, losses = tool.plane(origin, first, second, problem, 6)
    expected = [(1 + 3 * x) ** 2 + (2 - 5 * y) ** 2 for x, y in itertools.product(rows, columns)]
    agree([loss for row in losses for loss in row], expected)


CHECKS: dict[str, Callable[[Tool], None]] = {
    check.__name__: check
    for check in (
        quadratic_has_its_known_barrier,
        linear_network_follows_its_polynomial,
        permuted_copy_is_the_same_network_at_both_ends_only,
        other_statistics_count_at_the_end,
        uneven_batches_have_their_share,
        the_start_is_evaluated,
        the_end_is_evaluated,
        inputs_are_left_untouched,
        a_plane_lies_where_it_says,
    )
}


def agree(found: Sequence[float], expected: Sequence[float]) -> None:
    """Equal to rounding, entry by entry."""
    assert len(found) == len(expected), f"{len(found)} values for {len(expected)} positions"
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= CLOSE * max(1.0, abs(other)), f"{one} where {other} is right"


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers(seed: int, between: nn.Module) -> Any:
    module: Any = nn.Sequential(nn.Linear(3, 5, bias=False), between, nn.Linear(5, 2, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(drawn(10 + seed, 5, 3))
        module[2].weight.copy_(drawn(20 + seed, 2, 5))
    return module.eval()


def normed() -> Any:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(drawn(number, *parameter.shape))
    return module.eval()
