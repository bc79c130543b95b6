"""Stretches of steps: a part of them is trained as these steps and no others."""

import dataclasses

import pytest
import torch

from isthmus.train import Recipe
from isthmus.train.batches import Batches, Stretch
from isthmus.train.engines import Sequential, Vectorised
from isthmus.train.task import prepare
from isthmus.zoo import Data, build

RATES = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def trained():
    """A task, its state, and a stretch of four steps with a rate each."""
    recipe = Recipe(network="mlp-6x1", settings={"inputs": [1, 4, 4], "classes": 2}, batch_size=8)
    inputs, targets = torch.randn(32, 1, 4, 4), torch.arange(32) % 2
    batches = Batches.of(recipe.replicates(2), Data(inputs, targets, inputs, targets, 2), device=torch.device("cpu"))
    task, state = prepare(batches.recipes, build, inputs[:2], classes=2, device=torch.device("cpu"))
    return task, state, Stretch(batches, batches.plan(0, apart=False), 0, 4, 0, torch.tensor(RATES))


@pytest.mark.parametrize("last", [1, 2, 4])
def test_up_to_a_step_there_are_the_steps_before_it(trained, last):
    _, _, stretch = trained
    short = stretch.to(last)
    assert (short.first, short.last, short.start) == (0, last, 0)
    assert short.rates_here() == pytest.approx(RATES[:last])
    assert (short.batches, short.plan, short.rates) == (stretch.batches, stretch.plan, stretch.rates)
    later = dataclasses.replace(stretch, first=1, start=1).to(3)
    assert later.rates_here() == pytest.approx(RATES[1:3])
    assert stretch.last == 4  # the whole one stays


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
@pytest.mark.parametrize("cut", [1, 3])
def test_two_parts_of_a_stretch_train_what_the_whole_does(trained, engine, cut):
    task, state, stretch = trained
    whole, parts = state.clone(), state.clone()
    engine(task).advance(whole, stretch)
    engine(task).advance(parts, stretch.to(cut))
    assert not torch.equal(parts.losses, whole.losses)
    engine(task).advance(parts, dataclasses.replace(stretch, first=cut, start=cut))
    torch.testing.assert_close(parts.losses, whole.losses)
    for ours, theirs in zip(parts.parameters, whole.parameters, strict=True):
        torch.testing.assert_close(ours, theirs)
