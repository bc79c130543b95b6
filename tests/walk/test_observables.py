"""Autocorrelation, effective samples, displacement: closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.walk.small import classifier

from isthmus.core.errors import SettingError
from isthmus.core.randomness import child
from isthmus.core.status import Status
from isthmus.walk import RandomWalk, Walk, autocorrelation, displacement, effective_samples, ruggedness


def _walk(loss: torch.Tensor, distance: torch.Tensor | None = None, every: int = 1) -> Walk:
    loss = loss.double()
    looks = loss.shape[1]
    return Walk(
        "test", {}, torch.arange(looks) * every, loss, {}, torch.ones_like(loss),
        torch.zeros_like(loss) if distance is None else distance, torch.ones(len(loss)), {}, Status.CONVERGED, (), {},
    )  # fmt: skip


def _ar1(walkers: int, looks: int, phi: float) -> torch.Tensor:
    noise = torch.randn(walkers, looks, generator=child(7, "ar1"), dtype=torch.float64).numpy()
    rows = np.empty_like(noise)
    rows[:, 0] = noise[:, 0] / math.sqrt(1 - phi**2)
    for t in range(1, looks):
        rows[:, t] = phi * rows[:, t - 1] + noise[:, t]
    return torch.from_numpy(rows)


def test_autocorrelation_equals_the_sums_of_the_definition():
    rows = torch.randn(2, 17, generator=child(0), dtype=torch.float64)
    found = autocorrelation(rows)
    for row, correlation in zip(rows.numpy(), found.numpy(), strict=True):
        centred = row - row.mean()
        full = np.correlate(centred, centred, mode="full")[16:]
        np.testing.assert_allclose(correlation, full / full[0], atol=1e-12)
    assert torch.isnan(autocorrelation(torch.ones(1, 5))).all()


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_effective_samples_of_an_autoregressive_walk(phi):
    rows = _ar1(8, 4000, phi)
    samples = effective_samples(rows)
    assert samples.time == pytest.approx((1 + phi) / (1 - phi), rel=0.12)
    assert samples.agreement == pytest.approx(1.0, abs=0.01)


def test_effective_samples_sees_walkers_that_disagree():
    rows = _ar1(4, 500, 0.0) + 3 * torch.arange(4)[:, None]
    samples = effective_samples(rows)
    # Halves of walks of variance 1 have means 0, 0, 3, 3, 6, 6, 9, 9, whose variance is 90/7.
    assert samples.agreement == pytest.approx(math.sqrt(1 + 90 / 7), rel=0.03)
    assert samples.total < 40


def test_ruggedness_is_the_correlation_length():
    phi = math.exp(-1 / 12)
    rough = ruggedness(_walk(_ar1(16, 3000, phi), every=5))
    assert rough.length.low < 60 < rough.length.high
    assert rough.length.estimate == pytest.approx(60, rel=0.15)
    assert float(rough.autocorrelation[0]) == pytest.approx(1.0)
    assert rough.lags[1] == 5


def test_displacement_exponents_of_known_motions():
    steps = torch.arange(401, dtype=torch.float64)
    for exponent in (0.5, 1.0, 2.0):
        distance = (3 * steps**exponent).sqrt().repeat(5, 1)
        found = displacement(_walk(distance, distance))
        assert found.exponent.estimate == pytest.approx(exponent, abs=1e-9)
        assert found.factor == pytest.approx(3.0, rel=1e-6)


def test_a_free_random_walk_diffuses_with_exponent_one():
    objective = classifier(hidden=40)
    walk = RandomWalk(step=0.02, sphere=False)(
        objective, objective.network.weights, steps=100, generator=child(0), walkers=12
    )
    found = displacement(walk)
    assert found.exponent.low <= 1.0 <= found.exponent.high
    assert found.exponent.estimate == pytest.approx(1.0, abs=0.06)
    held = displacement(
        RandomWalk(step=0.3)(objective, objective.network.weights, steps=100, generator=child(0), walkers=12)
    )
    assert held.exponent.high < 0.8


def test_too_short_walks_are_refused():
    with pytest.raises(SettingError, match="at least 8 looks"):
        ruggedness(_walk(torch.rand(2, 7)))
    with pytest.raises(SettingError, match="at least 8 looks"):
        effective_samples(torch.rand(2, 20), skip=13)
    with pytest.raises(SettingError, match="constant"):
        ruggedness(_walk(torch.ones(2, 20)))
    with pytest.raises(SettingError, match="constant"):
        effective_samples(torch.ones(2, 20))
    with pytest.raises(SettingError, match="three or more"):
        displacement(_walk(torch.rand(2, 3), torch.rand(2, 3)))
    with pytest.raises(SettingError, match="moved"):
        displacement(_walk(torch.rand(2, 9)))
