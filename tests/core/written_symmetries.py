"""Networks whose symmetries are written by hand: convolutions, groups in groups, attention, deep nests."""

from __future__ import annotations

import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.symmetry import Parent, Site, Symmetry, UnitGroup


def column(size, start=0):
    return torch.arange(start, start + size).unsqueeze(1)


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def drawn(module, seed=0):
    """Random weights and random buffers in float64: untouched BatchNorm statistics would hide mistakes."""
    generator = child(seed, "weights")
    return {
        name: (torch.randn(t.shape, generator=generator, dtype=torch.float64).abs() + 0.1).mul(
            1 if "var" in name else -1
        )
        if t.is_floating_point()
        else t
        for name, t in module.state_dict().items()
    }


class Case:
    """A module, its symmetry written by hand, and inputs."""

    def __init__(self, module, groups, inputs):
        self.module = module.double()
        self.symmetry = Symmetry(groups, shapes(module))
        self.network = Network.of(self.module)
        self.inputs = inputs
        self.weights = drawn(module)

    def output(self, weights):
        return self.network(weights, self.inputs)


def convolutional():
    """Two convolutions with BatchNorm, flattened into a linear layer: units own blocks of entries there."""
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(27, 5)
    )
    first = (
        Site("0.weight", 0, column(4)),
        Site("0.bias", 0, column(4)),
        *(Site(f"1.{name}", 0, column(4)) for name in ("weight", "bias")),
        *(Site(f"1.{name}", 0, column(4), "carry") for name in ("running_mean", "running_var")),
        Site("3.weight", 1, column(4)),
    )
    second = (
        Site("3.weight", 0, column(3)),
        Site("3.bias", 0, column(3)),
        Site("5.weight", 1, torch.arange(27).view(3, 9)),
    )
    groups = (UnitGroup("first", 4, first), UnitGroup("second", 3, second))
    return Case(module, groups, torch.randn(3, 2, 5, 5, generator=child(0, "images"), dtype=torch.float64))


def grouped():
    """A grouped convolution between two others: blocks may be exchanged, and channels inside each block on their own.

    The block's reading side shares its input channels with the layer before; the weight's second axis counts channels
    inside a block, so there a site is limited to the rows of that block.
    """
    blocks, inside, outside = 3, 2, 4
    module = nn.Sequential(
        nn.Conv2d(2, blocks * inside, 1),
        nn.ReLU(),
        nn.Conv2d(blocks * inside, blocks * outside, 3, groups=blocks),
        nn.ReLU(),
        nn.Conv2d(blocks * outside, 2, 1),
    )
    into, out = torch.arange(blocks * inside).view(blocks, inside), torch.arange(blocks * outside).view(blocks, outside)
    groups = [
        UnitGroup(
            "blocks",
            blocks,
            (
                Site("0.weight", 0, into),
                Site("0.bias", 0, into),
                Site("2.weight", 0, out),
                Site("2.bias", 0, out),
                Site("4.weight", 1, out),
            ),
        )
    ]
    for block in range(blocks):
        read, written = into[block].unsqueeze(1), out[block].unsqueeze(1)
        groups += [
            UnitGroup(
                f"read {block}",
                inside,
                (
                    Site("0.weight", 0, read),
                    Site("0.bias", 0, read),
                    Site("2.weight", 1, column(inside), within=((0, out[block]),)),
                ),
                parent=Parent("blocks", block, 0),
            ),
            UnitGroup(
                f"written {block}",
                outside,
                (Site("2.weight", 0, written), Site("2.bias", 0, written), Site("4.weight", 1, written)),
                parent=Parent("blocks", block, 1),
            ),
        ]
    return Case(module, tuple(groups), torch.randn(2, 2, 4, 4, generator=child(1, "images"), dtype=torch.float64))


def attention():
    """Heads may be exchanged; inside a head the query–key channels, and the value–output channels on their own."""
    heads, size = 3, 2
    width = heads * size

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(5, 3 * width)
            self.out = nn.Linear(width, 5)

        def forward(self, tokens):
            q, k, v = (
                part.unflatten(-1, (heads, size)).transpose(1, 2) for part in self.project(tokens).chunk(3, dim=-1)
            )
            mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            return self.out(mixed.transpose(1, 2).flatten(2))

    places = torch.arange(3 * width).view(3, heads, size)
    whole = places.transpose(0, 1).flatten(1)
    groups = [
        UnitGroup(
            "heads",
            heads,
            (
                Site("project.weight", 0, whole),
                Site("project.bias", 0, whole),
                Site("out.weight", 1, torch.arange(width).view(heads, size)),
            ),
        )
    ]
    for head in range(heads):
        both = places[:2, head].T
        groups += [
            UnitGroup(
                f"query and key {head}",
                size,
                (Site("project.weight", 0, both), Site("project.bias", 0, both)),
                parent=Parent("heads", head, 0),
            ),
            UnitGroup(
                f"value {head}",
                size,
                (
                    Site("project.weight", 0, places[2, head].unsqueeze(1)),
                    Site("project.bias", 0, places[2, head].unsqueeze(1)),
                    Site("out.weight", 1, column(size, head * size)),
                ),
                parent=Parent("heads", head, 1),
            ),
        ]
    return Case(Attention(), tuple(groups), torch.randn(2, 4, 5, generator=child(2, "tokens"), dtype=torch.float64))


def deep():
    """Three levels: blocks of blocks of units, so that a group moves with a parent that moves with its own."""
    outer, middle, inner = 2, 3, 2
    size = outer * middle * inner
    module = nn.Sequential(nn.Linear(3, size), nn.Tanh(), nn.Linear(size, 2))
    place = torch.arange(size).view(outer, middle, inner)

    def sites(index):
        return (Site("0.weight", 0, index), Site("0.bias", 0, index), Site("2.weight", 1, index))

    groups = [UnitGroup("outer", outer, sites(place.flatten(1)))]
    for a in range(outer):
        groups.append(UnitGroup(f"middle {a}", middle, sites(place[a]), parent=Parent("outer", a, 0)))
        for b in range(middle):
            groups.append(
                UnitGroup(f"inner {a}{b}", inner, sites(place[a, b].unsqueeze(1)), parent=Parent(f"middle {a}", b, 0))
            )
    return Case(module, tuple(groups), torch.randn(4, 3, generator=child(3, "x"), dtype=torch.float64))


CASES = {"convolutional": convolutional(), "grouped": grouped(), "attention": attention(), "deep": deep()}
