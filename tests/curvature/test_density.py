import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.core.operator import Operator
from isthmus.curvature import density, eigenpairs, hessian
from isthmus.curvature.density import quadrature


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_known_spectrum_within_the_bar(spread):
    operator, values = spread
    result = density(operator, generator=seeded(), probes=5, steps=40)
    assert result.distance(values) < 0.01
    assert result.size * result.moment(1) == pytest.approx(float(values.sum()), rel=0.03)
    assert result.share_below(0.0) == pytest.approx(0.02, abs=0.008)
    assert result.products == 240


def test_outliers_come_once_with_their_exact_share(spread):
    """No ghosts: above 2 there are eight eigenvalues of 600, and the density has just their share."""
    operator, values = spread
    for outliers in (None, eigenpairs(operator, 8)):
        result = density(operator, generator=seeded(), probes=3, steps=60, outliers=outliers)
        assert 1 - result.share_below(2.0) == pytest.approx(8 / 600, abs=1e-9)
        assert torch.allclose(result.outliers.sort().values[-8:], values[-8:], rtol=1e-6)


def test_quadrature_is_exact_for_moments_up_to_twice_the_steps(spread):
    """Gauss: with m nodes all moments below 2m of the probe's own measure are exact."""
    operator, _ = spread
    start = torch.randn(600, 1, generator=seeded(), dtype=torch.float64)
    known = torch.zeros(600, 0, dtype=torch.float64)
    nodes, weights, settled = quadrature(operator, start, 6, orthogonal_to=known)
    unit, image = start / start.norm(), start / start.norm()
    for power in range(1, 12):
        image = operator @ image
        assert float((weights * nodes**power).sum()) == pytest.approx(float((unit * image).sum()), rel=1e-9)
    assert not settled.all()


@pytest.mark.parametrize("steps", [15, 25])
def test_the_interval_covers_the_truth_point_by_point(steps):
    """Few steps leave the bulk's cumulative density a coarse staircase; the interval knows."""
    values = (torch.randn(400, generator=seeded(5), dtype=torch.float64).square() * 0.05).sort().values
    values[-3:] = torch.tensor([15.0, 22, 30], dtype=torch.float64)
    operator = Operator(400, lambda vectors: values[:, None] * vectors, dtype=torch.float64)
    places = torch.tensor([0.005, 0.02, 0.05, 0.1, 0.15], dtype=torch.float64)
    truth = torch.searchsorted(values, places, right=True) / 400
    covered, width = torch.zeros(5), torch.zeros(5)
    for seed in range(20):
        result = density(operator, generator=seeded(seed), probes=5, steps=steps, level=0.9)
        at = torch.searchsorted(result.at, places, right=True) - 1
        covered += (result.low[at] <= truth) & (truth <= result.high[at])
        width += (result.high - result.low)[at] / 20
    # At 90 % fewer than 14 of 20 have a chance of 2e-3 a place; the interval must also say something.
    assert (covered >= 14).all(), covered
    assert (width < 0.5).all(), width


def test_small_matrices_are_exact(classifier, exact):
    truth = torch.linalg.eigvalsh(exact.hessian(classifier, classifier.network.weights))
    operator = hessian(classifier, classifier.network.weights, dtype=torch.float64)
    result = density(operator, generator=seeded())
    assert result.distance(truth) < 1e-12
    assert torch.equal(result.low, result.high)
    assert result.cumulative[-1] == pytest.approx(1)


def test_an_exhausted_krylov_space():
    """Three distinct eigenvalues: the space ends after three steps, and the shares are right."""
    values = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64).repeat_interleave(torch.tensor([500, 300, 200]))
    operator = Operator(1000, lambda vectors: values[:, None] * vectors, dtype=torch.float64)
    result = density(operator, generator=seeded(), probes=8, steps=20)
    assert result.share_below(0.5) == pytest.approx(0.5, abs=0.06)
    assert result.share_below(2.0) == pytest.approx(0.8, abs=0.05)
    assert result.distance(values) < 0.15


def test_a_float32_operator(spread):
    operator, values = spread
    single = Operator(600, lambda vectors: (operator @ vectors.double()).float())
    result = density(single, generator=seeded(), probes=5, steps=60)
    assert result.distance(values) < 0.01
    assert 1 - result.share_below(2.0) == pytest.approx(8 / 600, abs=1e-6)


def test_smoothing_keeps_the_mass(spread):
    result = density(spread[0], generator=seeded(), probes=3, steps=30)
    grid = torch.linspace(-3, 35, 4000, dtype=torch.float64)
    drawn = result.smoothed(grid, width=0.1)
    assert float(torch.trapezoid(drawn, grid)) == pytest.approx(1, abs=1e-3)


def test_what_is_refused(spread):
    with pytest.raises(SettingError, match="at least 2 probes and 2 steps, got 1 and 80"):
        density(spread[0], generator=seeded(), probes=1)
