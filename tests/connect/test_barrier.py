"""Barriers: conventions in closed form, exact ends, adaptive grids, normalisation policies, pairs."""

import math

import pytest
import torch
from tests.connect.landscapes import norm_net, norm_objective, point, valley
from torch import nn

from isthmus.connect import Barrier, Line, barrier
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.score import Score
from isthmus.core.status import Status


def cosine_hill(outputs, targets):
    # The valley's output along a line is t² · |end|²; this makes the loss a cosine bump of known height in t.
    t = outputs.sqrt()
    return 1 - torch.cos(2 * math.pi * t)


def test_conventions_of_a_quadratic_are_those_of_its_closed_form():
    # L(t) = mean over centres of |p(t) − c|²: convex along the line, so nothing rises above the chord.
    objective = valley(torch.zeros(4, 2, dtype=torch.float64))
    result = barrier(Line(point(1.0, 0.0), point(-3.0, 0.0)), objective, points=5)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert torch.allclose(result.loss, (1 - 4 * t).square(), atol=1e-12)
    assert result.loss_barrier == 0.0
    assert result.loss_barrier_over_mean == pytest.approx(9.0 - 5.0)
    assert result.midpoint == pytest.approx(1.0 - 5.0)
    assert math.isnan(result.error_barrier)


def test_concave_quadratic_has_its_known_barrier():
    objective = valley(torch.zeros(4, 1, dtype=torch.float64), lambda outputs, targets: -outputs)
    # L(t) = −(t·2 − 1)²·… from −1 to −1 through 0 at the middle: the barrier is 1 in both conventions.
    result = barrier(Line(point(-1.0), point(1.0)), objective)
    assert result.loss_barrier == pytest.approx(1.0)
    assert result.loss_barrier_over_mean == pytest.approx(1.0)
    assert result.midpoint == pytest.approx(1.0)


def test_midpoint_is_scored_when_the_grid_has_none():
    objective = valley(torch.zeros(1, 1, dtype=torch.float64), lambda outputs, targets: -outputs)
    result = barrier(Line(point(-1.0), point(1.0)), objective, points=4)
    assert len(result.positions) == 4
    assert result.midpoint == pytest.approx(1.0)
    assert result.loss_barrier == pytest.approx(1 - 1 / 9)


def test_a_solution_has_no_barrier_to_itself_and_direction_does_not_matter():
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    network = Network.of(module)
    generator = child(0, "barrier")
    other = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in network.weights.items()}
    inputs = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    objective = Objective(network, inputs, torch.randint(4, (50,), generator=generator))
    same = barrier(Line(other, other), objective, points=7)
    assert same.loss_barrier <= 1e-15
    assert same.error_barrier == 0.0
    there = barrier(Line(network.weights, other), objective, points=7)
    back = barrier(Line(other, network.weights), objective, points=7)
    assert torch.allclose(there.loss, back.loss.flip(0), rtol=1e-12)
    assert there.loss_barrier == pytest.approx(back.loss_barrier, rel=1e-12)


def ridge(width):
    # Height 1 at t = .31, between the nodes of every grid below.
    return valley(torch.zeros(1, 1, dtype=torch.float64), lambda o, _: torch.exp(-((o.sqrt() - 0.31) / width).square()))


@pytest.mark.parametrize("bound", [0.05, 0.005, 0.0005])
def test_adaptive_grid_keeps_its_bound_on_a_narrow_peak(bound):
    line = Line(point(0.0), point(1.0))
    result = barrier(line, ridge(0.05), points=13, adaptive=bound)
    fine = barrier(line, ridge(0.05), points=2001)
    assert result.status is Status.CONVERGED
    assert result.uncertainty <= bound
    assert -1e-6 <= fine.loss_barrier - result.loss_barrier <= bound


@pytest.mark.parametrize("points", [13, 25, 49])
def test_a_fixed_grid_says_how_much_it_may_miss(points):
    line = Line(point(0.0), point(1.0))
    coarse = barrier(line, ridge(0.12), points=points)
    missed = barrier(line, ridge(0.12), points=2001).loss_barrier - coarse.loss_barrier
    assert missed <= coarse.uncertainty <= 4 * missed + 0.02


def test_adaptive_grid_says_when_it_ran_out_of_points():
    objective = valley(torch.zeros(1, 1, dtype=torch.float64), cosine_hill)
    result = barrier(Line(point(0.0), point(1.0)), objective, points=4, adaptive=1e-9, most=9)
    assert result.status is Status.STOPPED
    assert len(result.positions) <= 9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"points": 2}, "points must be at least 3 to see inside the path, got 2"),
        ({"positions": [0.0, 1.0]}, "positions must be at least 3"),
        ({"positions": [0.1, 0.5, 1.0]}, "increase from 0 to 1"),
        ({"positions": [0.0, 0.5, 0.5, 1.0]}, "increase from 0 to 1"),
        ({"adaptive": 0.0}, "must be above 0"),
        ({"normalisation": "magic"}, "normalisation must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    objective = valley(torch.zeros(1, 1, dtype=torch.float64))
    with pytest.raises(SettingError, match=words):
        barrier(Line(point(0.0), point(1.0)), objective, **settings)


def test_nan_at_an_end_is_refused_and_inside_the_path_is_reported():
    objective = valley(torch.zeros(1, 1, dtype=torch.float64))
    with pytest.raises(WeightsError, match="the end of the path must be finite"):
        barrier(Line(point(0.0), point(math.nan)), objective)
    broken = valley(torch.zeros(1, 1, dtype=torch.float64), lambda o, t: torch.where(o == 0.25, math.nan, o))
    result = barrier(Line(point(0.0), point(1.0)), broken, points=3)
    assert math.isnan(result.loss_barrier)
    assert math.isnan(result.uncertainty)


def test_ends_keep_their_own_statistics_and_inner_points_get_fresh_ones():
    objective, inputs = norm_objective()
    start, end = (Network.of(norm_net(seed)).weights for seed in (0, 1))
    result = barrier(Line(start, end), objective, points=5, inputs=inputs)
    assert float(result.loss[0]) == objective(start).loss
    assert float(result.loss[-1]) == objective(end).loss
    assert result.normalisation == "reestimate"
    assert result.treated == ("1",)
    # The same from the definition: the whole data in one batch, in training mode, on an ordinary module.
    module = norm_net(0)
    module.load_state_dict({n: start[n] + 0.25 * (end[n] - start[n]) if "num" not in n else start[n] for n in start})
    module.train()
    expected = nn.functional.cross_entropy(module(inputs), objective.targets).detach()
    assert float(result.loss[1]) == pytest.approx(float(expected), rel=1e-10)
    assert result.treated_ends is not None
    treated = result.between_treated_ends()
    assert float(treated.loss[0]) == result.treated_ends[0].loss != float(result.loss[0])
    assert torch.equal(treated.loss[1:-1], result.loss[1:-1])


def test_interpolated_statistics_are_a_policy_of_their_own():
    objective, _ = norm_objective()
    start, end = (Network.of(norm_net(seed)).weights for seed in (0, 1))
    line = Line(start, end)
    result = barrier(line, objective, points=5, normalisation="interpolate")
    assert result.treated == ()
    assert float(result.loss[1]) == pytest.approx(objective(line(0.25)).loss, rel=1e-12)


def test_reestimation_without_data_is_refused():
    objective, _ = norm_objective()
    start = objective.network.weights
    with pytest.raises(SettingError, match="normalisation=reestimate must have inputs"):
        barrier(Line(start, start), objective)


def test_half_precision_is_evaluated_as_it_would_be_stored():
    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).bfloat16() for _ in range(2)]
    networks = [Network.of(module) for module in modules]
    inputs, targets = torch.randn(20, 5), torch.randint(3, (20,))
    objective = Objective(networks[0], inputs, targets)
    line = Line(networks[0].weights, networks[1].weights)
    result = barrier(line, objective, points=3)
    assert result.dtype == "bfloat16"
    mixed = {
        name: ((networks[0].weights[name].float() + networks[1].weights[name].float()) / 2).bfloat16()
        for name in networks[0].weights
    }
    assert float(result.loss[1]) == objective(mixed).loss
    full = barrier(line.to(dtype=torch.float32), objective, points=3)
    assert full.dtype == "float32"
    assert full.loss[1] != result.loss[1]


def test_nothing_is_written_to():
    objective, inputs = norm_objective()
    start, end = ({n: t.clone() for n, t in Network.of(norm_net(seed)).weights.items()} for seed in (0, 1))
    before = [{n: t.clone() for n, t in w.items()} for w in (start, end, objective.network.weights)]
    data = inputs.clone()
    barrier(Line(start, end), objective, inputs=inputs, points=5)
    for weights, copy in zip((start, end, objective.network.weights), before, strict=True):
        assert all(torch.equal(weights[name], copy[name]) for name in weights)
    assert torch.equal(data, inputs)


def test_records_are_plain():
    curve = torch.tensor([0.0, 1.0, 0.0])
    record = Barrier(torch.tensor([0.0, 0.5, 1.0]), curve, {"error": curve / 2}, Score(1.0, {"error": 0.5}, 4))
    assert record.to_dict()["error_barrier"] == 0.5
    assert record.to_dict()["midpoint_error"] == 0.5
    assert not record.stable


def test_a_module_s_own_parameters_are_ends_like_others():
    """As ``dict(module.named_parameters())`` gives them: they ask for gradients that no path needs."""
    torch.manual_seed(0)
    modules = [nn.Linear(3, 4), nn.Linear(3, 4)]
    objective = Objective(Network.of(modules[0]), torch.randn(20, 3), torch.arange(20) % 4)
    asked, plain = (
        barrier(Line(*ends), objective, points=5)
        for ends in ([dict(m.named_parameters()) for m in modules], [m.state_dict() for m in modules])
    )
    assert torch.equal(asked.loss, plain.loss)


def test_weights_in_place_of_a_path_are_told():
    network = Network.of(nn.Linear(2, 2))
    objective = Objective(network, torch.zeros(3, 2), torch.tensor([0, 1, 0]))
    with pytest.raises(SettingError, match=r"path must be a curve such as Line\(start, end\), got dict"):
        barrier(dict(network.weights), objective)
