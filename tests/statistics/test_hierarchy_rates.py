"""The verdict's error rates, measured over 200 surrogates of each kind.

At a true rate of .05, more than 19 alarms of 200 have a chance of .3 %; at a power of .95, fewer than 181 finds
have the same.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isthmus.cluster import gaussian_solutions, hierarchy, overlaps, planted_tree
from isthmus.core.randomness import child

SURROGATES, LEVEL = 200, 0.05
MOST_ALARMS, LEAST_FOUND = 19, 181


def _calls(make, kind: str) -> tuple[int, float]:
    """How many of the surrogates are called hierarchical, and their mean K_KH."""
    calls, gaps = 0, []
    for seed in range(SURROGATES):
        generator = child(seed, "rates", kind)
        verdict = hierarchy(overlaps(make(generator)), generator=generator, level=LEVEL, draws=59)
        calls += verdict.hierarchical
        gaps.append(verdict.gap.estimate)
    return calls, float(np.mean(gaps))


def _spectrum(generator, *, power: float) -> list[dict[str, torch.Tensor]]:
    """A cloud whose variances fall as a power law."""
    scale = torch.arange(1, 301, dtype=torch.float64) ** (-power / 2)
    return [{"w": torch.randn(300, generator=generator, dtype=torch.float64) * scale} for _ in range(12)]


def _arc(generator) -> list[dict[str, torch.Tensor]]:
    """Points along a quarter of a circle."""
    angles = torch.rand(12, generator=generator) * 1.5
    return [{"w": torch.stack([angle.cos(), angle.sin()])} for angle in angles]


def _uneven(generator) -> list[dict[str, torch.Tensor]]:
    """Points that share differing parts of one direction."""
    common = torch.randn(300, generator=generator)
    return [
        {"w": common * (0.2 + torch.rand(1, generator=generator)) + torch.randn(300, generator=generator)}
        for _ in range(12)
    ]


def test_power_on_planted_trees():
    calls, gap = _calls(lambda g: planted_tree((3, 2, 2), generator=g).solutions, "tree")
    assert calls >= LEAST_FOUND
    assert gap < 0.2


def test_false_alarms_on_iid_gaussian_points():
    calls, gap = _calls(lambda g: gaussian_solutions(12, generator=g), "cloud")
    assert calls <= MOST_ALARMS
    assert gap > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda g: planted_tree((4, 3), generator=g).solutions,
        lambda g: planted_tree((3, 2, 2), shares=(0.1, 0.1, 0.8), generator=g).solutions,
        lambda g: planted_tree((2, 2, 3), entries=100, generator=g).solutions,
    ],
    ids=["one level", "weak", "few entries"],
)
def test_power_on_harder_trees(make):
    assert _calls(make, "harder")[0] >= LEAST_FOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda g: gaussian_solutions(12, generator=g, overlap=0.5),
        lambda g: gaussian_solutions(12, generator=g, entries=10),
        lambda g: _spectrum(g, power=1.0),
        lambda g: _spectrum(g, power=2.0),
        _arc,
        _uneven,
    ],
    ids=["common part", "ten dimensions", "spectrum 1/k", "spectrum 1/k²", "arc", "uneven"],
)
def test_false_alarms_on_other_clouds(make):
    assert _calls(make, "others")[0] <= MOST_ALARMS
