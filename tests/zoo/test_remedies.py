"""Remedies: what is held stays held, what is left is found by discovery, and users' own modules take them."""

import math

import pytest
import torch
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.core.symmetry import Symmetry
from isthmus.discover import discover
from isthmus.train import Recipe, train
from isthmus.zoo import load_data
from isthmus.zoo.networks import network
from isthmus.zoo.remedies import anchored, free_parameters, masked, ordered, sorted_units

EXAMPLE = torch.zeros(2, 1, 8, 8)


def plain(width=8):
    return network(f"mlp-{width}x2", inputs=(1, 8, 8))


class Own(nn.Module):
    """A user's module: convolutions, a norm, a function as activation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, image):
        hidden = torch.relu(self.deep(torch.relu(self.norm(self.conv(image)))))
        return self.head(hidden.mean((2, 3)))


def trained(change, width=8):
    recipe = Recipe(network="mlp", settings={}, epochs=1, batch_size=200)
    module = change(plain(width))
    [replica] = train(recipe, data=load_data("digits"), module=module, device="cpu", engine="vectorised")
    return module, replica.weights


def used(module, weights):
    module.load_state_dict(weights)
    return module[1].weight.detach()


@pytest.mark.parametrize("structure", ["entries", "blocks"])
def test_training_moves_only_what_a_mask_leaves(structure):
    module = masked(plain(), structure=structure)
    zero = module[1].weight == 0
    assert zero.float().mean() == pytest.approx(0.5, abs=0.01)
    before = module[1].weight.detach().clone()
    module, weights = trained(lambda m: masked(m, structure=structure))
    after = used(module, weights)
    assert torch.equal(after == 0, zero)
    assert not torch.equal(after, before)


def test_constants_stay_and_belong_to_the_seed():
    module, weights = trained(lambda m: anchored(m, share=0.75, scale=2.0, seed=3))
    after = used(module, weights)
    other = anchored(network("mlp-8x2", inputs=(1, 8, 8), seed=5), share=0.75, scale=2.0, seed=3)[1].weight
    assert (after == other).float().mean() == pytest.approx(0.75, abs=0.03)
    assert float(after[after == other].std()) == pytest.approx(2 * math.sqrt(2 / 64), rel=0.15)
    assert not any("held" in name or "free" in name for name in weights)


def test_an_order_holds_throughout():
    module, weights = trained(ordered)
    module.load_state_dict(weights)
    start = ordered(plain())[1].bias
    assert start.tolist() == pytest.approx(torch.linspace(-1, 1, 8).tolist(), abs=1e-6)
    assert bool((module[1].bias.diff() > 0).all())
    assert not torch.equal(module[1].bias, start)


def test_what_each_remedy_leaves_to_exchange():
    factorial = 2 * math.lgamma(9) / math.log(10)
    assert discover(plain(), EXAMPLE).log10_size == pytest.approx(factorial)
    for change in (masked, anchored, ordered):
        assert discover(change(plain()), EXAMPLE).log10_size == 0
    # Four parts of two units in each of two layers.
    blocks = discover(masked(plain(), structure="blocks"), EXAMPLE)
    assert blocks.log10_size == pytest.approx(8 * math.log10(2))


def test_sorting_undoes_any_permutation():
    symmetry, weights = discover(plain(), EXAMPLE), plain().state_dict()
    moved = symmetry.random(torch.Generator().manual_seed(1)).apply(weights)
    assert not torch.equal(moved["1.weight"], weights["1.weight"])
    first, second = sorted_units(symmetry, weights), sorted_units(symmetry, moved)
    assert all(torch.equal(first[name], second[name]) for name in weights)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_sorting_during_training_is_sorting_at_the_end(optimiser):
    """Steps commute with permutations, so an order that is only restored now and then changes nothing."""
    symmetry = discover(plain(), EXAMPLE)
    recipe = Recipe(network="mlp", epochs=1, batch_size=400, optimiser=optimiser, rate=0.01, precision="float64")
    data = load_data("digits")
    start = plain().double()
    arranged = plain().double()
    arranged.load_state_dict(sorted_units(symmetry, start.state_dict()))
    ends = [train(recipe, data=data, module=module, device="cpu")[0].weights for module in (start, arranged)]
    ends = [sorted_units(symmetry, weights) for weights in ends]
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("change", [masked, lambda m: masked(m, structure="blocks"), anchored, ordered])
def test_a_users_module_takes_it(change):
    own = Own()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    changed = change(own)
    assert changed(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in before.items())
    assert type(own.conv) is nn.Conv2d
    assert discover(changed.eval(), EXAMPLE).log10_size < discover(own.eval(), EXAMPLE).log10_size


class Block(nn.Module):
    """What no list of layers holds: attention, a parameter of its own, a transposed convolution, a recurrent cell."""

    def __init__(self):
        super().__init__()
        self.read = nn.Linear(8, 12)
        self.place = nn.Parameter(0.02 * torch.randn(1, 8, 12))
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.up = nn.ConvTranspose1d(12, 6, 2)
        self.cell = nn.GRU(6, 7, batch_first=True)
        self.head = nn.Linear(7, 10)

    def forward(self, images):
        hidden = self.read(images.squeeze(1)) + self.place
        seen = self.norm(hidden)
        hidden = hidden + self.attention(seen, seen, seen, need_weights=False)[0]
        hidden = torch.relu(self.up(hidden.transpose(1, 2))).transpose(1, 2)
        return self.head(self.cell(hidden)[0].mean(1))


@pytest.fixture(scope="module")
def block():
    torch.manual_seed(0)
    module = Block().eval()
    return module, discover(module, EXAMPLE)


@pytest.mark.parametrize("change", [masked, anchored])
def test_a_symmetry_says_where_the_units_are(block, change):
    module, symmetry = block
    changed = change(module, symmetry=symmetry)
    held = {name.partition(".original")[0] for name, _ in changed.named_parameters() if "original" in name}
    expected = ("read", "attention", "attention.out_proj", "up", "head", "")
    assert {name.partition("parametrizations")[0].rstrip(".") for name in held} == set(expected)
    assert changed(EXAMPLE).shape == (2, 10)
    # Recurrent kernels are left as they are, and with them the exchange of their own units.
    left = discover(changed, EXAMPLE)
    assert {group.size for group in left.permutable} <= {7}
    assert free_parameters(changed) < free_parameters(module)
    again = change(module, symmetry=symmetry)
    assert all(torch.equal(a, b) for a, b in zip(changed.parameters(), again.parameters(), strict=True))


def test_one_vector_of_each_group_ascends(block):
    module, symmetry = block
    changed = ordered(module, symmetry=symmetry)
    assert bool((changed.up.bias.diff() > 0).all())
    bias = changed.attention.in_proj_bias.detach()
    # Channels of queries (or keys, which follow them) and of values ascend inside each head.
    ascending = [first for first in range(0, 36, 6) if bool((bias[first : first + 6].diff() > 0).all())]
    assert len(ascending) == 4
    assert ascending[2:] == [24, 30]
    assert discover(changed, EXAMPLE).log10_size < symmetry.log10_size - math.log10(2) - 4 * math.log10(
        math.factorial(6)
    )
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert bool((changed.up.bias.diff() > 0).all())


def test_tied_tensors_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(64, 6)
            self.back = nn.Linear(6, 6, bias=False)
            self.again = nn.Linear(6, 6, bias=False)
            self.again.weight = self.back.weight
            self.head = nn.Linear(6, 10)

        def forward(self, images):
            hidden = torch.relu(self.read(images.flatten(1)))
            return self.head(self.again(torch.relu(self.back(hidden))))

    module = Tied()
    changed = masked(module, symmetry=discover(module, EXAMPLE))
    assert changed.again.weight is changed.back.weight
    assert hasattr(changed.head, "parametrizations")


def test_free_parameters_are_what_training_can_change():
    dense = free_parameters(plain())
    assert dense == 8 * 64 + 8 + 64 + 8 + 80 + 10
    # Columns that no row had picked got an entry of their own.
    assert 0 <= free_parameters(masked(plain())) - (dense - 256 - 32) < 8
    assert free_parameters(masked(plain(), structure="blocks")) == dense - 256 - 32
    assert free_parameters(ordered(plain())) == dense


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: masked(plain(), density=0.0), "density must be above 0"),
        (lambda: masked(plain(), structure="stripes"), "structure must be one of"),
        (lambda: masked(plain(), layers=["7"]), "unknown: 7"),
        (lambda: masked(plain(), layers=["1"], symmetry=discover(plain(), EXAMPLE)), "must not both be given"),
        (lambda: masked(plain(), symmetry=Symmetry((), {})), "must have exchangeable units"),
        (lambda: ordered(plain(), symmetry=Symmetry((), {})), "a bias"),
        (lambda: anchored(plain(), share=1.0), "share must be"),
        (lambda: masked(nn.Linear(2, 2)), "hidden linear"),
        (lambda: ordered(nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2))), "a bias"),
    ],
)
def test_refusals(change, said):
    with pytest.raises(SettingError, match=said):
        change()
