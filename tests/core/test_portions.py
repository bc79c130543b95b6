"""What does not fit into a device's memory together goes in portions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._C import _functorch

from isthmus.connect.pairs import barriers
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.portions import Portions
from isthmus.core.weights import pick, stack
from isthmus.walk.ground import Ground

ROOM = 2


class Cramped(nn.Linear):
    """Has room for two solutions at once, and says so as a GPU does: in the middle of the forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        if _functorch.is_batchedtensor(self.weight) and len(_functorch.get_unwrapped(self.weight)) > ROOM:
            raise torch.cuda.OutOfMemoryError("no room")
        return super().forward(input)


def case(count: int) -> tuple[list[dict[str, Tensor]], Objective]:
    torch.manual_seed(0)
    solutions = [Network.of(Cramped(4, 3).double()).weights for _ in range(count)]
    objective = Objective(Network.of(Cramped(4, 3).double()), torch.randn(9, 4), torch.randint(3, (9,)), batch_size=4)
    return [dict(solution) for solution in solutions], objective


def test_portions_are_halved_until_they_fit_and_stay_so():
    portions, sizes = Portions(), []

    def run(part: slice) -> range:
        sizes.append(len(range(11)[part]))
        if sizes[-1] > ROOM:
            raise torch.cuda.OutOfMemoryError("no room")
        return range(11)[part]

    assert [index for part in portions(11, run) for index in part] == list(range(11))
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert portions.most == 2
    assert portions(0, run) == []


def test_what_does_not_fit_alone_is_said():
    def run(_: slice) -> None:
        raise torch.cuda.OutOfMemoryError("no room")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        Portions()(3, run)


def test_a_network_without_room_is_not_taken_for_one_that_cannot_be_vectorised():
    solutions, objective = case(3)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        objective.many(stack(solutions), together=True)
    assert len(objective.many(stack(solutions[:2]), together=True).loss) == 2


def test_lines_are_measured_in_the_portions_that_fit():
    solutions, objective = case(4)
    together = barriers(solutions, objective, points=5, together=50)
    assert torch.allclose(together.loss_barrier, barriers(solutions, objective, points=5, together=1).loss_barrier)


def test_walkers_climb_in_the_portions_that_fit():
    solutions, objective = case(1)
    ground = Ground(objective, solutions[0])
    places = ground.home + 0.1 * torch.randn(5, len(ground.home), dtype=ground.home.dtype)
    scores, slopes = ground.gradients(places, together=True)
    assert ground.portions.most == ROOM
    assert torch.allclose(ground.score(places, together=True).loss, scores.loss)
    for index in range(5):
        score, gradient = objective.gradient(pick(ground.weights(places), index))
        assert scores[index].loss == pytest.approx(score.loss, rel=1e-9)
        assert torch.allclose(slopes[index], torch.cat([gradient[name].flatten() for name, _, _ in ground.spans]))
