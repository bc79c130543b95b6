"""The claims on families with a known answer: noisy permuted copies connect, strangers do not; controls both ways."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor, nn

from isthmus.align import WeightMatching, claims
from isthmus.align.match import Match
from isthmus.connect import Line, barrier
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.record import to_json
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights, distance
from isthmus.discover import discover


class World:
    """A teacher whose own answers are the labels, and copies of it: noisy, each in an order of its own."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3))
        inputs = torch.randn(200, 6, generator=child(0, "inputs"))
        self.symmetry: Symmetry = discover(module, inputs[:2])
        network = Network.of(module)
        self.teacher = {name: 3 * tensor for name, tensor in network.weights.items()}
        self.objective = Objective(network, inputs, network(self.teacher, inputs).argmax(1))

    def copies(self, count: int, noise: float = 0.02) -> list[dict[str, Tensor]]:
        generator = child(1, "copies")
        return [
            self.symmetry.random(generator).apply(
                {n: t + noise * torch.randn(t.shape, generator=generator) for n, t in self.teacher.items()}
            )
            for _ in range(count)
        ]

    def height(self, start: Weights, end: Weights) -> float:
        return barrier(Line(start, end), self.objective, points=5).error_barrier


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_copies_meet_the_weak_claim_and_both_controls_answer(world: World) -> None:
    claim = claims.weak(world.symmetry, world.copies(4), WeightMatching(), world.height, generator=child(0))
    assert claim.holds
    assert claim.aligned.interval.estimate < 0.02
    assert claim.planted.estimate == 0.0
    assert claim.random.interval.estimate > 0.2
    assert claim.naive.interval.estimate > 0.2
    assert claim.naive.connected == 0.0
    assert claim.aligned.interval.networks == 4
    assert to_json(claim)


def test_strangers_do_not_meet_it(world: World) -> None:
    generator = child(3, "strangers")
    strangers = [
        {n: t.std() * torch.randn(t.shape, generator=generator) for n, t in world.teacher.items()} for _ in range(3)
    ]
    # Random networks are wrong everywhere; seen from the teacher, none of them lies in its basin.
    claim = claims.weak(
        world.symmetry,
        [world.teacher, *strangers],
        WeightMatching(),
        lambda a, b: abs(world.height(a, b)) + world.objective(b).error,
        generator=child(0),
    )
    assert not claim.holds


def test_copies_meet_the_strong_claim(world: World) -> None:
    claim = claims.strong(
        world.symmetry,
        world.copies(4),
        WeightMatching(),
        world.height,
        loss=lambda weights: world.objective(weights).error,
        reference=1,
        generator=child(0),
    )
    assert claim.holds
    assert claim.direct.connected == 1.0
    assert claim.indirect.interval.networks == 3  # the reference itself is left out
    assert bool(claim.indirect.matrix[1].isnan().all())
    assert claim.random.connected == 0.0
    assert len(claim.simplex) == len(claim.naive_simplex) == 4
    assert claim.simplex[-1] < 0.05 < 0.3 < claim.naive_simplex[-1]
    assert len(claim.simplex_highest) == 4
    assert all(mean <= highest < 0.15 for mean, highest in zip(claim.simplex, claim.simplex_highest, strict=True))


def test_the_highest_loss_on_a_simplex_is_looked_for_inside(world: World) -> None:
    """A loss that is low at the corners and at every mean, and high between: only points inside show it."""
    copies = world.copies(3)

    def bump(weights: Weights) -> float:
        """How far a point is from the corners and from the plain means, all measured after alignment."""
        share = sum(float((weights["0.bias"] - mean).abs().mean() < 1e-6) for mean in means)
        return 0.0 if share else 1.0

    match = [WeightMatching()(world.symmetry, c, copies[0], generator=child(0)).aligned(c) for c in copies[1:]]
    framed = [copies[0]["0.bias"], *(aligned["0.bias"] for aligned in match)]
    means = [torch.stack(framed[:k]).mean(0) for k in (1, 2, 3)]
    claim = claims.strong(
        world.symmetry, copies, WeightMatching(), lambda a, b: 0.0, loss=bump, inside=3, generator=child(0)
    )
    assert claim.simplex == (0.0, 0.0, 0.0)
    assert claim.simplex_highest == (0.0, 1.0, 1.0)


def test_one_permutation_serves_all_times_of_copies(world: World) -> None:
    first, second = world.copies(2)
    start = {name: torch.zeros_like(tensor) for name, tensor in first.items()}

    def training(end: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        return [{n: torch.lerp(start[n], end[n], t) for n in end} for t in (0.5, 0.8, 1.0)]

    claim = claims.simultaneous(
        world.symmetry,
        [training(first), training(second)],
        WeightMatching(),
        world.height,
        labels=("early", "later", "end"),
        generator=child(0),
    )
    assert claim.holds
    assert claim.heights.shape == (1, 3, 3)
    assert bool((claim.together <= 0.02).all())
    assert bool((claim.random[:, -1] > 0.2).all())
    assert claim.labels == ("early", "later", "end")


def test_matches_in_threads_are_those_made_one_after_the_other(world: World) -> None:
    copies = world.copies(4, noise=0.5)
    trainings = [[copy, {n: 2 * t for n, t in copy.items()}] for copy in copies]
    one, many = (
        claims.simultaneous(
            world.symmetry, trainings, WeightMatching(start="random"), world.height, threads=n, generator=child(0)
        )
        for n in (1, 3)
    )
    assert torch.equal(one.heights, many.heights)
    assert torch.equal(one.together, many.together)
    assert one.pairs == ((0, 1), (2, 3))


def test_masks_move_with_the_dense_permutation(world: World) -> None:
    """Levels of sparsity: pruned weights are zeros, so a permutation of the weights is one of the masks."""
    dense, other = world.copies(2, noise=0.0)

    def pruned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: torch.where(t.abs() > t.abs().median(), t, torch.zeros_like(t)) for n, t in weights.items()}

    claim = claims.simultaneous(
        world.symmetry,
        [[dense, pruned(dense)], [other, pruned(other)]],
        WeightMatching(),
        world.height,
        generator=child(0),
    )
    match: Match = WeightMatching()(world.symmetry, other, dense, generator=child(0))
    assert torch.equal(match.aligned(pruned(other))["0.weight"] == 0, pruned(dense)["0.weight"] == 0)
    assert float(claim.heights[0, 0, 1]) == 0.0


def test_cycles_of_copies_close_and_random_permutations_do_not(world: World) -> None:
    found = claims.cycles(
        world.symmetry, world.copies(4), WeightMatching(), world.height, lengths=(1, 3), paths=3, generator=child(0)
    )
    assert found.heights.shape == (2, 3)
    assert bool((found.fixed_share == 1).all())
    assert bool((found.heights <= 0.02).all())
    assert bool((found.random > 0.2).all())


def test_permutations_along_paths_are_products_of_matrices(world: World) -> None:
    # A matcher whose answers do not close: a permutation of its own for each ordered pair.
    generator, strangers = child(2), [world.symmetry.random(child(2, place)).apply(world.teacher) for place in range(4)]
    of = {(i, j): world.symmetry.random(generator) for i, j in itertools.permutations(range(4), 2)}
    place = {id(weights): number for number, weights in enumerate(strangers)}

    def matcher(_: Symmetry, moving: Weights, fixed: Weights, **__: object) -> Match:
        found = WeightMatching()(world.symmetry, moving, moving, generator=child(0))
        return dataclasses.replace(found, permutation=of[place[id(moving)], place[id(fixed)]])

    def length(start: Weights, end: Weights) -> float:
        return distance(start, end)

    found = claims.cycles(world.symmetry, strangers, matcher, length, lengths=(1, 2, 3), paths=4, generator=child(3))

    def matrices(i: int, j: int) -> list[Tensor]:
        return [torch.eye(20)[index] for index in of[i, j].indices.values()]

    again = child(3)
    for row, column in itertools.product(range(3), range(4)):
        stops = torch.randperm(4, generator=again)[: row + 2].tolist()
        world.symmetry.random(again)  # the control's
        total = [torch.eye(20), torch.eye(20)]
        for i, j in itertools.pairwise(stops):
            total = [step @ before for step, before in zip(matrices(i, j), total, strict=True)]
        start, (one, two) = strangers[stops[0]], total
        moved = {"0.weight": one @ start["0.weight"], "0.bias": one @ start["0.bias"],
                 "2.weight": two @ start["2.weight"] @ one.T, "2.bias": two @ start["2.bias"],
                 "4.weight": start["4.weight"] @ two.T, "4.bias": start["4.bias"]}  # fmt: skip
        assert float(found.heights[row, column]) == pytest.approx(distance(strangers[stops[-1]], moved), rel=1e-6)
        back = [step @ before for step, before in zip(matrices(stops[-1], stops[0]), total, strict=True)]
        share = sum(float(matrix.trace()) for matrix in back) / 40
        assert float(found.fixed_share[row, column]) == pytest.approx(share, abs=1e-12)


def test_what_cannot_be_tested_is_refused(world: World) -> None:
    copies = world.copies(2)
    matcher = WeightMatching()
    with pytest.raises(WeightsError, match="at least two"):
        claims.weak(world.symmetry, copies[:1], matcher, world.height, generator=child(0))
    with pytest.raises(SettingError, match="at least three"):
        claims.strong(world.symmetry, copies, matcher, world.height, generator=child(0))
    with pytest.raises(SettingError, match="lengths"):
        claims.cycles(world.symmetry, copies, matcher, world.height, lengths=(2,), generator=child(0))
    with pytest.raises(SettingError, match="same times"):
        claims.simultaneous(world.symmetry, [copies, copies[:1]], matcher, world.height, generator=child(0))
