import pytest
import torch

from isthmus.core.errors import DataError, SettingError
from isthmus.noise import flipped, label_noise, out_of_fold


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(count, generator):
    """Three separate Gaussian clouds and their true labels."""
    labels = torch.arange(3).repeat(count)
    centres = torch.tensor([[4.0, 0], [-2, 3.5], [-2, -3.5]])
    return centres[labels] + torch.randn(len(labels), 2, generator=generator), labels


def nearest_mean(inputs, labels):
    """A predictor without hidden state: softmax of −½·squared distance to each label's mean."""
    means = torch.stack([inputs[labels == c].mean(0) for c in range(3)])
    return lambda held: (-torch.cdist(held, means).square() / 2).softmax(1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_planted_label_noise_is_found(share):
    generator = seeded()
    inputs, truth = clusters(300, generator)
    given = flipped(truth, share, classes=3, generator=generator)
    probabilities = out_of_fold(nearest_mean, inputs, given, generator=generator)
    found = label_noise(probabilities, given)
    planted = float((given != truth).double().mean())
    # The clouds overlap by about a percent.
    assert found.share == pytest.approx(planted, abs=0.03)
    assert found.disagreement == pytest.approx(planted, abs=0.03)
    assert float(found.joint.sum()) == pytest.approx(1)
    wrong = set((given != truth).nonzero().flatten().tolist())
    if share:
        first = found.suspects[: len(wrong) // 2].tolist()
        assert sum(place in wrong for place in first) > 0.95 * len(first)
        assert (found.margins.diff() >= 0).all()


def test_the_count_follows_its_definition():
    """Thresholds .8, .7 by hand: example 2 is labelled 0 and confidently 1; example 5 is confident in neither."""
    table = torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.1, 0.9], [0.2, 0.8], [0.35, 0.65], [0.5, 0.5]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    found = label_noise(table, labels)
    # Class 0: mean .65 → 0 and 1 reach it; class 1: mean .65 → 2, 3 and 4.
    assert found.suspects.tolist() == [2]
    assert found.margins.tolist() == pytest.approx([-0.8], abs=1e-6)
    assert torch.allclose(found.joint, torch.tensor([[2 / 6, 1 / 6], [0, 0.5]], dtype=torch.float64))
    assert found.share == pytest.approx(1 / 6)


def test_every_example_is_predicted_without_itself():
    seen = []

    def train(inputs, labels):
        seen.append(set(inputs.flatten().tolist()))

        def predict(held):
            assert not seen[-1] & set(held.flatten().tolist())
            return torch.full((len(held), 2), 0.5)

        return predict

    inputs, labels = torch.arange(20.0)[:, None], torch.tensor([0, 1] * 10)
    assert out_of_fold(train, inputs, labels, generator=seeded(), folds=4).shape == (20, 2)
    assert len(seen) == 4
    assert all(len(part) == 15 for part in seen)


def test_what_is_refused():
    table, labels = torch.full((4, 2), 0.5), torch.tensor([0, 0, 0, 1])
    with pytest.raises(DataError, match="at least two classes among the labels, got one"):
        label_noise(table, torch.zeros(4).long())
    with pytest.raises(DataError, match="labels must lie in 0 … 1"):
        label_noise(table, labels + 1)
    with pytest.raises(DataError, match="apply a softmax first"):
        label_noise(table * 3, labels)
    with pytest.raises(DataError, match="rarest has 1, folds are 2"):
        out_of_fold(nearest_mean, torch.zeros(4, 2), labels, generator=seeded(), folds=2)
    with pytest.raises(DataError, match="got one"):
        out_of_fold(nearest_mean, torch.zeros(4, 2), labels * 0, generator=seeded(), folds=2)
    with pytest.raises(SettingError, match="folds must be at least 2"):
        out_of_fold(nearest_mean, torch.zeros(4, 2), labels, generator=seeded(), folds=1)
