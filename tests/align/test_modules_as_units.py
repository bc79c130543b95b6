"""Matching where units are modules beside each other: experts and their channels are recovered together."""

from __future__ import annotations

import pytest
import torch
from tests.discover.beside import CASES
from torch import Tensor, nn

import isthmus
from isthmus.align import (
    ActivationMatching,
    CycleConsistent,
    FrankWolfe,
    Matcher,
    SinkhornMatching,
    StraightThrough,
    SwapRefinement,
    WeightMatching,
    super_alignment,
    to_mean,
)
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights

NAMES = [
    "soft mixture", "best two, masked", "best two, sent", "gated experts", "experts with running statistics",
    "two mixtures", "mixtures of mixtures", "heads as modules", "branches of channels", "parts of a stream",
    "with a shared expert", "branches summed", "two factors",
]  # fmt: skip


def planted(name: str) -> tuple[nn.Module, Symmetry, dict[str, Tensor], dict[str, Tensor]]:
    """A module, its symmetry, random weights (biases small, so that no unit is always off), and these shuffled."""
    torch.manual_seed(0)
    module = CASES[name].make().double().eval()
    symmetry = isthmus.discover(module, torch.randn(CASES[name].shape, dtype=torch.float64), verify=False)
    fixed = {
        key: torch.rand_like(tensor) + 0.5
        if key.endswith("running_var")
        else torch.randn_like(tensor) * (0.2 if key.endswith("bias") else 1.0)
        for key, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    fixed |= {key: tensor for key, tensor in module.state_dict().items() if key not in fixed}
    return module, symmetry, fixed, symmetry.random(torch.Generator().manual_seed(5)).apply(fixed)


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("matcher", [WeightMatching(), WeightMatching(kernel="cosine"), FrankWolfe()])
def test_shuffled_experts_and_channels_are_recovered_by_weights(name: str, matcher: Matcher) -> None:
    _, symmetry, fixed, moving = planted(name)
    match = matcher(symmetry, moving, fixed, generator=torch.Generator().manual_seed(0))
    assert match.permutation.symmetry is symmetry
    assert same(match.aligned(moving), fixed)
    assert match.objective <= match.upper_bound * (1 + 1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "two factors"])
def test_shuffled_experts_and_channels_are_recovered_by_activations(name: str) -> None:
    module, symmetry, fixed, moving = planted(name)
    inputs = torch.randn(200, *CASES[name].shape[1:], dtype=torch.float64)
    matcher = ActivationMatching(Network.of(module), inputs)
    match = matcher(symmetry, moving, fixed, generator=torch.Generator().manual_seed(0))
    assert same(match.aligned(moving), fixed)
    # Experts that each see tokens of their own show nothing that could be compared; all others do.
    assert bool(match.notes) == (name == "best two, sent")


def test_an_expert_is_known_by_its_channels_whatever_their_order() -> None:
    """Branches without a router: only what is inside of them says which is which."""
    _, symmetry, fixed, moving = planted("branches summed")
    (group,) = [group for group in symmetry.groups if group.siblings]
    assert not group.sites
    match = WeightMatching()(symmetry, moving, fixed, generator=torch.Generator().manual_seed(0))
    assert same(match.aligned(moving), fixed)


def objective_of(name: str, module: nn.Module, teacher: Weights) -> Objective:
    """How far a network's answers are from a teacher's."""
    inputs = torch.randn(64, *CASES[name].shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = Network.of(module)
    targets = network(teacher, inputs).detach()
    return Objective(network, inputs, targets, lambda made, meant: (made - meant).square().mean(-1))


@pytest.mark.parametrize("kind", ["straight-through", "swaps", "l2", "midpoint"])
def test_matchers_that_look_at_the_loss_take_siblings(kind: str) -> None:
    name = "soft mixture"
    module, symmetry, fixed, moving = planted(name)
    objective = objective_of(name, module, fixed)
    made: dict[str, Matcher] = {
        "straight-through": StraightThrough(objective, steps=2, every=1),
        "swaps": SwapRefinement(objective, trials=2),
        "l2": SinkhornMatching(steps=2, every=1),
        "midpoint": SinkhornMatching("midpoint", objective, steps=2, every=1),
    }
    match = made[kind](symmetry, moving, fixed, generator=torch.Generator().manual_seed(0))
    assert same(match.aligned(moving), fixed)


def test_many_solutions_share_a_frame() -> None:
    _, symmetry, fixed, moving = planted("soft mixture")
    third = symmetry.random(torch.Generator().manual_seed(9)).apply(fixed)
    for found in (
        CycleConsistent()(symmetry, [fixed, moving, third], generator=torch.Generator().manual_seed(0)),
        to_mean(symmetry, [fixed, moving, third], WeightMatching(), generator=torch.Generator().manual_seed(0)),
    ):
        frames = found.aligned([fixed, moving, third])
        assert same(frames[1], frames[0])
        assert same(frames[2], frames[0])


def test_trajectories_of_checkpoints_are_aligned_as_one() -> None:
    _, symmetry, fixed, moving = planted("mixtures of mixtures")
    stack = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in fixed.items()}
    other = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in moving.items()}
    for biases in (True, False):
        match = super_alignment(
            symmetry, other, stack, WeightMatching(biases=biases), generator=torch.Generator().manual_seed(0)
        )
        assert same(match.permutation.apply(moving), fixed)
