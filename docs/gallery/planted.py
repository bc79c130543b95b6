"""A permutation that was planted comes back whole, in a transformer as well.

A small encoder is permuted at random: heads, channels inside the heads, and the
residual stream. Weight matching must undo it exactly, and the function never changes.
"""

import torch
from torch import nn

import isthmus

torch.manual_seed(0)
module = nn.TransformerEncoder(
    nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True),
    2,
    enable_nested_tensor=False,
).eval()
inputs = torch.randn(2, 6, 16)
symmetry = isthmus.discover(module, inputs)
network = isthmus.Network.of(module)
weights = {
    name: tensor + 0.05 * torch.randn(tensor.shape)
    for name, tensor in network.weights.items()
}

planted = symmetry.random(torch.Generator().manual_seed(1))
moved = planted.apply(weights)
assert torch.allclose(network(moved, inputs), network(weights, inputs), atol=1e-5)

match = isthmus.WeightMatching()(
    symmetry, moved, weights, generator=torch.Generator().manual_seed(2)
)
back = match.permutation.apply(moved)
wrong = [name for name in weights if not torch.equal(back[name], weights[name])]
print(
    f"{len(symmetry.groups)} groups, 10^{symmetry.log10_size:.0f} equal networks; wrong after matching: {wrong}"
)
assert not wrong
