"""The probe: what it picks follows from what it measures, and from what gives the right result."""

import dataclasses

import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.train import Recipe, choice
from isthmus.train.batches import Batches
from isthmus.train.choice import choose
from isthmus.train.engines import Sequential, Stretch, Vectorised
from isthmus.train.task import prepare
from isthmus.zoo import Data, build


def group(replicas: int = 3, network: str = "mlp-6x1"):
    recipe = Recipe(network=network, settings={"inputs": [1, 4, 4], "classes": 2}, batch_size=8)
    inputs, targets = torch.randn(32, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 2
    data = Data(inputs, targets, inputs, targets, 2)
    batches = Batches.of(recipe.replicates(replicas), data, device=torch.device("cpu"))
    task, state = prepare(batches.recipes, build, inputs[:2], classes=2, device=torch.device("cpu"))
    return task, state, Stretch(batches, batches.plan(0, apart=False), 0, 4, 0, torch.full((4,), 0.1))


def measured(monkeypatch, **seconds: float) -> None:
    """Pretend that a step of all replicas takes so long."""

    def take(self, engine, *, replicas=None):
        if replicas is not None:
            return seconds["sequential"] * replicas / self.state.count
        return seconds["compiled" if "compiled" in engine.name else "vectorised"]

    monkeypatch.setattr(choice._Probe, "seconds", take)


@pytest.mark.parametrize(
    ("seconds", "steps", "wanted"),
    [
        ({"sequential": 1.0, "vectorised": 0.5}, 50, "vectorised"),
        ({"sequential": 1.0, "vectorised": 0.99}, 50, "sequential"),  # no more than the probe's own noise
        ({"sequential": 1.0, "vectorised": 3.0}, 50, "sequential"),
        ({"sequential": 1.0, "vectorised": 0.1}, 15, "sequential"),  # trying it would cost four of the fifteen steps
        ({"sequential": 0.01, "vectorised": 0.001}, 10, "sequential"),  # over before a trace is made
    ],
)
def test_the_fastest_is_picked_where_it_pays(monkeypatch, seconds, steps, wanted):
    measured(monkeypatch, **seconds)
    engine, notes = choose(*group(), steps=steps, engine="auto")
    assert engine.name == wanted
    assert notes == ()


def test_compiling_is_tried_only_for_long_trainings(monkeypatch):
    tried = []
    monkeypatch.setattr(choice._Probe, "check", lambda self, engine: tried.append(engine.name))
    measured(monkeypatch, sequential=1.0, vectorised=0.5, compiled=0.1)
    assert choose(*group(), steps=100, engine="auto")[0].name == "vectorised"
    assert choose(*group(), steps=1000, engine="auto")[0].name == "vectorised and compiled"
    assert tried == ["vectorised", "vectorised", "vectorised and compiled"]


@pytest.mark.parametrize(("steps", "wanted"), [(100, []), (1000, ["vectorised and compiled"])])
def test_one_network_alone_may_be_compiled(monkeypatch, steps, wanted):
    tried = []
    monkeypatch.setattr(choice._Probe, "check", lambda self, engine: tried.append(engine.name))
    measured(monkeypatch, sequential=1.0, vectorised=0.5, compiled=0.1)
    assert choose(*group(1), steps=steps, engine="auto")[0].name == (wanted or ["sequential"])[0]
    assert tried == wanted


@pytest.mark.parametrize("count", [2, 16])
def test_no_trial_costs_more_than_a_quarter_of_what_it_could_save(monkeypatch, count):
    tried = []
    monkeypatch.setattr(choice, "_candidates", lambda task, count, stretch: ["vectorised", "graphs", "compiled graphs"])
    monkeypatch.setattr(choice, "_ALL", {name: lambda task, name=name: tried.append(name) for name in choice._ALL})
    monkeypatch.setattr(choice._Probe, "check", lambda self, engine: None)
    monkeypatch.setattr(choice._Probe, "seconds", lambda self, engine: float("inf"))
    for steps, single in ((1000, 0.01), (2000, 0.02), (10_000, 0.02), (10_000, 0.1)):
        tried.clear()
        choice._fastest(group()[0], _Counted(count), single=single, steps=steps)
        left = single * steps / choice._MARGIN
        for name in ("vectorised", "graphs", "compiled graphs"):
            cost = 0.6 + (count if "graphs" in name else 0) + (75 if "compiled" in name else 0) + 4 * left / steps
            assert (name in tried) == (4 * cost <= left), (name, steps, single)


class _Counted(choice._Probe):
    """Knows only how many replicas there are."""

    def __init__(self, count: int) -> None:
        self.state, self.stretch = type("State", (), {"count": count})(), None


@pytest.mark.parametrize(("last", "wanted"), [(0.5, "sequential, channels last"), (1.1, "sequential")])
def test_convolutions_on_a_cpu_may_have_their_channels_last(monkeypatch, last, wanted):
    monkeypatch.setattr(
        choice._Probe, "seconds", lambda self, engine, replicas=None: last if "last" in engine.name else 1.0
    )
    assert choose(*group(1, "vgg-4"), steps=100, engine="auto")[0].name == wanted
    assert choose(*group(1), steps=100, engine="auto")[0].name == "sequential"  # nothing to lay out


@pytest.mark.parametrize(
    ("rounds", "wanted"),
    [
        ([0.80, 0.82, 0.81], "sequential"),  # the first look at the plain loop was disturbed
        ([1.1, 1.1, 0.85, 0.8, 0.85], "sequential"),  # won twice only: by chance, perhaps
        ([1.1, 0.85, 1.1, 1.1], "vectorised"),  # lost once only
        ([1.0, 1.1, 1.05], "vectorised"),
    ],
)
@pytest.mark.parametrize("first", [0.9, 1.2])
def test_close_engines_are_timed_again_in_turns(monkeypatch, rounds, wanted, first):
    """Also where the first look at the candidate was disturbed, in a long training."""
    told = {"sequential": iter([1.0, *rounds]), "vectorised": iter([first, 0.9, 0.91, 0.92, 0.9, 0.9])}
    monkeypatch.setattr(choice, "_COMPILING_STEP", 1e9)

    def take(self, engine, *, replicas=None):
        return next(told[engine.name]) * (replicas or self.state.count) / self.state.count

    monkeypatch.setattr(choice._Probe, "seconds", take)
    assert choose(*group(), steps=250, engine="auto")[0].name == wanted
    assert next(told["sequential"], None) is None


def test_a_short_training_believes_the_first_look(monkeypatch):
    asked = []

    def take(self, engine, *, replicas=None):
        asked.append(engine.name)
        return 1.2 if engine.name == "vectorised" else (replicas or self.state.count) / self.state.count

    monkeypatch.setattr(choice._Probe, "seconds", take)
    assert choose(*group(), steps=28, engine="auto")[0].name == "sequential"
    assert asked == ["sequential", "vectorised"]


def test_many_replicas_may_go_in_chunks(monkeypatch):
    task, state, stretch = group(20)
    monkeypatch.setattr(
        choice._Probe, "seconds", lambda self, engine, replicas=None: 0.1 if "chunks" in engine.name else 1.0
    )
    assert choose(task, state, stretch, steps=100, engine="auto")[0].name == "vectorised, in chunks of 16"


def test_an_engine_that_is_wrong_is_refused(monkeypatch):
    right = Vectorised.advance

    def wrong(self, state, stretch):
        right(self, state, stretch)
        state.parameters[0][-1] += 0.01  # the last replica only

    monkeypatch.setattr(Vectorised, "advance", wrong)
    engine, notes = choose(*group(), steps=10, engine="vectorised")
    assert isinstance(engine, Sequential)
    assert "differs from the plain loop's" in notes[0]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
def test_own_kernels_are_tried_where_they_were_measured(monkeypatch, there, precision):
    monkeypatch.setattr(choice.kernels, "available", lambda device: there)
    task, _, stretch = group(network="vgg-4")
    task = dataclasses.replace(
        task, recipe=dataclasses.replace(task.recipe, precision=precision), device=torch.device("cuda")
    )
    names = choice._candidates(task, 3, stretch)
    assert {"kernel graph", "kernel graphs"} & {*names} == (
        {"kernel graph", "kernel graphs"} if there and precision == "bfloat16" else set()
    )
    assert choice._candidates(task, 100, stretch) == names  # in chunks
    assert names == sorted(names, key=lambda name: choice._setting_up(name, 3))
    if there and precision != "float64":
        choice._check("kernel graph", task)
    else:
        with pytest.raises(SettingError, match=r"kernel graph needs Triton.*use auto"):
            choice._check("kernel graph", task)


@pytest.mark.parametrize("works", [True, False])
def test_grouped_convolutions_are_tried_where_our_own_do_not_work(monkeypatch, works):
    tried = []

    def check(self, engine):
        tried.append(engine)
        if engine == "kernel graph" and not works:
            raise RuntimeError("no such instruction")

    names = ["kernel graph", "folded graph"]
    monkeypatch.setattr(choice, "_candidates", lambda task, count, stretch: names)
    monkeypatch.setattr(choice, "_ALL", {name: lambda task, name=name: name for name in choice._ALL})
    monkeypatch.setattr(choice, "_note", lambda engine, problem: str(problem))
    monkeypatch.setattr(choice._Probe, "check", check)
    monkeypatch.setattr(choice._Probe, "seconds", lambda self, engine: 1.0 if "kernel" in engine else 2.0)
    best, notes = choice._fastest(group()[0], _Counted(16), single=10.0, steps=10_000)
    assert tried == (names[:1] if works else names)
    assert (best, notes) == (("kernel graph", ()) if works else ("folded graph", ("no such instruction",)))


def test_choosing_leaves_the_weights_alone():
    task, state, stretch = group()
    before = state.clone()
    choose(task, state, stretch, steps=10**6, engine="vectorised")
    assert all(torch.equal(one, other) for one, other in zip(state.tensors(), before.tensors(), strict=True))
