"""Metropolis, Langevin and the level-set walk sample the laws that they state."""

from __future__ import annotations

import math

import pytest
import torch
from tests.walk.quadratic import bowl

from isthmus.core.errors import SettingError
from isthmus.core.randomness import child
from isthmus.walk import Langevin, LevelSet, Metropolis, effective_samples

CURVATURES = [0.5, 2.0, 8.0]
TEMPERATURE = 0.3


def _variances(walker, *, steps: int, skip: int, walkers: int = 160) -> torch.Tensor:
    """Second moments of the places over all walkers and kept steps, from the kept weights."""
    objective, start = bowl(CURVATURES)
    keep = list(range(skip, steps + 1, 10))
    walk = walker(objective, start, steps=steps, generator=child(3, "thermal"), walkers=walkers, every=10, keep=keep)
    assert not walk.diverged
    places = torch.stack([walk.kept[step]["theta"] for step in keep])
    return places.square().mean((0, 1))


def test_metropolis_holds_detailed_balance_on_a_quadratic():
    variances = _variances(Metropolis(temperature=TEMPERATURE, step=0.35, scale="even"), steps=700, skip=200)
    expected = TEMPERATURE / torch.tensor(CURVATURES, dtype=torch.float64)
    # 160 walkers × 51 looks, correlated over some 40 steps: one standard error is about 2 %.
    torch.testing.assert_close(variances, expected, rtol=0.08, atol=0.0)


def test_metropolis_flux_between_halves_balances():
    """Detailed balance itself: as many steps from loss below the median to above it as back."""
    objective, start = bowl(CURVATURES)
    walk = Metropolis(temperature=TEMPERATURE, step=0.35, scale="even")(
        objective, start, steps=800, generator=child(5, "flux"), walkers=64
    )
    # The mean energy of a quadratic is T/2 for each dimension (equipartition).
    assert float(walk.loss[:, 200:].mean()) == pytest.approx(1.5 * TEMPERATURE, rel=0.05)
    low = walk.loss[:, 200:] < 0.8 * TEMPERATURE
    rest = walk.loss[:, 200:] > 2.0 * TEMPERATURE
    up = int((low[:, :-1] & rest[:, 1:]).sum())
    down = int((rest[:, :-1] & low[:, 1:]).sum())
    assert up + down > 200
    assert abs(up - down) < 4 * math.sqrt(up + down)


@pytest.mark.parametrize("adjusted", [True, False])
def test_langevin_variance_is_the_closed_form(adjusted):
    rate = 0.12
    variances = _variances(
        Langevin(temperature=TEMPERATURE, rate=rate, adjusted=adjusted), steps=700, skip=200, walkers=256
    )
    curvatures = torch.tensor(CURVATURES, dtype=torch.float64)
    expected = TEMPERATURE / curvatures
    if not adjusted:
        # 4 % to 92 % more than exact: the two rows of this table cannot both pass with the same code.
        expected = expected / (1 - rate * curvatures / 2)
    torch.testing.assert_close(variances, expected, rtol=0.08, atol=0.0)


def test_cold_langevin_is_gradient_descent():
    objective, _ = bowl([1.0, 2.0])
    start = {**objective.network.weights, "theta": torch.tensor([1.0, -1.0], dtype=torch.float64)}
    walk = Langevin(temperature=0.0, rate=0.1, adjusted=False)(objective, start, steps=3, generator=child(0), keep=[3])
    expected = torch.tensor([0.9**3, -(0.8**3)], dtype=torch.float64)
    torch.testing.assert_close(walk.kept[3]["theta"][0], expected, rtol=1e-12, atol=0.0)


def test_level_set_walk_is_uniform_below_the_level():
    """A bowl of equal curvature: the region is a disc, where half the area lies within radius R/√2."""
    objective, start = bowl([1.0, 1.0])
    walk = LevelSet(level=0.5, step=0.6, scale="even")(
        objective, start, steps=600, generator=child(9, "level"), walkers=64
    )
    assert float(walk.loss.max()) <= 0.5
    radius = walk.distance[:, 100:]
    # P(r ≤ ρ) = ρ² on the unit disc.
    for limit in (0.5, math.sqrt(0.5), 0.9):
        assert float((radius <= limit).double().mean()) == pytest.approx(limit**2, abs=0.03)


def test_tuning_reaches_the_wanted_acceptance_and_then_stops():
    objective, start = bowl([1.0] * 20)
    walk = Metropolis(temperature=0.1, step=5.0, scale="even", tune=400)(
        objective, start, steps=1200, generator=child(1, "tune"), walkers=16
    )
    assert float(walk.acceptance.mean()) == pytest.approx(0.234, abs=0.05)
    assert float(walk.loss[:, 600:].mean()) == pytest.approx(20 * 0.1 / 2, rel=0.08)


def test_on_the_sphere_proposals_stay_there_and_sample_the_law():
    """On a circle with loss ½λ₁θ₁² + ½λ₂θ₂² the mean of cos² follows by quadrature."""
    objective, _ = bowl([1.0, 3.0])
    start = {**objective.network.weights, "theta": torch.tensor([1.0, 0.0], dtype=torch.float64)}
    keep = list(range(100, 601, 5))
    walk = Metropolis(temperature=0.5, step=0.8, scale="even", sphere=True)(
        objective, start, steps=600, generator=child(2, "sphere"), walkers=64, keep=keep
    )
    places = torch.stack([walk.kept[step]["theta"] for step in keep])
    torch.testing.assert_close(places.norm(dim=2), torch.ones(places.shape[:2], dtype=torch.float64))
    angle = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)[:-1]
    law = torch.exp(-(angle.cos().square() + 3 * angle.sin().square()) / 2 / 0.5)
    expected = float((law * angle.cos().square()).sum() / law.sum())
    assert float(places[..., 0].square().mean()) == pytest.approx(expected, abs=0.02)


def test_effective_samples_of_a_thermal_walk_are_fewer_than_its_looks():
    objective, start = bowl([1.0, 1.0])
    walk = Metropolis(temperature=1.0, step=0.5, scale="even")(
        objective, start, steps=500, generator=child(4, "ess"), walkers=8
    )
    samples = effective_samples(walk, skip=100)
    assert samples.looks == 8 * 400
    assert samples.total < samples.looks / 3
    assert samples.agreement < 1.1


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Metropolis(), "temperature must be given"),
        (lambda: Metropolis(temperature=1.0, step=0.0), "step must be positive"),
        (lambda: Metropolis(temperature=1.0, sphere=True), "scale='even'"),
        (lambda: Metropolis(temperature=1.0, scale="odd"), "filter or even"),
        (lambda: Metropolis(temperature=1.0, tune=-1), "tune must not be negative"),
        (lambda: LevelSet(), "level must be given"),
        (lambda: Langevin(temperature=0.0, rate=0.1), "temperature must be positive"),
        (lambda: Langevin(temperature=1.0, rate=0.0), "rate must be positive"),
    ],
)
def test_impossible_settings_are_refused(build, words):
    with pytest.raises(SettingError, match=words):
        build()


def test_a_start_above_the_level_is_refused():
    objective, _ = bowl([1.0])
    start = {**objective.network.weights, "theta": torch.tensor([2.0], dtype=torch.float64)}
    with pytest.raises(SettingError, match="must not lie below the start's loss 2"):
        LevelSet(level=1.0, scale="even")(objective, start, steps=2, generator=child(0))
