"""Alignment of trained networks beside the published algorithm and rebasin: at least as alike, no higher between.

The published algorithm stands here once more, in its plainest form: every group in every sweep, in random order, one
product a site and SciPy's assignment, until none gains.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from torch import Tensor, nn

from isthmus.align import WeightMatching
from isthmus.connect import Line, barrier, reestimate
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import dot
from isthmus.discover import discover
from isthmus.zoo.networks import network

IMAGES = (1, 8, 8)


@dataclasses.dataclass
class Pair:
    """Two trained networks of one kind, and what they are measured on."""

    modules: tuple[nn.Module, nn.Module]
    symmetry: Symmetry
    objective: Objective
    inputs: Tensor

    @property
    def moving(self) -> dict[str, Tensor]:
        return dict(self.modules[0].state_dict())

    @property
    def fixed(self) -> dict[str, Tensor]:
        return dict(self.modules[1].state_dict())

    def product(self, aligned: dict[str, Tensor]) -> float:
        """⟨aligned, fixed⟩ over everything that is trained."""
        return dot(aligned, self.fixed, tensors=[name for name, _ in self.modules[0].named_parameters()])

    def height(self, aligned: dict[str, Tensor]) -> float:
        """The loss barrier; statistics of batch normalisation are estimated anew on the way and at the aligned end.

        The peer leaves running statistics where they were: its network would be broken, and a broken end hides any
        barrier.
        """
        network = self.objective.network
        if network.has_batch_statistics:
            aligned = reestimate(network, aligned, self.inputs)
        return barrier(Line(self.fixed, aligned), self.objective, points=7, inputs=self.inputs).loss_barrier


def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    return torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(digits.target)


def _trained(name: str, seed: int, epochs: int, **settings) -> nn.Module:
    images, labels = (part[:1200] for part in _digits())
    module = network(name, seed=seed, inputs=IMAGES, **settings).train()
    generator = child(seed, "order")
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    steps = epochs * math.ceil(len(images) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return module.eval()


def _pair(name: str, seeds: tuple[int, int], epochs: int, **settings) -> Pair:
    modules = (_trained(name, seeds[0], epochs, **settings), _trained(name, seeds[1], epochs, **settings))
    images, labels = _digits()
    symmetry = discover(modules[0], images[:2])
    held_out = Objective(Network.of(modules[0]), images[1200:], labels[1200:])
    return Pair(modules, symmetry, held_out, images[:400])


def published(symmetry: Symmetry, moving: dict[str, Tensor], fixed: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Ainsworth et al., arXiv 2209.04836, algorithm 1."""
    generator, current = child(seed, "order"), dict(moving)
    for _ in range(100):
        gained = False
        for place in torch.randperm(len(symmetry.groups), generator=generator).tolist():
            group = symmetry.groups[place]
            alike = torch.zeros(group.size, group.size, dtype=torch.float64)
            for site in group.matched:
                flat = site.index.reshape(-1)
                left, right = (
                    side[site.tensor].index_select(site.dim, flat).movedim(site.dim, 0).reshape(group.size, -1).double()
                    for side in (fixed, current)
                )
                alike += left @ right.T
            order = torch.from_numpy(linear_sum_assignment(alike.numpy(), maximize=True)[1])
            if float(alike[torch.arange(group.size), order].sum() - alike.trace()) > 1e-9:
                gained = True
                for site in group.sites:
                    length = symmetry.tensors[site.tensor][site.dim]
                    current[site.tensor] = current[site.tensor].index_select(site.dim, site.moved(length, order))
        if not gained:
            break
    return current


def rebasin_aligned(pair: Pair) -> dict[str, Tensor]:
    """The peer's own answer; it permutes its second network."""
    peer = pytest.importorskip("rebasin", reason="the peer is not installed")
    import copy

    first, second = copy.deepcopy(pair.modules)
    peer.PermutationCoordinateDescent(second, first, pair.inputs[:8], logging_level="ERROR").rebasin()
    return dict(first.state_dict())


def _compare(pairs: list[Pair], *, peer: bool) -> None:
    """No pair less alike than the identity or than others; the barriers' sum no higher, up to a twentieth.

    Networks so narrow that every midpoint guesses would tell nothing: their barriers do not depend on the alignment.
    """
    heights: dict[str, list[float]] = {"ours": [], "identity": [], "published": [], "rebasin": []}
    products: dict[str, list[float]] = {name: [] for name in heights}
    for seed, pair in enumerate(pairs):
        found = WeightMatching()(pair.symmetry, pair.moving, pair.fixed, generator=child(seed, "match"))
        answers = {
            "ours": found.aligned(pair.moving),
            "identity": pair.moving,
            "published": published(pair.symmetry, pair.moving, pair.fixed, seed),
        }
        if peer:
            answers["rebasin"] = rebasin_aligned(pair)
        for name, aligned in answers.items():
            products[name].append(pair.product(aligned))
            heights[name].append(pair.height(aligned))
    for name in ("identity", "published", *(["rebasin"] if peer else [])):
        assert all(ours >= theirs * (1 - 1e-6) for ours, theirs in zip(products["ours"], products[name], strict=True))
        assert sum(heights["ours"]) <= sum(heights[name]) * 1.05 + 0.005 * len(pairs), name


def test_small_networks_beside_the_published_algorithm() -> None:
    _compare([_pair("mlp", (seed, seed + 10), 6, width=32, depth=2) for seed in range(2)], peer=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "epochs"),
    [
        ("mlp", {"width": 128, "depth": 3}, 10),
        ("vgg", {"channels": (32, 64)}, 5),
        ("resnet20", {"width": 1.0, "blocks": 3}, 5),
    ],
)
def test_trained_networks_beside_both(name: str, settings: dict, epochs: int) -> None:
    _compare([_pair(name, (seed, seed + 10), epochs, **settings) for seed in range(2)], peer=True)
