"""REPAIR on any module: hidden preactivations get the mix of their parents' moments, by the definition."""

import pytest
import torch
from torch import nn

from isthmus.connect import Line, Repair, barrier, repair, variance_ratios
from isthmus.connect.layers import hidden_writers
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child


class Mixed(nn.Module):
    """Every kind of writer, a residual link, a layer without bias, one before a LayerNorm, and a head."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.grouped = nn.Conv2d(6, 6, 3, groups=3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.inner = nn.Linear(4 * 25, 12, bias=False)
        self.norm = nn.LayerNorm(12)
        self.block = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, inputs):
        hidden = torch.relu(self.conv(inputs))
        hidden = torch.relu(hidden + self.grouped(hidden))
        hidden = torch.relu(self.up(hidden)).flatten(1)
        hidden = torch.relu(self.norm(self.inner(hidden)))
        hidden = hidden + torch.relu(self.block(hidden))
        return self.head(hidden)


def parent(seed, kind=Mixed):
    torch.manual_seed(seed)
    return kind().double()


INPUTS = torch.randn(23, 1, 6, 6, generator=child(0, "inputs"), dtype=torch.float64)
NAMES = ("conv", "grouped", "up", "inner", "block")


def outputs_of(module, weights, name, inputs=INPUTS):
    """What a layer writes, on an ordinary module: units first."""
    module.load_state_dict(dict(weights))
    module.eval()
    seen = []
    handle = module.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    module(inputs)
    handle.remove()
    values = seen[0]
    return values.transpose(0, 1).flatten(1) if values.dim() > 2 else values.T


def three():
    modules = [parent(seed) for seed in range(2)]
    network = Network.of(parent(0))
    ends = [Network.of(module).weights for module in modules]
    return network, ends, algebra.lerp(ends[0], ends[1], 0.3)


@pytest.mark.parametrize("settings", [{}, {"sequential": True, "batch_size": 5}])
def test_hidden_units_get_the_mix_of_their_parents_moments(settings):
    network, ends, merged = three()
    fixed = repair(network, merged, ends, INPUTS, shares=(0.7, 0.3), **settings)
    for name in NAMES:
        first, second, now = (outputs_of(Mixed().double(), weights, name) for weights in (*ends, fixed))
        deviation = 0.7 * first.std(1, correction=0) + 0.3 * second.std(1, correction=0)
        assert torch.allclose(now.std(1, correction=0), deviation, rtol=1e-9), name
        if name != "inner":  # No bias: its mean cannot be moved.
            assert torch.allclose(now.mean(1), 0.7 * first.mean(1) + 0.3 * second.mean(1), rtol=1e-8, atol=1e-10), name
    assert torch.equal(fixed["head.weight"], merged["head.weight"])
    assert torch.equal(fixed["head.bias"], merged["head.bias"])
    assert torch.equal(fixed["norm.weight"], merged["norm.weight"])


def test_rescaling_only_multiplies_preactivations():
    network, ends, merged = three()
    fixed = repair(network, merged, ends, INPUTS, shares=(0.7, 0.3), rescale_only=True)
    factor = fixed["conv.bias"] / merged["conv.bias"]
    assert torch.allclose(fixed["conv.weight"], merged["conv.weight"] * factor.view(-1, 1, 1, 1))
    first, second, now = (outputs_of(Mixed().double(), weights, "block") for weights in (*ends, fixed))
    expected = 0.7 * first.std(1, correction=0) + 0.3 * second.std(1, correction=0)
    assert torch.allclose(now.std(1, correction=0), expected, rtol=1e-9)


def test_a_parent_needs_no_repair():
    network, ends, _ = three()
    fixed = repair(network, ends[1], ends, INPUTS, shares=(0.0, 1.0))
    assert algebra.distance(fixed, ends[1]) <= 1e-9 * algebra.norm(ends[1])


def test_nothing_is_written_to_and_the_result_is_a_plain_state_dict():
    network, ends, merged = three()
    copies = [{n: t.clone() for n, t in w.items()} for w in (*ends, merged)]
    fixed = repair(network, merged, ends, INPUTS)
    for weights, copy in zip((*ends, merged), copies, strict=True):
        assert all(torch.equal(weights[name], copy[name]) for name in weights)
    parent(0).load_state_dict(fixed)


def test_what_is_hidden():
    network, ends, _ = three()
    assert tuple(writer.name for writer in hidden_writers(network, ends[0], INPUTS)) == NAMES
    normed = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4), nn.Linear(4, 2)
    )
    network = Network.of(normed.double())
    made = Repair.between(network, [network.weights], INPUTS)
    assert tuple(writer.name for writer in made.writers) == ("4",)
    assert made.layers == ("1", "4")


def test_running_statistics_are_estimated_in_the_same_pass():
    torch.manual_seed(0)
    kind = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)
    ).double()
    ends = [Network.of(kind()).weights for _ in range(2)]
    network = Network.of(kind())
    fixed = repair(network, algebra.lerp(ends[0], ends[1], 0.5), ends, INPUTS)
    read = outputs_of(kind(), fixed, "2")
    assert torch.allclose(fixed["3.running_mean"], read.mean(1))
    assert torch.allclose(fixed["3.running_var"], read.var(1, correction=0))
    first, second, now = (outputs_of(kind(), weights, "0") for weights in (*ends, fixed))
    assert torch.allclose(now.std(1, correction=0), (first.std(1, correction=0) + second.std(1, correction=0)) / 2)


def test_tied_and_uncalled_layers_are_left_alone_and_refused_by_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.hidden = nn.Linear(8, 8)
            self.unused = nn.Linear(8, 8)
            self.head = nn.Linear(8, 11, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return torch.log_softmax(self.head(torch.relu(self.hidden(self.embedding(tokens)))), -1)

    network = Network.of(Tied())
    tokens = torch.randint(11, (9, 5), generator=child(0, "tokens"))
    assert [writer.name for writer in hidden_writers(network, network.weights, tokens)] == ["hidden"]
    for name, words in (("head", "not tied"), ("unused", "called"), ("nowhere", "unknown: nowhere")):
        with pytest.raises(SettingError, match=words):
            repair(network, network.weights, [network.weights], tokens, layers=[name])


def test_transformer_layers_are_repaired_along_their_last_axis():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(  # noqa: E731
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), nn.Linear(8, 2)
    ).double()
    ends = [Network.of(make()).weights for _ in range(2)]
    network, inputs = Network.of(make()), torch.randn(6, 5, 8, generator=child(2, "tokens"), dtype=torch.float64)
    writers = [writer.name for writer in hidden_writers(network, ends[0], inputs)]
    merged = algebra.lerp(ends[0], ends[1], 0.5)
    fixed = repair(network, merged, ends, inputs)
    changed = {name for name in fixed if not torch.equal(fixed[name], merged[name])}
    assert changed == {f"{name}.{part}" for name in writers for part in ("weight", "bias")}


def test_dead_units_are_not_blown_up():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()  # noqa: E731
    ends = [dict(Network.of(make()).weights) for _ in range(2)]
    ends[0]["0.weight"] = ends[0]["0.weight"].clone()
    ends[0]["0.weight"][2] = -ends[1]["0.weight"][2]  # Its average is constant over all inputs.
    network = Network.of(make())
    inputs = torch.randn(30, 4, generator=child(0, "x"), dtype=torch.float64)
    fixed = repair(network, algebra.lerp(ends[0], ends[1], 0.5), ends, inputs)
    assert float(fixed["0.weight"][2].abs().max()) < 1e-12
    algebra.check_finite(fixed)


def test_variance_ratio_of_uncorrelated_units_is_one_half():
    # Parents read different coordinates of white inputs: the average of their units has half the variance.
    network = Network.of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double())
    first, second = (dict(network.weights) for _ in range(2))
    first["0.weight"] = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(3, 2).clone()
    second["0.weight"] = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(3, 2).clone()
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    ratios = variance_ratios(network, algebra.lerp(first, second, 0.5), [first, second], signs)
    assert ratios.layers == ("0", "2")
    assert float(ratios.ratio[0]) == pytest.approx(0.5)
    repaired = repair(network, algebra.lerp(first, second, 0.5), [first, second], signs)
    assert float(variance_ratios(network, repaired, [first, second], signs).ratio[0]) == pytest.approx(1.0)


def test_barrier_under_repair_names_its_policy_and_keeps_its_ends():
    network, ends, _ = three()
    objective = Objective(network, INPUTS, torch.arange(23) % 3)
    line = Line(*ends)
    for policy in ("repair", "rescale"):
        result = barrier(line, objective, points=5, normalisation=policy, inputs=INPUTS)
        assert result.normalisation == policy
        assert result.treated == NAMES
        assert float(result.loss[0]) == objective(ends[0]).loss
        fixed = repair(network, line(0.25), ends, INPUTS, shares=(0.75, 0.25), rescale_only=policy == "rescale")
        assert float(result.loss[1]) == pytest.approx(objective(fixed).loss, rel=1e-12)
        assert result.treated_ends is not None
        assert result.treated_ends[0].loss == pytest.approx(float(result.loss[0]), rel=1e-9)
    some = barrier(line, objective, points=3, normalisation="repair", inputs=INPUTS, layers=["block", "conv"])
    assert some.treated == ("conv", "block")


def test_shares_must_fit():
    network, ends, merged = three()
    with pytest.raises(SettingError, match="one for each of 2 parents"):
        repair(network, merged, ends, INPUTS, shares=(0.5, 0.6))
