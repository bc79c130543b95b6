"""Many tasks with a merge after each: the matrix, its summaries, heads, and refusals."""

import dataclasses

import pytest
import torch

from isthmus.connect import Line, barrier
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.record import to_json
from isthmus.core.weights import mean
from isthmus.report.section import section
from isthmus.studies.continual.course import head_names, summaries
from isthmus.studies.continual.mergers import MERGERS
from isthmus.studies.continual.stream import merges
from isthmus.train import Recipe, train
from isthmus.zoo import build, load_data, network
from isthmus.zoo.streams import permuted, split

RECIPE = Recipe(network="mlp-16x1", settings={"inputs": [1, 8, 8]}, rate=0.05, batch_size=64, epochs=3)


def test_summaries_in_closed_form():
    accuracy = torch.tensor([[[0.9, 0.2, 0.1], [0.95, 0.8, 0.3], [0.6, 0.7, 0.9]]] * 2, dtype=torch.float64)
    fresh = torch.full((2, 3), 0.1, dtype=torch.float64)
    found = {name: interval.estimate for name, interval in summaries(accuracy, fresh).items()}
    assert found["final"] == pytest.approx((0.6 + 0.7 + 0.9) / 3)
    assert found["forgetting"] == pytest.approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2)
    assert found["backward"] == pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2)
    assert found["forward"] == pytest.approx(((0.2 - 0.1) + (0.3 - 0.1)) / 2)


def test_a_stream_by_hand():
    """Two tasks from the base, averaged: the same trainings and the same average, made here."""
    stream = permuted(load_data("digits").limited(300), 2)
    seen = []

    def kept(ends, base, objectives):
        seen.append((ends, base, objectives))
        return MERGERS["mean"](ends, base, objectives)

    found = merges(stream, RECIPE, mergers={"kept": kept}, start="base", replicas=2, points=3)
    bases = train(RECIPE.replicates(2), data=stream.tasks[0], module=build, scores="never")
    measure = [Objective(Network.of(build(RECIPE)), t.test_inputs, t.test_targets) for t in stream.tasks]
    outcome = found.outcomes[0]
    assert outcome.accuracy.shape == (2, 2, 2)
    for replica, (ends, base, objectives) in enumerate(seen):
        assert base is ends[0]
        for name in base:
            torch.testing.assert_close(base[name], bases[replica].weights[name])
        assert len(objectives) == len(ends) == 2
        average = mean(ends)
        for place in range(2):
            assert float(outcome.accuracy[replica, 0, place]) == pytest.approx(1 - measure[place](base).error)
            assert float(outcome.accuracy[replica, 1, place]) == pytest.approx(1 - measure[place](average).error)
        both = Objective(
            measure[0].network,
            torch.cat([t.test_inputs for t in stream.tasks]),
            torch.cat([t.test_targets for t in stream.tasks]),
        )
        wanted = barrier(Line(ends[1], base), both, points=3).error_barrier
        assert float(outcome.barriers["previous"][replica, 0]) == pytest.approx(wanted)
    assert set(outcome.barriers) == {"previous", "merged", "joint"}
    assert found.joint is not None
    assert found.joint.shape == (2, 2)
    assert to_json(found)


@pytest.mark.parametrize("start", ["previous", "merged"])
def test_where_a_training_starts(start):
    """Without any steps an end is what it started from."""
    stream = permuted(load_data("digits").limited(100), 3)
    ends = []

    def negated(own, base, objectives):
        ends.append(own)
        return {name: -tensor for name, tensor in own[-1].items()}

    merges(
        stream, RECIPE, task={"epochs": 0}, mergers={"n": negated}, start=start, replicas=2, points=3, joint=False
    )  # fmt: skip
    last = ends[-1]
    sign = 1 if start == "previous" else -1
    for name in last[0]:
        torch.testing.assert_close(last[1][name], last[0][name])
        torch.testing.assert_close(last[2][name], sign * last[0][name])


def test_every_merger_runs_and_is_drawn():
    stream = permuted(load_data("digits").limited(100), 3)
    found = merges(stream, RECIPE, mergers=tuple(MERGERS), replicas=2, points=3, joint=False)
    assert [outcome.merger for outcome in found.outcomes] == list(MERGERS)
    made = {o.merger: o.accuracy for o in found.outcomes}
    assert torch.equal(made["mean"][:, 0], made["ties"][:, 0])  # before any merge all are the same network
    assert not torch.equal(made["mean"][:, 2], made["last"][:, 2])
    for language in ("en", "ja"):
        drawn = section(found, language=language)
        assert len(drawn.figures) == len(MERGERS)


def test_separate_heads_keep_each_tasks_rows_and_outputs():
    stream = split(load_data("digits").limited(400), 2)
    made = []

    def zeros(ends, base, objectives):
        made.append([dict(end) for end in ends])
        return {name: torch.zeros_like(tensor) for name, tensor in ends[0].items()}

    found = merges(stream, RECIPE, mergers={"zero": zeros}, heads="separate", replicas=2, points=3, joint=False)
    # A trunk of zeros leaves the biases of each task's own head: every example gets its task's most likely class.
    names = head_names(Network.of(build(RECIPE)), 10)
    for replica, ends in enumerate(made):
        for place, (task, labels) in enumerate(zip(stream.tasks, stream.labels, strict=True)):
            bias = ends[place][names[1]][list(labels)]
            wanted = float((task.test_targets == labels[int(bias.argmax())]).double().mean())
            assert float(found.outcomes[0].accuracy[replica, 1, place]) == pytest.approx(wanted)


def test_the_output_layer_is_found():
    assert head_names(Network.of(build(RECIPE)), 10) == ("3.weight", "3.bias")
    assert head_names(Network.of(network("resnet20", width=0.25)), 10)[0].endswith("weight")
    with pytest.raises(SettingError, match="output layer with 7 rows"):
        head_names(Network.of(torch.nn.Linear(3, 2)), 7)


def test_batch_statistics_are_estimated_anew():
    recipe = Recipe(network="resnet20", settings={"inputs": [1, 8, 8], "width": 0.25}, batch_size=50, steps=2)
    found = merges(
        permuted(load_data("digits").limited(100), 2), recipe, mergers=["mean"], replicas=2, points=3, joint=False
    )
    assert bool(torch.isfinite(found.outcomes[0].accuracy).all())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "choose separate heads"),
        ({"heads": "two"}, "heads must be"),
        ({"heads": "one", "start": "end"}, "start must be"),
        ({"heads": "one", "mergers": ["tie"]}, "mergers must be some of"),
    ],
)
def test_what_is_refused(changes, says):
    with pytest.raises(SettingError, match=says):
        merges(split(load_data("digits").limited(200), 2), RECIPE, **changes)
    with pytest.raises(SettingError, match="share labels"):
        merges(permuted(load_data("digits").limited(50), 2), dataclasses.replace(RECIPE, epochs=1), heads="separate")
