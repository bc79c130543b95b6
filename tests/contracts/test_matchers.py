"""Every matcher of two solutions under one table: a new method is one row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isthmus.align import (
    ActivationMatching,
    FrankWolfe,
    Match,
    Matcher,
    SinkhornMatching,
    StraightThrough,
    SwapRefinement,
    WeightMatching,
)
from isthmus.align.descent import loss_over
from isthmus.core.errors import SymmetryError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.record import to_json
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights, combine, dot
from isthmus.discover import discover


class Residual(nn.Module):
    """A stream with one block of attention and one of two layers: shared groups, nested groups, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up = nn.Linear(8, 10)
        self.down = nn.Linear(10, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.embed(inputs)
        normed = self.norm(stream)
        stream = stream + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.head((stream + self.down(torch.relu(self.up(stream)))).mean(1))


class Convolutional(nn.Module):
    """BatchNorm, whose running statistics must move along, and a flatten: each channel has a block of features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5 * 16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(inputs)))
        return self.head(torch.relu(self.second(hidden)).flatten(1))


class Case:
    """A network, its symmetry, an objective, and solutions drawn at random."""

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        self.symmetry: Symmetry = discover(module.eval(), inputs[:2])
        self.network = Network.of(module)
        targets = torch.arange(len(inputs)) % 3
        self.objective = Objective(self.network, inputs, targets, batch_size=16)

    def solution(self, seed: int) -> dict[str, Tensor]:
        generator = child(seed, "solution")
        return {
            name: (torch.rand(t.shape, generator=generator) + 0.5 if "running" in name else _like(t, generator))
            if t.is_floating_point()
            else t.clone()
            for name, t in self.network.weights.items()
        }


def _like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tensor.shape, generator=generator) / max(tensor.numel() / len(tensor), 1) ** 0.5


INPUTS = {
    "dense": torch.randn(40, 4, generator=child(0, "dense")),
    "residual": torch.randn(40, 5, 4, generator=child(0, "residual")),
    "convolutional": torch.randn(40, 2, 4, 4, generator=child(0, "convolutional")),
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)),
    "residual": Residual,
    "convolutional": Convolutional,
}
METHODS: dict[str, Callable[[Case], Matcher]] = {
    "weights": lambda case: WeightMatching(),
    "weights, cosine": lambda case: WeightMatching(kernel="cosine"),
    "weights, no biases": lambda case: WeightMatching(biases=False),
    "weights, from the identity": lambda case: WeightMatching(start="identity", tolerance=0),
    "weights, restarts": lambda case: WeightMatching(start="random", restarts=2),
    "weights, relaxed start": lambda case: WeightMatching(start="frank_wolfe"),
    "weights, soft start": lambda case: WeightMatching(start="sinkhorn"),
    "activations": lambda case: ActivationMatching(case.network, case.objective.parts[0], batch_size=16),
    "activations, products": lambda case: ActivationMatching(
        case.network, case.objective.parts[0], kernel="inner_product", when="before", centred=False
    ),
    "Frank–Wolfe": lambda case: FrankWolfe(),
    "straight-through": lambda case: StraightThrough(case.objective, steps=4, every=2, batch_size=16),
    "Sinkhorn, L2": lambda case: SinkhornMatching(steps=10, every=5),
    "Sinkhorn, midpoint": lambda case: SinkhornMatching("midpoint", case.objective, steps=4, every=2, batch_size=16),
    "Sinkhorn, random point": lambda case: SinkhornMatching(
        "random_point", case.objective, steps=4, every=2, batch_size=16
    ),
    "swaps": lambda case: SwapRefinement(case.objective, trials=5),
}
BY_LOSS = [name for name in METHODS if name.startswith(("straight", "Sinkhorn, midpoint", "Sinkhorn, random", "swaps"))]
"""On untrained networks the loss between copies can fall below the copies' own: these need not find the planted one."""
BY_SIMILARITY = [name for name in METHODS if name not in BY_LOSS]


@pytest.fixture(scope="module", params=list(MODULES))
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return Case(MODULES[request.param](), INPUTS[request.param])


@pytest.fixture(params=list(METHODS))
def matcher(request: pytest.FixtureRequest, case: Case) -> Matcher:
    return METHODS[request.param](case)


def _copy(weights: Weights) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def _output(case: Case, weights: Weights) -> Tensor:
    double = {n: t.double() if t.is_floating_point() else t for n, t in weights.items()}
    return case.network(double, case.objective.parts[0].double())


def test_the_function_stays_and_the_inputs_are_untouched(case: Case, matcher: Matcher) -> None:
    moving, fixed = case.solution(1), case.solution(2)
    before = _copy(moving), _copy(fixed)
    match = matcher(case.symmetry, moving, fixed, generator=child(0, "match"))
    assert _same(moving, before[0])
    assert _same(fixed, before[1])
    torch.testing.assert_close(_output(case, match.aligned(moving)), _output(case, moving), rtol=1e-10, atol=1e-12)


def test_never_worse_than_the_identity_nor_above_the_bound(case: Case, matcher: Matcher) -> None:
    for seed in range(2):
        match = matcher(case.symmetry, case.solution(seed), case.solution(seed + 10), generator=child(seed, "match"))
        assert match.objective >= match.identity_objective
        if match.upper_bound == match.upper_bound:
            assert match.objective <= match.upper_bound + 1e-5 * abs(match.upper_bound)
        assert to_json(match)


def test_the_same_generator_gives_the_same_match(case: Case, matcher: Matcher) -> None:
    moving, fixed = case.solution(3), case.solution(4)
    first, second = (matcher(case.symmetry, moving, fixed, generator=child(5, "match")) for _ in range(2))
    assert first.permutation.same_as(second.permutation)
    assert first.objective == second.objective


@pytest.mark.parametrize("name", BY_SIMILARITY)
def test_a_network_is_matched_to_itself_by_the_identity(case: Case, name: str) -> None:
    solution = case.solution(6)
    match = METHODS[name](case)(case.symmetry, solution, _copy(solution), generator=child(0, "match"))
    assert match.permutation.is_identity


@pytest.mark.parametrize("name", [n for n in BY_SIMILARITY if n not in ("weights, restarts", "weights, no biases")])
def test_a_planted_permutation_comes_back(case: Case, name: str) -> None:
    moving = case.solution(7)
    planted = case.symmetry.random(child(8, "planted"))
    match = METHODS[name](case)(case.symmetry, moving, planted.apply(moving), generator=child(0, "match"))
    assert match.permutation.same_as(planted)


@pytest.mark.parametrize("name", BY_LOSS)
def test_a_loss_in_the_middle_is_no_higher_than_at_a_planted_permutation(case: Case, name: str) -> None:
    moving = case.solution(7)
    planted = case.symmetry.random(child(8, "planted"))
    match = METHODS[name](case)(case.symmetry, moving, planted.apply(moving), generator=child(0, "match"))
    assert -match.objective <= loss_over(case.objective, moving) + 1e-6


def test_weights_of_another_architecture_are_refused(case: Case, matcher: Matcher) -> None:
    solution = case.solution(9)
    name = next(iter(solution))
    shorter = {**solution, name: solution[name][1:]}
    with pytest.raises(SymmetryError, match="shapes"):
        matcher(case.symmetry, shorter, solution, generator=child(0, "match"))


@pytest.mark.parametrize("name", ["weights", "activations", "Frank–Wolfe"])
def test_weights_that_are_not_finite_are_refused(case: Case, name: str) -> None:
    solution = case.solution(9)
    tensor = next(n for n in solution if n.endswith("weight"))
    broken = {**solution, tensor: torch.full_like(solution[tensor], float("nan"))}
    with pytest.raises(WeightsError, match="finite"):
        METHODS[name](case)(case.symmetry, broken, solution, generator=child(0, "match"))


def test_the_objective_is_the_similarity_of_the_aligned_weights(case: Case) -> None:
    moving, fixed = case.solution(1), case.solution(2)
    match: Match = WeightMatching()(case.symmetry, moving, fixed, generator=child(0, "match"))
    counted = {site.tensor for group in case.symmetry.groups for site in group.sites if site.role == "match"}
    assert match.objective == pytest.approx(dot(match.aligned(moving), fixed, tensors=counted), rel=1e-9)
    middle = combine([match.aligned(moving), fixed], [0.5, 0.5])
    assert set(middle) == set(fixed)
