import dataclasses

import pytest
import torch
from torch import nn

from isthmus.core.errors import DataError, SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.noise import flipped, metric_choice, under_augmentation, under_label_noise, under_resampling
from isthmus.noise.resampling import by_example


@pytest.fixture
def objective():
    torch.manual_seed(0)
    network = Network.of(nn.Linear(4, 3))
    return Objective(network, torch.randn(200, 4), torch.randint(3, (200,)), batch_size=64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_resampling_has_the_standard_error_of_a_mean(objective):
    weights = objective.network.weights
    names, table, counts = by_example(objective, weights)
    assert bool((counts == 1).all())
    assert names == ("loss", "error")
    found = under_resampling(objective, weights, generator=seeded(), draws=2000)
    score = objective(weights)
    for spread, column, value in zip(found, table.T, (score.loss, score.error), strict=True):
        assert spread.value == pytest.approx(value, rel=1e-6)
        # A standard deviation from 2,000 draws has an error of 1.6 %: four of them.
        assert spread.deviation == pytest.approx(float(column.std(correction=0)) / 200**0.5, rel=0.065)
        assert spread.low < spread.value < spread.high


def test_flipping_gives_the_share_that_was_asked_for():
    targets = torch.arange(3).repeat(4000)
    wrong = flipped(targets, 0.3, classes=3, generator=seeded())
    assert float((wrong != targets).double().mean()) == pytest.approx(0.3, abs=0.017)
    assert set(wrong.tolist()) == {0, 1, 2}
    for given in range(3):
        others = torch.bincount(wrong[(targets == given) & (wrong != targets)], minlength=3)
        assert others[given] == 0
        assert float(others.max() / others.sum()) < 0.57
    assert torch.equal(flipped(targets, 0.0, classes=3, generator=seeded()), targets)


def test_wrong_labels_shift_the_error_as_arithmetic_says(objective):
    """A share s of uniform other labels turns an error e into e + s·(1 − e) − s·e/2 on average, for three classes."""
    weights = objective.network.weights
    found = under_label_noise(objective, weights, share=0.2, classes=3, generator=seeded(), draws=300)
    error = found[1].value
    expected = error + 0.2 * (1 - error) - 0.2 * error / 2
    assert found[1].mean == pytest.approx(expected, abs=4 * found[1].deviation / 300**0.5)
    assert found[0].mean > found[0].value - 4 * found[0].deviation


def test_augmentation_that_does_nothing_has_no_spread(objective):
    weights = objective.network.weights
    still = under_augmentation(objective, weights, lambda inputs, g: inputs, generator=seeded(), draws=3)
    assert [spread.deviation for spread in still] == pytest.approx([0, 0], abs=1e-12)

    def noisy(inputs, generator):
        return (inputs[0] + torch.randn(inputs[0].shape, generator=generator),)

    assert under_augmentation(objective, weights, noisy, generator=seeded(), draws=5)[0].deviation > 0


def test_metrics_that_disagree_are_found(objective):
    """A large scale ruins the loss and leaves the error; a bias ruins both."""
    weights = objective.network.weights
    best = nn.functional.one_hot(objective.targets, 3).T.float() @ objective.inputs / 200
    good = {"weight": best, "bias": torch.zeros(3)}
    loud = {"weight": best * 50, "bias": torch.zeros(3)}
    poor = {"weight": -best, "bias": weights["bias"]}
    found = metric_choice(objective, [loud, good, poor], generator=seeded(), draws=100)
    assert found.best[0] == 1
    assert found.best[1] in {0, 1}
    assert found.agreement.shape == (2, 2)
    assert float(found.agreement[0, 1]) < 0.9
    assert found.stability[0] > 0.9
    same = metric_choice(objective, [good, {k: v.clone() for k, v in poor.items()}], generator=seeded(), draws=50)
    assert same.agreement[0, 1] == pytest.approx(1)


def test_tokens_count_as_parts_of_their_example():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Embedding(5, 5)))
    tokens = torch.randint(5, (7, 4))
    objective = Objective(network, tokens, tokens.roll(1, 1), batch_size=3)
    _, table, counts = by_example(objective, network.weights)
    assert table.shape == counts.shape == (7, 2)
    assert float((table / counts)[:, 0].mean()) == pytest.approx(objective(network.weights).loss, rel=1e-6)


def test_what_is_refused(objective):
    weights = objective.network.weights
    with pytest.raises(SettingError, match="draws must be at least 2"):
        under_resampling(objective, weights, generator=seeded(), draws=1)
    with pytest.raises(SettingError, match="share in 0 … 1"):
        flipped(objective.targets, 1.5, classes=3, generator=seeded())
    with pytest.raises(DataError, match="at least 2 solutions"):
        metric_choice(dataclasses.replace(objective), [weights], generator=seeded())


def test_examples_average_over_the_tokens_that_count_and_buffers_may_be_wider():
    module = torch.nn.Linear(3, 5).bfloat16()
    module.register_buffer("seen", torch.zeros(1))
    network, targets = Network.of(module), torch.randint(5, (4, 6))
    targets[:, 4:] = -100
    objective = Objective(network, torch.randn(4, 6, 3), targets, batch_size=3)
    names, values, counts = by_example(objective, network.weights)
    short = Objective(network, objective.inputs[:, :4], targets[:, :4])
    assert names == ("loss", "error")
    assert torch.allclose(values, by_example(short, network.weights)[1])
    assert bool((counts == 4).all())


def padded(ignored=-100):
    """Sequences of 1 to 5 tokens that count, of six; the last has none."""
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 4)))
    tokens, targets = torch.randint(7, (20, 6)), torch.randint(4, (20, 6))
    for place, row in enumerate(targets):
        row[place % 5 + 1 :] = ignored
    targets[-1] = ignored
    return Objective(network, tokens, targets, batch_size=7)


def test_every_source_begins_at_the_objective_s_own_numbers_where_labels_are_ignored():
    objective = padded()
    weights, score = objective.network.weights, objective(objective.network.weights)
    found = [
        under_resampling(objective, weights, generator=seeded(), draws=400),
        under_label_noise(objective, weights, share=0.5, classes=4, generator=seeded(), draws=5),
        under_augmentation(objective, weights, lambda inputs, g: inputs, generator=seeded(), draws=2),
    ]
    for loss, error in found:
        assert (loss.value, error.value) == pytest.approx((score.loss, score.error), rel=1e-6)
    # A ratio of sums: its bias is far below its own spread.
    assert found[0][0].mean == pytest.approx(score.loss, abs=0.3 * found[0][0].deviation)


def test_ignored_labels_are_never_flipped():
    targets = padded().targets
    wrong = flipped(targets, 1.0, classes=4, generator=seeded())
    assert torch.equal(wrong == -100, targets == -100)
    assert not bool((wrong == targets)[targets != -100].any())


def test_a_network_of_nan_is_never_chosen(objective):
    weights = objective.network.weights
    broken = {name: tensor * torch.nan for name, tensor in weights.items()}
    for solutions, best in (([broken, weights], 1), ([weights, broken], 0)):
        found = metric_choice(objective, solutions, generator=seeded(), draws=20)
        assert found.best == (best, best)
        assert found.stability == (1.0, 1.0)
