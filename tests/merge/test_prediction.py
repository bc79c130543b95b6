"""Scores before merging against closed forms."""

import math

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.weights import lerp
from isthmus.merge.prediction import FROM_WEIGHTS, SCORES, loss_scores, predict


def vectors(*rows):
    return [{"w": torch.tensor(row, dtype=torch.float64)} for row in rows]


def test_scores_from_weights_in_closed_form():
    base, holder, other = vectors([1.0, 1.0, 1.0], [4.0, 1.0, 5.0], [1.0, 3.0, -3.0])
    scores = loss_scores(holder, lerp(holder, other, 0.5), other=other, base=base)
    # τ = (3, 0, 4), o − b = (0, 2, −4), m − b = (1.5, 1, 0)
    assert tuple(scores) == FROM_WEIGHTS
    assert scores["distance"] == pytest.approx(math.sqrt(9 + 4 + 64))
    assert scores["displacement"] == pytest.approx(math.sqrt(1.5**2 + 1 + 16) / 5)
    assert scores["angle"] == pytest.approx(1 + 16 / (5 * math.sqrt(20)))
    assert scores["dilution"] == pytest.approx(1 - 4.5 / 25)
    assert scores["sign_conflict"] == pytest.approx(4 / 7)


def test_a_merge_that_is_the_holder_loses_nothing():
    base, holder, other = vectors([0.0, 0.0], [1.0, 2.0], [3.0, -1.0])
    scores = loss_scores(holder, holder, other=other, base=base)
    assert scores["displacement"] == scores["dilution"] == 0.0


def linear(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Linear(4, 3).to(dtype)


def test_curvature_of_a_linear_model_is_its_fisher_form():
    """For logits linear in the weights J is exact, so ½ dᵀ F d follows from the outputs of h and m alone."""
    network = Network.of(linear())
    base = network.weights
    holder, other = linear(1).state_dict(), linear(2).state_dict()
    merged = lerp(holder, other, 0.5)
    inputs = torch.randn(50, 4, dtype=torch.float64, generator=child(0))
    scores = loss_scores(holder, merged, other=other, base=base, network=network, inputs=inputs, batch_size=7)
    assert set(scores) == set(SCORES)
    logits, change = network(holder, inputs), network(merged, inputs) - network(holder, inputs)
    p = logits.softmax(1)
    matrices = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    wanted = 0.5 * torch.einsum("ei,eij,ej->e", change, matrices, change).mean()
    assert scores["curvature"] == pytest.approx(float(wanted), rel=1e-6)
    moved = float((network(merged, inputs).argmax(1) != logits.argmax(1)).double().mean())
    assert moved > 0
    assert scores["disagreement"] == scores["linear_disagreement"] == pytest.approx(moved)


def test_curvature_is_the_second_order_of_the_divergence():
    """KL(h ‖ h + εd) / ε² tends to the score, for a network with hidden units."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    network = Network.of(module)
    holder = {name: tensor.clone() for name, tensor in network.weights.items()}
    generator = child(1)
    merged = {n: t + torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in holder.items()}
    base = {n: torch.zeros_like(t) for n, t in holder.items()}
    inputs = torch.randn(40, 4, dtype=torch.float64, generator=generator)
    found = loss_scores(holder, merged, other=merged, base=base, network=network, inputs=inputs)["curvature"]
    near = lerp(holder, merged, 1e-4)
    log_p, log_q = (network(w, inputs).log_softmax(1) for w in (holder, near))
    divergence = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
    assert found == pytest.approx(divergence / 1e-8, rel=2e-3)


def test_running_statistics_and_half_precision():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    network = Network.of(module)
    holder = {n: t + 0.1 if t.is_floating_point() else t for n, t in network.weights.items()}
    other = {n: t * 2 if t.is_floating_point() else t for n, t in network.weights.items()}
    inputs = torch.randn(30, 4, generator=child(0))
    whole = loss_scores(
        holder, lerp(holder, other, 0.5), other=other, base=network.weights, network=network, inputs=inputs
    )
    half = {
        name: {n: t.bfloat16() if t.is_floating_point() else t for n, t in weights.items()}
        for name, weights in {"holder": holder, "other": other, "base": network.weights}.items()
    }
    found = loss_scores(
        half["holder"], lerp(half["holder"], half["other"], 0.5), other=half["other"], base=half["base"],
        network=network, inputs=inputs,
    )  # fmt: skip
    assert found["angle"] == pytest.approx(whole["angle"], abs=0.1)
    assert found["curvature"] == pytest.approx(whole["curvature"], rel=0.3)
    # Doubled running statistics are no task vector: without them the distance is that of the parameters alone.
    names = network.parameter_names
    square = sum(float((holder[n] - other[n]).square().sum()) for n in names)
    assert whole["distance"] == pytest.approx(math.sqrt(square), rel=1e-5)


def test_what_cannot_be_scored():
    base, holder, other = vectors([0.0, 0.0], [1.0, 2.0], [3.0, -1.0])
    with pytest.raises(WeightsError, match="learned nothing"):
        loss_scores(base, holder, other=other, base=base)
    with pytest.raises(SettingError, match="need the network"):
        loss_scores(holder, other, other=other, base=base, inputs=torch.zeros(2, 2))
    with pytest.raises(WeightsError, match="same shapes"):
        loss_scores(holder, other, other={"w": torch.zeros(3)}, base=base)


def test_the_most_endangered_solution_comes_first():
    base, loud, quiet = vectors([0.0, 0.0], [10.0, 0.0], [0.0, 1.0])
    found = predict({"loud": loud, "quiet": quiet}, {"w": torch.tensor([9.0, 0.1])}, base=base)
    assert found.names == ("quiet", "loud")
    assert found.by == "dilution"
    assert [round(scores["dilution"], 6) for scores in found.scores] == [0.9, 0.1]
    again = predict({"loud": loud, "quiet": quiet}, {"w": torch.tensor([9.0, 0.1])}, base=base, by="displacement")
    assert again.names == ("quiet", "loud")
    assert again.scores[0]["displacement"] == pytest.approx(math.sqrt(81 + 0.81))


def test_with_inputs_classes_that_change_decide():
    """One solution's answers survive the merge, the other's do not, though both move equally far."""
    module = nn.Linear(2, 2, bias=False).double()
    network = Network.of(module)
    eye = torch.eye(2, dtype=torch.float64)
    solutions = {"kept": {"weight": eye}, "turned": {"weight": -eye}}
    merged, base = {"weight": 0.1 * eye}, {"weight": torch.full((2, 2), 0.01, dtype=torch.float64)}
    inputs = torch.randn(20, 2, dtype=torch.float64, generator=child(0))
    found = predict(solutions, merged, base=base, network=network, inputs=inputs)
    assert found.by == "disagreement"
    assert found.names == ("turned", "kept")
    assert [scores["disagreement"] for scores in found.scores] == [1.0, 0.0]


def test_the_other_of_three_is_the_mean_of_two():
    base, one, two, three = vectors([0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 4.0])
    scores = predict({"1": one, "2": two, "3": three}, one, base=base)
    found = dict(zip(scores.names, scores.scores, strict=True))
    assert found["1"]["distance"] == pytest.approx(math.sqrt(1 + 9))


def test_predictions_that_cannot_be_made():
    base, one, two = vectors([0.0], [1.0], [2.0])
    with pytest.raises(SettingError, match="at least 2"):
        predict({"one": one}, one, base=base)
    with pytest.raises(SettingError, match="by must be one of distance"):
        predict({"one": one, "two": two}, one, base=base, by="curvature")
