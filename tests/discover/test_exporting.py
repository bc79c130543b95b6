"""What stands between a module and its graph: branches, masks of its own, layers moved on the way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.core.errors import SymmetryError


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def pair(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def sizes(module: nn.Module, *shape: int) -> list[int]:
    return [group.size for group in isthmus.discover(module, torch.zeros(shape)).groups]


class Masking(Pair):
    """Looks at a mask that it makes for itself, after writing to it."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(len(x), 4)
        mask[0, :2] = 0
        if (mask == 0).any().item():
            x = x * mask
        if mask[:, 2:].min() < 1:
            raise ValueError("never")
        return self.pair(x) * sum(mask[0].tolist())


def test_branches_that_no_input_decides_are_followed() -> None:
    assert sizes(Masking(), 3, 4) == [6]


class Counting(Pair):
    """Keeps a whole number as a tensor and counts with it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stride", torch.tensor(2))
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.ceil((4 - self.stride).float() / self.stride).long()
        return self.pair(x) if int(steps) == 1 else self.b(self.a(x)[:, : int(steps)])


def test_whole_numbers_that_a_module_keeps_may_decide() -> None:
    assert sizes(Counting(), 3, 4) == [6]


class Learned(Counting):
    def forward(self, x: Tensor) -> Tensor:
        return self.pair(x) if self.seen.sum() > 0 else self.pair(-x)


def test_numbers_that_training_changes_may_not_decide() -> None:
    with pytest.raises(SymmetryError, match="without looking at values"):
        sizes(Learned(), 3, 4)


class Written(Pair):
    """Writes something of the input into a mask, through a view, before it looks at it."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(len(x), 4)
        mask[0][:1].copy_(x[0, :1])
        return self.pair(x) if mask.any() else self.pair(-x)


def test_branches_that_an_input_decides_are_refused_in_one_line_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SymmetryError, match="without looking at values") as caught:
        sizes(Written(), 3, 4)
    assert "\n" not in str(caught.value)
    assert __file__ in str(caught.value)
    assert capfd.readouterr() == ("", "")


class Lazy(Pair):
    """Makes the mask that it needs only where it is not being compiled."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None and not torch.compiler.is_compiling():
            mask = x.new_ones(len(x))
        return self.pair(x * mask[:, None])  # type: ignore[index]


def test_what_a_module_leaves_out_while_it_is_compiled_is_there() -> None:
    assert sizes(Lazy(), 3, 4) == [6]


class Moving(Pair):
    def forward(self, x: Tensor) -> Tensor:
        self.a = self.a.to(torch.float32)
        return self.pair(x)


def test_a_layer_may_be_moved_to_where_it_is() -> None:
    assert sizes(Moving(), 3, 4) == [6]


def test_a_layer_that_really_moves_is_refused() -> None:
    class Widening(Pair):
        def forward(self, x: Tensor) -> Tensor:
            self.a = self.a.to(torch.float64)
            return self.b(self.a(x.double()).float())

    with pytest.raises(SymmetryError, match="must be exportable"):
        sizes(Widening(), 3, 4)


def test_real_numbers_where_token_numbers_belong_are_told() -> None:
    reader = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(32, 4))
    with pytest.raises(SymmetryError, match="give whole numbers"):
        sizes(reader, 3, 4)


def test_optional_inputs_that_are_missing_are_asked_for() -> None:
    class Needing(Pair):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.pair(x * mask[:, None])  # type: ignore[index]

    with pytest.raises(SymmetryError, match="optional inputs"):
        sizes(Needing(), 3, 4)


@pytest.mark.parametrize("whole", [True, False])
def test_what_torch_jit_compiled_is_refused_by_its_name(whole: bool) -> None:
    inner = torch.jit.trace(nn.Linear(4, 6), torch.zeros(2, 4))
    module = inner if whole else nn.Sequential(nn.Linear(4, 4), inner)
    with pytest.raises(SymmetryError, match="TopLevelTracedModule was" if whole else "its part 1 was"):
        isthmus.discover(module, torch.zeros(2, 4))
