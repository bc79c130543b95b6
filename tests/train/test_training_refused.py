"""What training refuses before it starts, in one line each, and what it takes although it looks odd."""

import dataclasses

import pytest
import torch
from tests.train.few import BASE, images, run
from torch import nn

from isthmus.core.errors import DataError, IsthmusError, SettingError
from isthmus.train import train
from isthmus.zoo import Data, build


@pytest.mark.parametrize(
    ("change", "settings", "part"),
    [
        ({"steps": 3, "checkpoints": (4,)}, {}, "checkpoints must lie within the 3 steps"),
        ({"steps": None, "epochs": 1, "spawn": 99}, {}, "spawn must lie within the 4 steps"),
        ({"subset": 1000}, {}, "subset must be at most the 50"),
        ({"settings": {"inputs": [1, 5, 5], "classes": 3}}, {}, "does not take inputs of shape"),
        ({}, {"engine": "warp"}, "engine must be one of"),
        ({}, {"engine": "graph", "device": "cpu"}, "needs a CUDA device"),
        ({}, {"scores": "always"}, "scores must be one of"),
    ],
)
def test_mistakes_are_one_line(change, settings, part):
    with pytest.raises(IsthmusError, match=part) as caught:
        run(dataclasses.replace(BASE, **change), **settings)
    assert "\n" not in str(caught.value)


def test_data_that_do_not_fit():
    data = images()
    with pytest.raises(DataError, match="labels must lie in 0"):
        train(BASE, data=_wrong(data), module=build)
    flat = Data(data.train_inputs.flatten(1), data.train_targets, data.test_inputs.flatten(1), data.test_targets, 3)
    with pytest.raises(DataError, match="augmentation needs images"):
        train(dataclasses.replace(BASE, augmentation=("flip",)), data=flat, module=build)
    with pytest.raises(SettingError, match="must have at least one trainable"):
        train(BASE, data=data, module=nn.Flatten())


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_network_that_returns_too_few_scores_is_one_line(loss):
    data = images()
    single = nn.Sequential(nn.Flatten(), nn.Linear(data.train_inputs[0].numel(), 1))
    with pytest.raises(SettingError, match=r"must return what .* 3 scores for each example.* got .*1\)"):
        train(dataclasses.replace(BASE, loss=loss), data=data, module=single)


@pytest.mark.parametrize("engine", ["sequential", "vectorised"])
def test_a_regression_may_name_its_one_target_without_an_axis(engine):
    data = images()
    inputs, held = data.train_inputs.flatten(1), data.test_inputs.flatten(1)
    numbers = _Loose(inputs, inputs[:, 0], held, held[:, 0], 3)
    with_axis = dataclasses.replace(numbers, train_targets=inputs[:, :1], test_targets=held[:, :1])
    recipe = dataclasses.replace(BASE, loss="squared_error", augmentation=())
    module = nn.Linear(inputs.shape[1], 1)
    (bare,) = train(recipe, data=numbers, module=module, engine=engine, scores="never")
    (full,) = train(recipe, data=with_axis, module=module, engine=engine, scores="never")
    assert not torch.equal(bare.weights["weight"], module.weight)
    assert torch.equal(bare.weights["weight"], full.weights["weight"])


class _Named(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 3)

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.linear(inputs.flatten(1))}


def test_scores_may_be_named():
    data = images()
    (replica,) = train(BASE, data=data, module=_Named(data.train_inputs[0].numel()))
    assert replica.test is not None
    assert not replica.diverged


@dataclasses.dataclass
class _Loose:
    train_inputs: torch.Tensor
    train_targets: torch.Tensor
    test_inputs: torch.Tensor
    test_targets: torch.Tensor
    classes: int


def _wrong(data: Data) -> _Loose:
    return _Loose(data.train_inputs, data.train_targets + 1, data.test_inputs, data.test_targets, 3)
