"""Trajectories: recorded by other people's training loops, whole or not at all, and read back."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from isthmus.core.checkpoint import metadata_of
from isthmus.core.errors import CheckpointError, SettingError
from isthmus.integrations import Recorder, Trajectory

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


def run(folder, module, steps, *, recipe=None, **settings):
    """Plain gradient descent; gives the weights that passed by."""
    recorder, passed = Recorder(folder, **settings), []
    recorder.start(recipe or {"rate": 0.1})
    for step in range(steps + 1):
        passed.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        recorder.seen(step, module.state_dict)
        if step < steps:
            module(torch.ones(1, 2)).square().sum().backward()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None
    recorder.finish(steps, module.state_dict)
    return passed


def test_the_chosen_steps_are_what_the_training_passed(tmp_path):
    passed = run(tmp_path, nn.Linear(2, 1), 7, at=(0, 1), every=3)
    found = Trajectory.open(tmp_path)
    assert found.steps == (0, 1, 3, 6, 7)
    assert found.finished
    for step in found.steps:
        assert all(torch.equal(tensor, passed[step][name]) for name, tensor in found.weights(step).items())
    assert found.stacked((0, 7))["weight"].shape == (2, 1, 2)
    assert json.loads(metadata_of(tmp_path / "step-000003.safetensors")["recipe"]) == {"rate": 0.1}


def test_weights_are_only_asked_for_at_chosen_steps(tmp_path):
    recorder = Recorder(tmp_path, at=(5,), last=False)
    recorder.start({})
    for step in range(5):
        recorder.seen(step, lambda: pytest.fail("not a chosen step"))


def test_a_killed_training_leaves_what_it_recorded(tmp_path):
    recorder = Recorder(tmp_path, at=(0, 1))
    recorder.start({"rate": 1})
    recorder.seen(0, nn.Linear(1, 1).state_dict)

    def fails():
        return {"weight": torch.ones(1), "other": torch.ones(1, device="meta")}

    with pytest.raises(CheckpointError, match="other is spread over processes"):
        recorder.seen(1, fails)
    found = Trajectory.open(tmp_path)
    assert (found.steps, found.finished) == ((0,), False)
    assert {path.name for path in tmp_path.iterdir()} == {"trajectory.json", "step-000000.safetensors"}


def test_a_training_goes_on_in_its_folder_and_another_is_refused(tmp_path):
    module = nn.Linear(2, 1)
    run(tmp_path, module, 2, at=(0,))
    recorder = Recorder(tmp_path, at=(4,), last=False)
    recorder.start({"rate": 0.1})
    recorder.seen(4, module.state_dict)
    assert Trajectory.open(tmp_path).steps == (0, 2, 4)
    with pytest.raises(
        SettingError, match=r"training with another rate \(0\.1 there, 0\.2 here\); choose another folder"
    ):
        Recorder(tmp_path).start({"rate": 0.2})


def test_going_on_from_a_step_forgets_what_an_attempt_that_was_given_up_left_behind(tmp_path):
    module = nn.Linear(2, 1)
    run(tmp_path, module, 6, recipe={"start": "abc", "arguments": {"rate": 0.1, "steps": 6}}, at=(0,), every=3)
    recorder = Recorder(tmp_path, every=4)
    again = {"start": None, "arguments": {"rate": 0.1, "steps": 8}}
    with pytest.raises(SettingError, match=r"another arguments\.steps \(6 there, 8 here\)"):
        recorder.start(again, step=3)
    with pytest.raises(SettingError, match="started from other weights"):
        recorder.start({"start": "xyz", "arguments": {"rate": 0.1, "steps": 6}}, step=0, limits=["arguments.steps"])
    assert Trajectory.open(tmp_path).steps == (0, 3, 6)
    recorder.start(again, step=3, limits=["arguments.steps"])
    found = Trajectory.open(tmp_path)
    assert (found.steps, found.finished, found.resumed) == ((0, 3), False, (3,))
    assert found.recipe == {"start": "abc", "arguments": {"rate": 0.1, "steps": 8}}
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-000000.safetensors", "step-000003.safetensors",
    ]  # fmt: skip


def test_a_loop_that_counts_several_steps_at_once_is_recorded_where_it_passes_a_chosen_one(tmp_path):
    recorder, module = Recorder(tmp_path, at=(0, 3), every=5, last=False), nn.Linear(2, 1)
    recorder.start({})
    recorder.seen(0, module.state_dict)
    for step in range(2, 13, 2):
        recorder.seen(step, module.state_dict, since=step - 2)
    assert Trajectory.open(tmp_path).steps == (0, 4, 6, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recorder("x", at=(-1,)), "at must be steps from 0 on, got -1"),
        (lambda: Recorder("x", at=3), r"at must be whole steps, such as \(0, 100\), got 3"),
        (lambda: Recorder("x", at=(0, 2.5)), r"at must be whole steps, such as \(0, 100\), got \(0, 2\.5\)"),
        (lambda: Recorder("x", every=0), "every must be a whole number of steps, at least 1, got 0"),
        (lambda: Recorder("x", every="4"), "every must be a whole number of steps, at least 1, got '4'"),
        (lambda: Recorder("x").start({"net": nn.Linear(1, 1)}), "recipe must hold numbers, text, lists .* got Linear"),
    ],
)
def test_settings_out_of_range_are_one_line(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_what_is_no_trajectory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"must hold a trajectory with a readable trajectory\.json"):
        Trajectory.open(tmp_path)
    (tmp_path / "trajectory.json").write_text('{"recipe": 3}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="must hold a trajectory"):
        Trajectory.open(tmp_path)
    run(tmp_path / "good", nn.Linear(2, 1), 1)
    with pytest.raises(SettingError, match=r"one of those recorded \(0, 1\), got 5"):
        Trajectory.open(tmp_path / "good").weights(5)


def test_recorded_steps_know_their_recipe(tmp_path):
    from isthmus.studies.history import history

    recorder = Recorder(tmp_path / "run", at=(0,), last=False)
    recorder.start({"rate": 0.25})
    recorder.seen(0, torch.nn.Linear(2, 1).state_dict)
    (node,) = history([tmp_path / "run"]).nodes
    assert node.lineage is not None
    assert dict(node.lineage.recipe) == {"rate": 0.25, "step": 0}
