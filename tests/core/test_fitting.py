"""Checkpoints made to fit a model: wrappers of names, tied tensors, counters, numbers of another kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isthmus.core.checkpoint import load
from isthmus.core.errors import CheckpointError, WeightsError
from isthmus.core.fitting import fit
from isthmus.core.network import Network


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module.model."])
def test_wrappers_of_names_are_taken_off(prefix):
    like = Network.of(Net()).weights
    found = fit({prefix + name: tensor for name, tensor in reversed(list(like.items()))}, like)
    assert list(found) == list(like)
    assert all(found[name] is like[name] for name in like)


def test_a_prefix_of_the_model_itself_stays():
    like = {"model.a": torch.zeros(1), "model.b": torch.zeros(1)}
    assert list(fit(like, like)) == list(like)
    assert list(fit({"module.model.a": torch.ones(1), "module.model.b": torch.ones(1)}, like)) == list(like)


def test_a_missing_counter_is_no_fault():
    like = Network.of(Net()).weights
    old = {name: tensor for name, tensor in like.items() if "num_batches" not in name}
    assert int(fit(old, like)["norm.num_batches_tracked"]) == 0


def test_tensors_left_out_because_they_are_tied_are_filled_in():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    like = Network.of(Tied()).weights
    for kept in ("embedding.weight", "head.weight"):
        found = fit({kept: torch.full((5, 3), 2.0)}, like)
        assert list(found) == ["embedding.weight", "head.weight"]
        assert found["head.weight"] is found["embedding.weight"]
    with pytest.raises(CheckpointError, match="missing"):
        fit(
            {"embedding.weight": torch.zeros(5, 3)},
            {"embedding.weight": torch.zeros(5, 3), "head.weight": torch.zeros(5, 3)},
        )


def test_what_does_not_fit_is_named():
    like = Network.of(Net()).weights
    lacking = {name: tensor for name, tensor in like.items() if name != "first.bias"}
    with pytest.raises(CheckpointError, match=r"the second must hold every tensor of the model; missing: first\.bias"):
        fit(lacking, like, what="the second")
    with pytest.raises(CheckpointError, match=r"extra: further"):
        fit({**like, "further": torch.zeros(1)}, like)
    with pytest.raises(CheckpointError, match=r"first\.bias is \(4,\) in the model, \(5,\) in the file"):
        fit({**like, "first.bias": torch.zeros(5)}, like)
    with pytest.raises(CheckpointError, match=r"it has x, y"):
        fit({"x": torch.zeros(1), "y": torch.zeros(1)}, {"a": torch.zeros(1), "b": torch.zeros(1)})
    broken = {**like, "first.bias": torch.full((4,), float("nan"))}
    with pytest.raises(WeightsError, match=r"NaN or Inf in first\.bias"):
        fit(broken, like)
    assert fit(broken, like, finite=False)["first.bias"].isnan().all()


def test_torch_s_averaged_model_loses_its_counter(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    averaged = torch.optim.swa_utils.AveragedModel(module)
    torch.save(averaged.state_dict(), tmp_path / "a.pt")
    assert list(fit(load(tmp_path / "a.pt"), module.state_dict())) == ["0.weight", "0.bias"]


def test_wrappers_around_single_layers_are_taken_off():
    given = {"body._orig_mod.0.weight": 1, "_fsdp_wrapped_module.body._checkpoint_wrapped_module.0.bias": 2}
    found = fit({name: torch.full((2,), float(v)) for name, v in given.items()},
                {"body.0.weight": torch.zeros(2), "body.0.bias": torch.zeros(2)})  # fmt: skip
    assert {name: float(tensor[0]) for name, tensor in found.items()} == {"body.0.weight": 1.0, "body.0.bias": 2.0}


def test_tensors_that_the_model_ties_must_be_equal_in_the_file():
    """Or one of them would be dropped without a word, and another network evaluated."""
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    like = module.state_dict()
    assert fit({name: tensor.clone() for name, tensor in like.items()}, like)
    assert fit({name: torch.full_like(tensor, torch.nan) for name, tensor in like.items()}, like, finite=False)
    with pytest.raises(CheckpointError, match=r"a\.weight and b\.weight differ"):
        fit({**like, "b.weight": like["b.weight"] + 1}, like)
