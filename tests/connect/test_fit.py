"""Learned curves: they go round a hill whose best detour is known, on any module."""

import pytest
import torch
from torch import nn

from isthmus.connect import Bezier, Line, Polygon, barrier, bend, fit
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.status import Status


class Ring(nn.Module):
    """Loss (|w|² − 1)²: every point of the unit circle is a minimum, opposite ones are parted by a hill of height 1."""

    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, inputs):
        return (self.point.square().sum() - 1).square().expand(len(inputs))


def ring():
    return Objective(
        Network.of(Ring()), torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4), loss=lambda o, t: o, metrics={}
    )


def ends():
    return [{"point": torch.tensor(p, dtype=torch.float64)} for p in ((-1.0, 0.0), (1.0, 0.1))]


@pytest.mark.parametrize(("kind", "bends"), [(Bezier, 1), (Bezier, 3), (Polygon, 1), (Polygon, 3)])
def test_a_curve_finds_its_way_round_a_hill(kind, bends):
    start, end = ends()
    objective, first = ring(), bend(start, end, bends=bends, kind=kind)
    before = [{n: t.clone() for n, t in point.items()} for point in first.points]
    result = fit(
        first,
        objective,
        steps=600,
        generator=child(0, "fit"),
        optimiser=lambda tensors: torch.optim.Adam(tensors, lr=0.03),
    )
    straight = barrier(Line(start, end), objective).loss_barrier
    assert straight == pytest.approx(1.0, abs=0.05)
    # One bend leaves a quadratic detour whose best maximum is small but not zero; three bends hug the circle.
    limit = 0.35 if kind is Polygon and bends == 1 else 0.12
    assert barrier(result.path, objective).loss_barrier < limit
    assert isinstance(result.path, kind)
    assert result.path.points[0] is start
    assert result.path.points[-1] is end
    assert all(torch.equal(p["point"], q["point"]) for p, q in zip(first.points, before, strict=True))
    assert len(result.losses) == 600
    assert result.status is Status.STOPPED


def test_the_expected_loss_of_a_quadratic_is_minimised_where_calculus_says():
    # L(w) = w², ends at 1 and 1, one Bezier bend b: minimise ∫((1−t)² + t² + 2t(1−t)b)² dt, which gives b = −1.5.
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, inputs):
            return self.w.square().expand(len(inputs))

    objective = Objective(
        Network.of(Square()), torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2), loss=lambda o, t: o, metrics={}
    )
    one = {"w": torch.ones((), dtype=torch.float64)}
    result = fit(
        bend(one, one),
        objective,
        steps=4000,
        generator=child(0, "fit"),
        optimiser=lambda tensors: torch.optim.SGD(tensors, lr=0.1),
    )
    assert float(result.path.points[1]["w"]) == pytest.approx(-1.5, abs=0.15)


class TiedNorms(nn.Module):
    """Tied weights, BatchNorm, dropout and a counter: what layers of special classes would have to copy."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.drop(torch.relu(self.second(torch.relu(self.norm(self.first(inputs)))))))


def test_any_module_may_be_fitted_and_nothing_else_changes():
    objectives, weights = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        network = Network.of(TiedNorms())
        weights.append(network.weights)
        inputs = torch.randn(33, 4, generator=child(0, "x"))
        objectives.append(Objective(network, inputs, torch.arange(33) % 3, batch_size=8))
    copies = [{n: t.clone() for n, t in w.items()} for w in weights]
    result = fit(bend(*weights), objectives[0], steps=40, generator=child(1, "fit"), batch_size=8)
    for point, copy in zip(weights, copies, strict=True):
        assert all(torch.equal(point[name], copy[name]) for name in point)
    learned = result.path.points[1]
    assert torch.equal(learned["first.weight"], learned["second.weight"])
    assert not torch.equal(learned["first.weight"], algebra.lerp(weights[0], weights[1], 0.5)["first.weight"])
    assert not any(tensor.requires_grad for tensor in learned.values())
    measured = barrier(result.path, objectives[0], points=5, inputs=objectives[0].inputs)
    assert measured.path == "Bezier"
    assert measured.treated == ("norm",)


def test_augmentation_sees_every_batch():
    start, end = ends()
    seen = []

    def transform(inputs, generator):
        seen.append(len(inputs[0]))
        return inputs

    fit(bend(start, end), ring(), steps=5, generator=child(0, "fit"), batch_size=2, transform=transform)
    assert seen == [2, 2, 2, 2, 2]


def test_divergence_is_told():
    start, end = ends()
    result = fit(
        bend(start, end),
        ring(),
        steps=50,
        generator=child(0, "fit"),
        optimiser=lambda tensors: torch.optim.SGD(tensors, lr=1e6),
    )
    assert result.status is Status.DIVERGED
    assert len(result.losses) < 50


def test_settings_out_of_range():
    start, end = ends()
    with pytest.raises(SettingError, match="steps must be at least 1"):
        fit(bend(start, end), ring(), steps=0, generator=child(0, "fit"))
    with pytest.raises(SettingError, match="at least 3 points"):
        fit(Bezier((start, end)), ring(), steps=1, generator=child(0, "fit"))
    with pytest.raises(SettingError, match="at least 1 bend"):
        bend(start, end, bends=0)


def test_tokens_stay_whole_numbers_and_numbers_take_the_precision_of_the_weights():
    generator = torch.Generator().manual_seed(0)
    for module, inputs in (
        (nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), torch.randint(5, (12,), generator=generator)),
        (nn.Linear(4, 3), torch.randn(12, 4, generator=generator)),
    ):
        ends = [{n: torch.randn(t.shape, generator=generator).double() for n, t in module.state_dict().items()}] * 2
        objective = Objective(Network.of(module), inputs, torch.arange(12) % 3)
        found = fit(bend(*ends, bends=1), objective, steps=3, generator=generator)
        assert torch.isfinite(found.losses).all()
