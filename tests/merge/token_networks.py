"""Small networks that read tokens."""

import torch
from torch import nn


def small(seed, *, tie=True, norm=False):
    """A network of tokens with an embedding that ignores padding, and an output layer that may be that embedding."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 4, padding_idx=0)
            self.middle = nn.Linear(4, 4)
            self.norm = nn.BatchNorm1d(4) if norm else nn.LayerNorm(4)
            self.head = nn.Linear(4, 7, bias=False)
            if tie:
                self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.norm(torch.tanh(self.middle(self.embed(tokens).mean(1)))))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tokens()


def copied(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def tokens(examples=21):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 7, (examples, 6), generator=generator)
    return drawn[:, :5], drawn[:, 5]
