"""Polynomial activations against NumPy's own polynomials, and the symmetry that each form leaves."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.discover import discover
from isthmus.zoo.networks import network
from isthmus.zoo.ortho_polynomial import FAMILIES, OrthoPolynomial, polynomials, with_polynomials

EVALUATED = {
    "chebyshev": np.polynomial.chebyshev.chebval,
    "legendre": np.polynomial.legendre.legval,
    "hermite": np.polynomial.hermite_e.hermeval,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_recurrences(family):
    points = torch.linspace(-1, 1, 21, dtype=torch.float64)
    for order, values in enumerate(polynomials(points, family, 6)):
        unit = np.eye(7)[order] / (math.sqrt(math.factorial(order)) if family == "hermite" else 1)
        np.testing.assert_allclose(values.numpy(), EVALUATED[family](points.numpy(), unit), atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["shared", "units", "degrees"])
def test_scale_is_a_rectifiers_and_huge_inputs_stay_bounded(family, form):
    made = OrthoPolynomial(family, degree=4, form=form, units=8).double()
    normal = torch.randn(200_000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert made(normal).square().mean(0).detach().tolist() == pytest.approx([0.5] * 8, rel=0.03)
    assert float(made(1e6 * normal[:10]).detach().abs().max()) < 20


def test_degrees_part_the_units_and_odd_ones_have_signs():
    module = network("ortho-12x1", inputs=(1, 8, 8), form="degrees", degree=3, family="legendre")
    found = discover(module, torch.zeros(2, 1, 8, 8), kinds=("permutation", "sign"))
    sizes = sorted((group.kind, group.size) for group in found.groups)
    assert sizes == [("permutation", 4)] * 3 + [("sign", 4)] * 2


def test_coefficients_of_units_move_with_them():
    found = discover(network("ortho-6x1", inputs=(1, 8, 8)), torch.zeros(2, 1, 8, 8))
    [group] = found.groups
    assert "2.coefficients" in {site.tensor for site in group.sites}
    assert group.size == 6


def test_a_users_module_takes_them():
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 3)).bfloat16()
    changed = with_polynomials(own, "hermite")
    assert changed(torch.randn(2, 1, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert isinstance(own[1], nn.GELU)
    assert isinstance(changed[1], OrthoPolynomial)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_users_module_units_stay_exchangeable_and_signs_and_scales_go(family):
    """One polynomial for all units is the same for each, but no longer homogeneous as a rectifier is."""
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    example = torch.zeros(2, 1, 8, 8)
    before, after = (
        discover(module, example, kinds=("permutation", "scale", "sign"))
        for module in (own, with_polynomials(own, family))
    )
    assert sorted(group.kind for group in before.groups) == ["permutation", "scale"]
    assert [group.kind for group in after.groups] == ["permutation"]
    assert after.log10_size == pytest.approx(math.log10(120))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OrthoPolynomial("laguerre"), "family must be one of"),
        (lambda: OrthoPolynomial(degree=0), "degree must be"),
        (lambda: OrthoPolynomial(form="degrees", degree=4, units=3), "at least 4 units"),
        (lambda: OrthoPolynomial(form="rows"), "form must be"),
        (lambda: with_polynomials(nn.Linear(2, 2)), "activation layers"),
    ],
)
def test_refusals(make, said):
    with pytest.raises(SettingError, match=said):
        make()
