import itertools
import math

import pytest
import torch

from isthmus.core.errors import SettingError, SymmetryError
from isthmus.core.symmetry import Site, Symmetry, UnitGroup
from isthmus.noise import effective_redundancy, redundancy


def plain(*widths, extra=()):
    """The symmetry of a plain network whose hidden layers have these widths, between 3 inputs and 2 outputs."""
    sizes = [3, *widths, 2]
    tensors = {f"{i}.weight": (b, a) for i, (a, b) in enumerate(itertools.pairwise(sizes))}
    groups = []
    for layer, width in enumerate(widths):
        rows = torch.arange(width)[:, None]
        sites = (Site(f"{layer}.weight", 0, rows), Site(f"{layer + 1}.weight", 1, rows))
        groups.append(UnitGroup(f"{layer}", width, sites))
        groups += [UnitGroup(f"{layer} {kind}", width, sites, kind=kind) for kind in extra]
    return Symmetry(tuple(groups), tensors)


def test_the_published_count_of_a_wide_perceptron():
    found = redundancy(plain(512, 512, 512))
    assert found.log10_floored == 3498
    assert found.log10_copies == pytest.approx(3 * math.log10(math.factorial(512)), rel=1e-12)


def test_signs_and_scales_are_counted_apart():
    found = redundancy(plain(4, 3, extra=("sign", "scale")))
    assert found.log10_copies == pytest.approx(math.log10(24 * 6 * 2**7))
    assert found.scale_dimensions == 7
    assert found.groups[1].symmetry == "sign"


@pytest.fixture
def network():
    torch.manual_seed(0)
    symmetry = plain(6)
    return symmetry, {"0.weight": torch.randn(6, 3), "1.weight": torch.randn(2, 6)}


def test_different_units_give_every_copy(network):
    found = effective_redundancy(*network)
    assert found.log10_distinct == pytest.approx(math.log10(720))
    assert found.share == 1
    assert found.groups[0].duplicates == found.groups[0].dead == 0


def test_equal_units_and_dead_ones_take_copies_away(network):
    symmetry, weights = network
    weights["0.weight"][1], weights["1.weight"][:, 1] = weights["0.weight"][0], weights["1.weight"][:, 0]
    weights["1.weight"][:, 4:] = 0
    found = effective_redundancy(symmetry, weights)
    assert found.groups[0].dead == 2
    assert found.groups[0].duplicates == 2
    assert found.log10_distinct == pytest.approx(math.log10(720 / (2 * 2)))
    weights["0.weight"][3] = 0
    assert effective_redundancy(symmetry, weights).groups[0].dead == 3


def test_copies_within_the_noise_do_not_count(network):
    symmetry, weights = network
    weights["0.weight"][1] = weights["0.weight"][0] + 0.01
    weights["1.weight"][:, 1] = weights["1.weight"][:, 0] - 0.01
    assert effective_redundancy(symmetry, weights, noise=0.01).groups[0].duplicates == 1
    assert effective_redundancy(symmetry, weights, noise=0.001).groups[0].duplicates == 0
    only = {"0.weight": 0.01, "1.weight": 0.001}
    assert effective_redundancy(symmetry, weights, noise=only).groups[0].duplicates == 0
    assert effective_redundancy(symmetry, weights, noise=100.0).share == 0


def test_noise_joins_units_about_as_often_as_the_rule_says():
    """Two copies of one unit, each with noise: they count as equal in all but a few of a thousand draws (χ², 3σ)."""
    generator = torch.Generator().manual_seed(0)
    symmetry, joined = plain(2), 0
    for _ in range(300):
        weights = {
            "0.weight": 5 + torch.randn(2, 3, generator=generator),
            "1.weight": -5 + torch.randn(2, 2, generator=generator),
        }
        joined += effective_redundancy(symmetry, weights, noise=1.0).groups[0].duplicates
    # χ² with 5 degrees beyond 14.5 has a chance of 1.3 %: 0 to 12 of 300 at 99.9 %.
    assert 288 <= joined <= 300


def test_units_known_to_be_silent(network):
    symmetry, weights = network
    silent = {"0": torch.tensor([True, True, True, False, False, False])}
    assert effective_redundancy(symmetry, weights, silent=silent).log10_distinct == pytest.approx(math.log10(120))


def test_what_is_refused(network):
    symmetry, weights = network
    with pytest.raises(SettingError, match="zero or more"):
        effective_redundancy(symmetry, weights, noise=-1)
    with pytest.raises(SymmetryError, match="unknown: nope"):
        effective_redundancy(symmetry, weights, silent={"nope": torch.ones(1).bool()})
    with pytest.raises(SymmetryError, match="missing"):
        effective_redundancy(symmetry, {})
