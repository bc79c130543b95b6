"""Networks: any module as a pure function of its weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from isthmus.core import weights as algebra
from isthmus.core.errors import WeightsError
from isthmus.core.network import Network
from isthmus.core.randomness import child


class Recurrent(nn.Module):
    """An LSTM does not vectorise."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, inputs):
        return self.cell(inputs)[0]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, one, other, *, scale=1.0):
        return {"sum": self.first(one) + scale * self.second(other), "one": one.sum(1)}


def plain() -> Any:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


INPUTS = torch.randn(5, 3, generator=child(0, "x"))


def others(module, seed=0):
    generator = child(seed, "others")
    return {
        n: torch.randn(t.shape, generator=generator, dtype=t.dtype).abs() if t.is_floating_point() else t
        for n, t in module.state_dict().items()
    }


def test_it_equals_the_module_with_these_weights_in_evaluation_mode():
    module = plain().train()
    network, weights = Network.of(module), others(module)
    expected = copy.deepcopy(module)
    expected.load_state_dict(weights)
    assert torch.equal(network(weights, INPUTS), expected.eval()(INPUTS))


def test_the_module_is_left_as_it_is_and_shared_not_copied():
    module = plain().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network = Network.of(module)
    network(others(module), INPUTS)
    network.training(network.weights, INPUTS)
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert network.weights["0.weight"].data_ptr() == module[0].weight.data_ptr()
    assert not any(tensor.requires_grad for tensor in network.weights.values())


def test_names_tell_parameters_from_buffers():
    network = Network.of(plain())
    assert network.parameter_names == ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    assert network.buffer_names == ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert set(network.names) == {*network.parameter_names, *network.buffer_names}
    assert network.has_batch_statistics
    assert not Network.of(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))).has_batch_statistics
    assert not Network.of(nn.BatchNorm1d(3, track_running_stats=False)).has_batch_statistics


def test_training_mode_moves_buffers_of_its_own():
    module = plain()
    network = Network.of(module)
    _, buffers = network.training(network.weights, INPUTS)
    written = nn.functional.linear(INPUTS, module[0].weight, module[0].bias).detach()
    assert torch.allclose(buffers["1.running_mean"], 0.1 * written.mean(0), atol=1e-6)
    assert int(buffers["1.num_batches_tracked"]) == 1
    assert not network.weights["1.running_mean"].any()


@pytest.mark.parametrize("make", [plain, Recurrent], ids=["vectorised", "one-by-one"])
def test_many_are_each_one(make):
    module = make()
    network = Network.of(module)
    solutions = [others(module, seed) for seed in range(3)]
    inputs = INPUTS if make is plain else INPUTS.unsqueeze(0)
    found = network.many(algebra.stack(solutions), inputs)
    for index, solution in enumerate(solutions):
        assert torch.allclose(found[index], network(solution, inputs), atol=1e-5)


def test_several_inputs_keywords_and_outputs():
    module = TwoInputs()
    network = Network.of(module)
    found = network(network.weights, INPUTS, INPUTS + 1, scale=2.0)
    assert torch.equal(found["sum"], module(INPUTS, INPUTS + 1, scale=2.0)["sum"].detach())
    stacked = algebra.stack([others(module, seed) for seed in range(2)])
    many = network.many(stacked, INPUTS, INPUTS, scale=0.5)
    assert many["sum"].shape == (2, 5, 2)
    assert many["one"].shape == (2, 5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3)
        self.head = nn.Linear(3, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


def test_tied_tensors_are_one():
    network = Network.of(Tied())
    assert network.tied == {"head.weight": "embedding.weight"}
    assert network.parameter_names == ("embedding.weight",)
    tokens = torch.arange(6)
    new = torch.randn(6, 3)
    for weights in ({"embedding.weight": new}, {"embedding.weight": new, "head.weight": torch.zeros(6, 3)}):
        assert torch.equal(network(weights, tokens), new @ new.T)


def test_gradients_flow_through_the_weights():
    network = Network.of(plain())
    weights = dict(network.weights)
    weights["0.weight"] = weights["0.weight"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(weights, INPUTS).sum(), weights["0.weight"])
    assert gradient.shape == (4, 3)
    assert gradient.abs().sum() > 0


def test_missing_and_unknown_tensors_are_named():
    network = Network.of(plain())
    with pytest.raises(WeightsError, match=r"missing: 3\.bias"):
        network({n: t for n, t in network.weights.items() if n != "3.bias"}, INPUTS)
    with pytest.raises(WeightsError, match="unknown: further"):
        network({**network.weights, "further": torch.zeros(1)}, INPUTS)


def test_hooked_copies_watch_and_change_without_touching_the_network():
    module = plain().eval()
    network = Network.of(module)
    seen = []

    def watch(layer, inputs):
        seen.append((inputs[0].clone(), layer.weight))

    def double(layer, inputs, output):
        return 2 * output

    network(network.weights, INPUTS)
    watched = network.hooked(before={"3": watch}, after={"3": double})
    weights = others(module)
    assert torch.equal(watched(weights, INPUTS), 2 * network(weights, INPUTS))
    assert len(seen) == 1
    assert torch.equal(seen[0][1], weights["3.weight"])
    network(weights, INPUTS)
    assert len(seen) == 1
    with pytest.raises(WeightsError, match="unknown: 9"):
        network.hooked(after={"9": double})


def test_vectors_with_gaps_in_memory_have_the_same_gradients():
    """PyTorch's batch_norm reads them wrongly on the way back."""
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)))
    inputs = torch.randn(9, 4)
    whole = {n: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for n, t in network.weights.items()}
    gaps = {n: torch.stack([t, t + 7], -1)[..., 0] if t.is_floating_point() else t for n, t in whole.items()}
    assert not gaps["1.weight"].is_contiguous()
    found = []
    for weights in (whole, gaps):
        leaves = {name: weights[name].detach().requires_grad_() for name in network.parameter_names}
        output = network({**weights, **leaves}, inputs)
        found.append(torch.autograd.grad(output.square().sum(), list(leaves.values())))
    assert all(torch.allclose(first, second, rtol=1e-4) for first, second in zip(*found, strict=True))


def test_a_network_is_told_by_its_size():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert repr(Network.of(module)) == "<Network of Sequential: 15 parameters in 4 tensors, 3 buffers>"
