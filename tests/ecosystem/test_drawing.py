"""Results as charts and in notebooks."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import isthmus
from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import over_pairs
from isthmus.integrations import plot

altair = pytest.importorskip("altair")


@dataclasses.dataclass(frozen=True, eq=False)
class Anything(Record):
    """A kind that no page knows."""

    steps: torch.Tensor
    loss: torch.Tensor
    heights: torch.Tensor
    names: tuple[str, ...]
    shares: dict
    mean: object
    note: str = "<script>alert(1)</script>"


@pytest.fixture
def anything():
    return Anything(
        torch.arange(4), torch.tensor([3.0, 2.0, float("nan"), 1.0]), torch.rand(3, 3), ("a", "b", "c"),
        {"one": 0.2, "two": 0.8}, over_pairs(torch.ones(5, 5) + torch.rand(5, 5)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def barrier():
    module = torch.nn.Linear(4, 3)
    network = isthmus.Network.of(module)
    other = {name: tensor.flip(0) for name, tensor in network.weights.items()}
    objective = isthmus.Objective(network, torch.randn(20, 4), torch.randint(3, (20,)))
    return isthmus.barrier(isthmus.Line(network.weights, other), objective, points=5)


def rows(chart) -> list:
    """Every row of data in a chart; Altair keeps them beside the definition."""
    return [row for values in chart.to_dict()["datasets"].values() for row in values]


def test_a_known_kind_gives_the_charts_of_its_page(barrier):
    charts = plot.charts(barrier)
    assert charts
    assert all(isinstance(chart, altair.TopLevelMixin) for chart in charts.values())
    drawn = {round(value, 9) for row in rows(plot.chart(barrier)) for value in row.values() if isinstance(value, float)}
    assert {round(float(value), 9) for value in barrier.loss} <= drawn
    assert plot.charts(barrier.to_dict()).keys() == charts.keys()
    assert plot.charts(barrier, language="ja").keys() != charts.keys()


def test_any_other_kind_is_drawn_from_its_fields(anything):
    charts = plot.charts(anything)
    assert set(charts) == {"loss", "heights", "shares"}
    line = {(row["x"], row["y"]) for row in rows(charts["loss"])}
    assert line == {(0, 3.0), (1, 2.0), (3, 1.0)}  # over the steps; what is not finite is left out
    assert {(row["row"], row["column"]) for row in rows(charts["heights"])} >= {("a", "c"), ("c", "b")}
    assert {row["name"] for row in rows(charts["shares"])} == {"one", "two"}


def test_charts_can_be_changed_and_saved(anything, tmp_path):
    altered = plot.chart(anything, "loss").properties(title="mine")
    assert altered.to_dict()["title"] == "mine"
    assert b"<svg" in plot.save(anything, tmp_path / "loss.svg", title="loss").read_bytes()
    with pytest.raises(SettingError, match="title must be one of loss, heights, shares, got nothing"):
        plot.chart(anything, "nothing")
    with pytest.raises(SettingError, match="named numbers to show, got Interval"):
        plot.chart(anything.mean)


def test_isthmus_plot_is_public():
    assert isthmus.plot is plot


def test_a_notebook_shows_pictures_and_numbers_and_escapes_names(anything, barrier):
    shown = anything._repr_html_()
    assert shown.count("<svg") == 3
    assert f"{anything.mean.estimate:.4g} [" in shown
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "<svg" in barrier._repr_html_()
    bundle = barrier._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert len(bundle["text/plain"]) < 100
    json.dumps(bundle)


def test_without_a_renderer_a_result_is_its_text(anything, monkeypatch):
    monkeypatch.setattr("isthmus.core.record.renderer", lambda form: None)
    assert anything._repr_html_() is None
    assert anything._repr_mimebundle_() == {"text/plain": repr(anything)}


def test_one_walker_is_drawn_as_many_are(barrier):
    """The matrices of a single walker have one row, and were left out: nothing was drawn at all."""
    network = isthmus.Network.of(torch.nn.Linear(4, 3))
    objective = isthmus.Objective(network, torch.randn(20, 4), torch.randint(3, (20,)))
    walk = isthmus.RandomWalk(step=0.05)(
        objective, network.weights, steps=4, generator=torch.Generator().manual_seed(0)
    )
    charts = plot.charts(walk)
    assert {"loss", "overlap", "distance", "metrics"} <= {title.lower() for title in charts}
    (losses,) = (chart for title, chart in charts.items() if title == "loss")
    assert [row["y"] for row in rows(losses)] == pytest.approx(walk.loss[0].tolist())


def test_a_symmetry_shows_its_groups_in_a_notebook():
    """Every index of every site filled the page."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    shown = isthmus.discover(module, torch.randn(2, 4))._repr_html_()
    assert "120 networks compute the same function" in shown
    assert "2.weight" in shown
    assert "tensor(" not in shown


def test_what_holds_tensors_says_what_it_is_in_a_line(tmp_path):
    from isthmus.integrations import Recorder, Trajectory

    data = isthmus.load_data("digits").limited(30)
    module = isthmus.resolve("mlp-4x1", inputs=(1, 8, 8))
    symmetry = isthmus.discover(module, data.train_inputs[:2])
    objective = isthmus.Objective(isthmus.Network.of(module), data.test_inputs, data.test_targets)
    (name,) = symmetry.by_name
    swap = isthmus.Permutation(symmetry, {name: torch.tensor([1, 0, 2, 3])})
    recorder = Recorder(tmp_path / "run", at=(0, 5))
    recorder.start({})
    recorder.seen(0, module.state_dict)
    assert repr(data) == "<Data digits: 30 training and 30 test examples of 1×8×8, 10 classes>"
    assert repr(objective) == "<Objective: cross_entropy over 30 examples, of a network of 310 parameters>"
    assert repr(swap) == "<Permutation of 1 groups: 2 of 4 units move>"
    assert repr(Trajectory.open(tmp_path / "run")) == f"<Trajectory in {tmp_path / 'run'}: steps 0; not finished>"
