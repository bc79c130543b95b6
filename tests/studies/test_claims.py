"""How the claims are measured: settings that must change speed and memory, not results."""

import pytest
import torch

import isthmus
from isthmus.core.errors import DataError
from isthmus.studies.claims import Networks, check_claims
from isthmus.zoo.models import resolve


@pytest.fixture(scope="module")
def group():
    settings = {"inputs": (1, 8, 8), "classes": 10}
    modules = [resolve("mlp-8x1", seed=seed, **settings) for seed in range(2)]
    runs = [[dict(module.state_dict())] * 2 for module in modules]
    return Networks("small", modules[0], [run[0] for run in runs], trajectories=runs, steps=("1", "2"))


@pytest.fixture(scope="module")
def data():
    return isthmus.load_data("digits").limited(60)


def heights(group, data, **settings):
    found = check_claims([group], data, methods=("weights",), wanted=("times",), points=5, **settings)
    return found.tested[0].times.heights


def test_how_many_examples_and_points_go_at_once_does_not_matter(group, data):
    whole = heights(group, data)
    torch.testing.assert_close(heights(group, data, batch_size=7), whole)
    torch.testing.assert_close(heights(group, data, together=3), whole)
    assert whole.shape == (1, 2, 2)


def test_how_many_examples_go_at_once_is_the_callers_to_say(group, data):
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        heights(group, data, batch_size=0)


def test_points_at_once_are_the_callers_to_say(group, data, monkeypatch):
    together = []
    monkeypatch.setattr(
        "isthmus.studies.claims.barrier",
        lambda *_, **settings: together.append(settings["together"]) or type("Height", (), {"error_barrier": 0.0}),
    )
    heights(group, data, together=3)
    assert set(together) == {3}


def test_the_simplex_of_the_strong_claim_holds_losses_of_mean_networks(data):
    """A second way: the networks' means, run by hand."""
    modules = [resolve("mlp-8x1", seed=seed, inputs=(1, 8, 8), classes=10) for seed in range(3)]
    solutions = [dict(module.state_dict()) for module in modules]
    group = Networks("three", modules[0], solutions)
    found = check_claims([group], data, methods=("weights",), wanted=("strong",), points=3).tested[0].strong

    def by_hand(several):
        mean = {name: torch.stack([one[name] for one in several]).mean(0) for name in several[0]}
        logits = torch.func.functional_call(modules[0], mean, (data.test_inputs,))
        return float(torch.nn.functional.cross_entropy(logits, data.test_targets))

    assert found.naive_simplex == pytest.approx([by_hand(solutions[:k]) for k in (1, 2, 3)], rel=1e-5)
    assert found.simplex[0] == pytest.approx(by_hand([solutions[found.reference]]), rel=1e-5)  # the one that stays
    assert len(found.simplex) == len(found.simplex_highest) == 3
    assert all(high >= middle for high, middle in zip(found.simplex_highest, found.simplex, strict=True))
