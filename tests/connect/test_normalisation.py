"""Running statistics estimated anew: against the definition on ordinary modules in training mode."""

import gc
import weakref

import pytest
import torch
from torch import nn

from isthmus.connect import reestimate, statistics_layers
from isthmus.connect.normalisation import _unit_moments
from isthmus.core.errors import DataError, SettingError
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.threads import in_threads


def deep(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(5, 4, 3, bias=False),
        nn.BatchNorm2d(4, affine=False),
        nn.Flatten(),
        nn.Linear(4 * 16, 7),
        nn.BatchNorm1d(7),
        nn.Linear(7, 3),
    ).double()


def data(count=29):
    return torch.randn(count, 2, 6, 6, generator=child(1, "data"), dtype=torch.float64) * 3 + 1


def by_definition(module, inputs):
    """Population moments of what each BatchNorm reads when all inputs are one batch in training mode, dropout off."""
    seen = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
            layer.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0].detach().clone()))
        elif name:
            layer.eval()
    module.training = False
    module(inputs)
    moments = {}
    for name, values in seen.items():
        units = values.transpose(0, 1).flatten(1)
        moments[name] = (units.mean(1), units.var(1, correction=0))
    return moments


def check(weights, expected, names, rtol=1e-10):
    for name in names:
        mean, variance = expected[name]
        assert torch.allclose(weights[f"{name}.running_mean"], mean, rtol=rtol, atol=1e-12)
        assert torch.allclose(weights[f"{name}.running_var"], variance, rtol=rtol, atol=1e-12)


def test_one_batch_is_exact_and_dropout_stays_off():
    network, inputs = Network.of(deep()), data()
    expected = by_definition(deep(), inputs)
    assert statistics_layers(network) == ("1", "5", "8")
    check(reestimate(network, network.weights, inputs), expected, ("1", "5", "8"))


@pytest.mark.parametrize("batch_size", [1, 4, 28])
def test_sequential_is_exact_for_any_batch_size(batch_size):
    network, inputs = Network.of(deep()), data()
    fresh = reestimate(network, network.weights, inputs, batch_size=batch_size, sequential=True)
    check(fresh, by_definition(deep(), inputs), ("1", "5", "8"))


@pytest.mark.parametrize("batch_size", [2, 4, 28])
def test_one_pass_pools_uneven_batches_by_their_size(batch_size):
    # What the first layer reads does not depend on statistics, so there the pooled moments are the population's.
    network, inputs = Network.of(deep()), data()
    fresh = reestimate(network, network.weights, inputs, batch_size=batch_size)
    expected = by_definition(deep(), inputs)
    check(fresh, expected, ("1",))
    assert not torch.allclose(fresh["8.running_var"], expected["8"][1], rtol=1e-6)


def test_what_was_there_before_does_not_matter_and_is_not_written_to():
    network, inputs = Network.of(deep()), data()
    weights = {name: tensor.clone() for name, tensor in network.weights.items()}
    weights["1.running_mean"] += 100
    weights["8.running_var"] *= 50
    before = {name: tensor.clone() for name, tensor in weights.items()}
    kept = inputs.clone()
    for sequential in (False, True):
        fresh = reestimate(network, weights, inputs, sequential=sequential)
        check(fresh, by_definition(deep(), inputs), ("1", "5", "8"))
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    assert torch.equal(inputs, kept)
    assert not network.modules()["1"].training


def test_counters_and_parameters_are_handed_on():
    network = Network.of(deep())
    fresh = reestimate(network, network.weights, data())
    assert tuple(fresh) == network.names
    for name in fresh:
        if "running" not in name:
            assert fresh[name] is network.weights[name]


def test_a_network_without_statistics_comes_back_as_it_is():
    network = Network.of(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    fresh = reestimate(network, network.weights, torch.randn(5, 3))
    assert all(fresh[name] is network.weights[name] for name in network.names)


def test_tracking_instance_norm_gets_the_average_of_its_instances():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True, affine=True)).double())
    inputs = torch.randn(7, 3, 5, 5, dtype=torch.float64)
    fresh = reestimate(network, network.weights, inputs, batch_size=2)
    assert torch.allclose(fresh["0.running_mean"], inputs.mean((2, 3)).mean(0))
    assert torch.allclose(fresh["0.running_var"], inputs.flatten(2).var(2).mean(0))


class NormAndActivate(nn.BatchNorm2d):
    """As in timm: a subclass with a forward of its own."""

    def forward(self, input):
        read = nn.functional.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias)
        return torch.nn.functional.silu(read)


def test_a_norm_layer_that_does_more_than_normalise():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Conv2d(2, 4, 3), NormAndActivate(4)).double())
    inputs = data()
    fresh = reestimate(network, network.weights, inputs)
    read = nn.functional.conv2d(inputs, network.weights["0.weight"], network.weights["0.bias"])
    assert torch.allclose(fresh["1.running_mean"], read.mean((0, 2, 3)))


def test_half_precision_statistics_stay_in_their_precision():
    network = Network.of(deep().bfloat16())
    fresh = reestimate(network, network.weights, data().float())
    assert fresh["1.running_var"].dtype == torch.bfloat16
    expected = by_definition(deep(), data())["1"][1]
    assert torch.allclose(fresh["1.running_var"].double(), expected, rtol=0.05)


def test_no_examples_and_no_batches_are_refused():
    network = Network.of(deep())
    with pytest.raises(DataError, match="at least one example"):
        reestimate(network, network.weights, data()[:0])
    with pytest.raises(SettingError, match="batch_size must be at least 1"):
        reestimate(network, network.weights, data(), batch_size=0)


def test_a_network_is_watched_once_and_not_kept_alive(monkeypatch):
    network, inputs, made = Network.of(deep()), data(), []
    watching = Network.hooked
    monkeypatch.setattr(Network, "hooked", lambda self, **hooks: made.append(1) or watching(self, **hooks))
    first, again = (reestimate(network, network.weights, inputs) for _ in range(2))
    assert len(made) == 1
    assert all(torch.equal(first[name], again[name]) for name in first)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_threads_that_share_a_network_do_not_mix_their_moments():
    network = Network.of(deep())
    parts = [data() * scale for scale in (1, 2, 3, 4)]
    alone = [reestimate(network, network.weights, part) for part in parts]
    found = in_threads(lambda part: reestimate(network, network.weights, part), parts, threads=4)
    for one, other in zip(alone, found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "axis"), [((7, 3, 5, 4), 1), ((9, 3), -1), ((6, 4, 3), -1), ((1, 3), 1), ((2, 3), 1)]
)
@pytest.mark.parametrize("last", [False, True])
def test_moments_of_units_are_those_of_their_definition(dtype, shape, axis, last):
    values = (torch.randn(shape, dtype=torch.float64) + 30).to(dtype)  # a large common mean: nothing may cancel
    values.select(axis, 0).fill_(2.5)
    if last and len(shape) == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    before = values.clone()
    mean, variance, count = _unit_moments(values, axis)
    units = values.double().movedim(axis, 0).flatten(1)
    close = 1e-5 if dtype is not torch.float64 else 1e-12
    assert count == units.shape[1]
    assert torch.allclose(mean.double(), units.mean(1), rtol=close)
    assert torch.allclose(variance.double(), units.var(1, correction=0), rtol=100 * close, atol=close)
    assert float(variance[0]) == 0
    assert torch.equal(values, before)
