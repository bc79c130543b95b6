"""Trained one-hidden-layer networks on digits: plain seeds are no hierarchy, families spawned from one run are."""

from __future__ import annotations

import functools

import lap
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from isthmus.cluster import distribution, hierarchy, overlaps, recovery
from isthmus.core.canonical import unit_scale
from isthmus.core.randomness import child
from isthmus.core.symmetry import Permutation, Site, Symmetry, UnitGroup
from isthmus.core.weights import unstack

HIDDEN, NETWORKS = 32, 12
ROWS = torch.arange(HIDDEN)[:, None]
SHAPES = {"w1": (HIDDEN, 64), "b1": (HIDDEN,), "w2": (10, HIDDEN), "b2": (10,)}
SITES = (Site("w1", 0, ROWS), Site("b1", 0, ROWS), Site("w2", 1, ROWS))
SYMMETRY = Symmetry((UnitGroup("hidden", HIDDEN, SITES),), SHAPES)
SCALES = Symmetry((UnitGroup("scale", HIDDEN, (*SITES[:2], Site("w2", 1, ROWS, power=-1.0)), kind="scale"),), SHAPES)


def _fresh(networks: int, seed: int) -> dict[str, torch.Tensor]:
    generator = child(seed, "initialisation")
    return {
        "w1": torch.randn(networks, HIDDEN, 64, generator=generator) * (2 / 64) ** 0.5,
        "b1": torch.zeros(networks, HIDDEN),
        "w2": torch.randn(networks, 10, HIDDEN, generator=generator) * HIDDEN**-0.5,
        "b2": torch.zeros(networks, 10),
    }


def _trained(start: dict[str, torch.Tensor], *, epochs: int, seed: int) -> dict[str, torch.Tensor]:
    """Each network sees the images in an order of its own."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimiser = torch.optim.SGD(weights.values(), lr=0.1, momentum=0.9)
    generator = child(seed, "order")
    for _ in range(epochs):
        order = torch.rand(len(start["w1"]), len(images), generator=generator).argsort(1)
        for batch in order.split(32, dim=1):
            hidden = torch.baddbmm(weights["b1"][:, None], images[batch], weights["w1"].transpose(1, 2)).relu()
            logits = torch.baddbmm(weights["b2"][:, None], hidden, weights["w2"].transpose(1, 2))
            loss = functional.cross_entropy(logits.flatten(0, 1), labels[batch].flatten(), reduction="sum") / 32
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {name: tensor.detach() for name, tensor in weights.items()}


def _align(moving, fixed) -> Permutation:
    gain = fixed["w1"] @ moving["w1"].T + fixed["w2"].T @ moving["w2"] + torch.outer(fixed["b1"], moving["b1"])
    return Permutation(
        SYMMETRY, {"hidden": torch.as_tensor(lap.lapjvr((gain.max() - gain).numpy(), return_cost=False)[1])}
    )


@pytest.fixture(scope="module")
def seeds() -> list[dict[str, torch.Tensor]]:
    return unstack(_trained(_fresh(NETWORKS, 0), epochs=5, seed=1))


@pytest.fixture(scope="module")
def families() -> list[dict[str, torch.Tensor]]:
    stems = _trained(_fresh(3, 2), epochs=1, seed=3)
    spawned = {name: tensor.repeat_interleave(NETWORKS // 3, 0) for name, tensor in stems.items()}
    return unstack(_trained(spawned, epochs=4, seed=4))


@pytest.mark.parametrize("alignment", ["raw", "reference", "pairwise"])
@pytest.mark.parametrize("normalise", [None, functools.partial(unit_scale, SCALES)], ids=["", "unit scale"])
def test_plain_seeds_are_no_hierarchy_and_families_are(seeds, families, alignment, normalise):
    found = {
        name: overlaps(solutions, alignment=alignment, aligner=_align, normalise=normalise)
        for name, solutions in (("seeds", seeds), ("families", families))
    }
    plain = hierarchy(found["seeds"], generator=child(0))
    spawned = hierarchy(found["families"], generator=child(0))
    assert not plain.hierarchical
    assert plain.gap.estimate > 0.6
    assert spawned.hierarchical
    assert spawned.gap.estimate < 0.3
    known = [index * 3 // NETWORKS for index in range(NETWORKS)]
    assert recovery(found["families"], known, generator=child(0), draws=99).score == 1.0


def test_aligning_raises_the_overlaps_of_seeds_from_nothing(seeds):
    means = [
        distribution(overlaps(seeds, alignment=alignment, aligner=_align), generator=child(0)).mean
        for alignment in ("raw", "reference", "pairwise")
    ]
    assert means[0].estimate == pytest.approx(0.0, abs=0.03)
    assert means[0].high < means[1].low
    assert means[1].estimate < means[2].low
