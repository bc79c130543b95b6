"""Many solutions: planted frames come back, cycles close, objectives rise, trajectories share one permutation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isthmus.align import (
    CycleConsistent,
    FrankWolfe,
    SimplexStraightThrough,
    WeightMatching,
    relaxation,
    soft,
    super_alignment,
    to_mean,
    to_reference,
)
from isthmus.align.descent import loss_over
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.status import Status
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import dot, mean, stack
from isthmus.discover import discover
from isthmus.zoo import resolve

INPUTS = torch.randn(30, 5, generator=child(0, "inputs"))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up = nn.Linear(5, 12), nn.Linear(12, 16)
        self.down, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.embed(inputs)
        return self.head(stream + self.down(torch.relu(self.up(stream))))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.of(Block())


@pytest.fixture(scope="module")
def symmetry() -> Symmetry:
    return discover(Block(), INPUTS[:2])


def _solution(symmetry: Symmetry, seed: int) -> dict[str, Tensor]:
    generator = child(seed, "solution")
    return {name: torch.randn(shape, generator=generator) for name, shape in symmetry.tensors.items()}


def _family(symmetry: Symmetry, count: int, noise: float) -> list[dict[str, Tensor]]:
    """Noisy copies of one solution, each in an order of its own."""
    generator = child(1, "family")
    base = _solution(symmetry, 0)
    noisy = [
        {name: t + noise * torch.randn(t.shape, generator=generator) for name, t in base.items()} for _ in range(count)
    ]
    return [symmetry.random(generator).apply(weights) for weights in noisy]


def _agreement(solutions: list[dict[str, Tensor]], names: set[str]) -> float:
    return sum(dot(a, b, tensors=names) for place, a in enumerate(solutions) for b in solutions[place + 1 :])


@pytest.mark.parametrize("way", ["reference", "mean", "cycle-consistent"])
def test_a_family_comes_back_together(symmetry: Symmetry, way: str) -> None:
    family = _family(symmetry, 4, noise=0.05)
    generator = child(2, "match")
    if way == "reference":
        found = to_reference(symmetry, family, WeightMatching(), reference=-1, generator=generator)
        assert found.permutations[-1].is_identity
    elif way == "mean":
        found = to_mean(symmetry, family, WeightMatching(), generator=generator)
    else:
        found = CycleConsistent()(symmetry, family, generator=generator)
    aligned = found.aligned(family)
    spread = max(float((aligned[0][n] - other[n]).abs().max()) for other in aligned[1:] for n in symmetry.tensors)
    assert spread < 0.6  # noise alone gives about .3; a misplaced unit more than 2
    assert found.objective > found.identity_objective


def test_cycles_compose_to_the_identity(symmetry: Symmetry) -> None:
    solutions = [_solution(symmetry, seed) for seed in range(3)]
    found = CycleConsistent(iterations=5)(symmetry, solutions, generator=child(0, "match"))
    cycle = found.between(2, 0).after(found.between(1, 2)).after(found.between(0, 1))
    assert cycle.is_identity
    # Negative control: matching each pair on its own leaves most units of a cycle elsewhere.
    matcher = WeightMatching()
    first, second, third = (
        matcher(symmetry, solutions[a], solutions[b], generator=child(a, "pair")).permutation
        for a, b in ((0, 1), (1, 2), (2, 0))
    )
    assert third.after(second).after(first).fixed_share < 0.9


def test_the_universe_agrees_at_least_as_well_as_a_reference(symmetry: Symmetry) -> None:
    solutions = [_solution(symmetry, seed) for seed in range(4)]
    names = set(symmetry.tensors) - {"head.bias"}
    reference = to_reference(symmetry, solutions, WeightMatching(), generator=child(0, "match"))
    universe = CycleConsistent()(symmetry, solutions, generator=child(0, "match"))
    assert universe.objective == pytest.approx(_agreement(universe.aligned(solutions), names), rel=1e-6)
    assert universe.objective >= _agreement(reference.aligned(solutions), names)


@pytest.mark.parametrize("wrong", [{"start": "middle"}, {"rounds": 0}, {"tolerance": -1.0}])
def test_settings_of_the_universe_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingError, match="must be"):
        CycleConsistent(**wrong)


def test_to_the_mean_rises_in_every_round(symmetry: Symmetry) -> None:
    solutions = [_solution(symmetry, seed) for seed in range(4)]
    found = to_mean(symmetry, solutions, generator=child(0, "match"))
    assert all(later >= earlier for earlier, later in zip(found.history, found.history[1:], strict=False))
    assert found.history[-1] > found.history[0]


def test_the_simplex_never_ends_above_matching_to_a_reference(network: Network, symmetry: Symmetry) -> None:
    objective = Objective(network, INPUTS, torch.arange(30) % 3)
    solutions = [_solution(symmetry, seed) for seed in range(3)]
    found = SimplexStraightThrough(objective, steps=6, every=2)(symmetry, solutions, generator=child(0, "match"))
    start = to_reference(symmetry, solutions, WeightMatching(), generator=child(0, "match"))
    assert -found.objective == pytest.approx(loss_over(objective, mean(found.aligned(solutions))), rel=1e-6)
    assert -found.objective <= loss_over(objective, mean(start.aligned(solutions))) + 1e-9


@pytest.mark.parametrize("matcher", [WeightMatching(), WeightMatching(biases=False), FrankWolfe()])
def test_one_permutation_for_two_trajectories(symmetry: Symmetry, matcher: WeightMatching) -> None:
    """Each checkpoint alone is too noisy to tell; the stack is not."""
    generator = child(3, "trajectory")
    planted = symmetry.random(generator)
    times = [_solution(symmetry, seed) for seed in range(6)]
    other = [
        {n: t + 0.8 * torch.randn(t.shape, generator=generator) for n, t in planted.apply(weights).items()}
        for weights in times
    ]
    match = super_alignment(symmetry, stack(times), stack(other), matcher, generator=child(0, "match"))
    assert match.permutation.same_as(planted)
    assert match.permutation.symmetry is symmetry


def test_trajectories_of_different_length_are_refused(symmetry: Symmetry) -> None:
    two, three = (stack([_solution(symmetry, seed) for seed in range(count)]) for count in (2, 3))
    with pytest.raises(WeightsError, match="equally many checkpoints"):
        super_alignment(symmetry, two, three, WeightMatching(), generator=child(0, "match"))


def test_one_solution_is_refused(symmetry: Symmetry) -> None:
    with pytest.raises(WeightsError, match="at least two"):
        to_mean(symmetry, [_solution(symmetry, 0)], generator=child(0, "match"))


@pytest.mark.parametrize("nested", [False, True])
def test_step_lengths_tried_together_are_worth_what_they_are_alone(nested):
    module = resolve("vit-16x2" if nested else "vgg-4-6", inputs=(3, 8, 8))
    symmetry = discover(module, torch.randn(2, 3, 8, 8))
    weights = {name: tensor.double() for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    like, draw = next(iter(weights.values())), child(0, "corners")
    begin = [relaxation.beginning(symmetry, like, start="barycentre")]
    corners = [soft.hard(symmetry.random(draw), like)]

    def value(softs):
        mixed = soft.apply(symmetry, softs[0], weights)
        return torch.stack([(mixed[name] * weights[name]).sum() for name in weights]).sum()

    alone, together = (relaxation._along(value, begin, corners, together=choice) for choice in (False, True))
    assert together == pytest.approx(alone, rel=1e-12)
    assert max(alone) > min(alone)


@pytest.mark.parametrize(("sweeps", "status"), [(100, Status.CONVERGED), (1, Status.STOPPED)])
def test_matching_to_a_reference_has_converged_if_every_match_has(symmetry: Symmetry, sweeps: int, status) -> None:
    solutions = [_solution(symmetry, seed) for seed in range(3)]
    found = to_reference(
        symmetry, solutions, WeightMatching(start="identity", sweeps=sweeps), generator=child(0, "way")
    )
    assert [match.status for match in found.matches] == [status] * 2
    assert found.status is status
