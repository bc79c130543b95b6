"""Silent units against units that are silenced on purpose; writing axes against what layers are documented to do."""

import pytest
import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.discover import discover
from isthmus.noise import effective_redundancy, silent_units, writing_axes


class Up(nn.Module):
    """Tokens, an embedding, transposed convolution, norm, depthwise convolution, linear layers."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 6)
        self.up = nn.ConvTranspose1d(6, 5, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm1d(5)
        self.depthwise = nn.Conv1d(5, 5, 3, padding=1, groups=5)
        self.square = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, tokens):
        hidden = torch.relu(self.tokens(tokens).transpose(1, 2))
        hidden = torch.relu(self.norm(self.up(hidden)))
        hidden = torch.relu(self.depthwise(hidden)).mean(2)
        return self.head(torch.relu(self.square(hidden)))


@pytest.fixture
def place():
    torch.manual_seed(0)
    module = Up().eval()
    tokens = torch.randint(11, (40, 5))
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    return module, discover(module, (tokens,)), weights, tokens


def group_of(symmetry, tensor, dim):
    return next(g.name for g in symmetry.permutable for site in g.sites if (site.tensor, site.dim) == (tensor, dim))


def test_writing_axes(place):
    module, _, _, tokens = place
    expected = {"tokens": 1, "up": 1, "depthwise": 0, "square": 0, "head": 0}
    assert writing_axes(module, (tokens,)) == {f"{name}.weight": axis for name, axis in expected.items()}
    assert not any(layer._forward_pre_hooks for layer in module.modules())


def test_tensors_of_layers_that_were_not_called_are_not_told():
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    found = writing_axes(attention, (torch.randn(2, 3, 4),) * 3)
    assert found == {"in_proj_weight": None, "out_proj.weight": None}


def test_silenced_units_are_found_and_others_are_not(place):
    module, symmetry, weights, tokens = place
    weights["tokens.weight"][:, 2] = -1.0  # a rectifier that never fires
    weights["head.weight"][:, 3] = 0.0  # heard by nobody
    weights["depthwise.bias"].fill_(2.0)  # everything else fires
    weights["square.bias"].fill_(50.0)
    weights["square.bias"][1] = -1e3
    found = silent_units(Network.of(module), symmetry, weights, tokens, generator=torch.Generator(), batch_size=16)
    embedded, square = group_of(symmetry, "tokens.weight", 1), group_of(symmetry, "square.weight", 0)
    assert found[embedded].nonzero().flatten().tolist() == [2]
    assert found[square].nonzero().flatten().tolist() == [1, 3]
    others = {name: units.tolist() for name, units in found.items() if name not in (embedded, square)}
    assert not any(any(units) for units in others.values()), others


def test_a_unit_that_fires_once_is_not_silent(place):
    module, symmetry, weights, tokens = place
    weights["tokens.weight"][:, 2] = -1.0
    weights["tokens.weight"][7, 2] = 1.0
    found = silent_units(Network.of(module), symmetry, weights, tokens, generator=torch.Generator())
    assert not found[group_of(symmetry, "tokens.weight", 1)].any()


def test_dead_units_of_transposed_layers_and_embeddings(place):
    """Axis 0 of a transposed convolution reads: zeroing a row kills a unit of the embedding, none of its own."""
    module, symmetry, weights, tokens = place
    weights["up.weight"][3] = 0
    weights["tokens.weight"][:, 1] = 0
    writes = writing_axes(module, (tokens,))
    found = effective_redundancy(symmetry, weights, writes=writes)
    dead = {group.name: group.dead for group in found.groups}
    assert dead.pop(group_of(symmetry, "tokens.weight", 1)) == 2
    assert set(dead.values()) == {0}
    # Written by one tensor, read by the other: half of a residual stream's readers being zero kills nothing.
    weights["norm.weight"][2] = 0
    assert sum(group.dead for group in effective_redundancy(symmetry, weights, writes=writes).groups) == 2


def test_an_axis_that_is_not_told_counts_as_both(place):
    module, symmetry, weights, tokens = place
    weights["head.weight"][:, 3] = 0
    name = group_of(symmetry, "square.weight", 0)
    told = effective_redundancy(symmetry, weights, writes=writing_axes(module, (tokens,)))
    untold = effective_redundancy(symmetry, weights, writes=dict.fromkeys(symmetry.tensors))
    assert {group.name: group.dead for group in told.groups}[name] == 1
    assert {group.name: group.dead for group in untold.groups}[name] == 0
