"""Networks of blocks that each see their own part of the input and are tied by a few long links."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isthmus.core.errors import SettingError


class _Block(nn.Module):
    """One block: its own window of the image, hidden layers of its own, and a few units heard from the block before."""

    def __init__(self, window: tuple[int, int, int, int], channels: int, width: int, depth: int, heard: int) -> None:
        super().__init__()
        self.window = window
        top, bottom, left, right = window
        sizes = [channels * (bottom - top) * (right - left), *[width] * depth]
        self.layers = nn.ModuleList(
            nn.Linear(fan_in + (heard if place else 0), width) for place, fan_in in enumerate(sizes[:-1])
        )

    def forward(self, image: Tensor, heard: Sequence[Tensor]) -> list[Tensor]:
        """The block's hidden layers; ``heard`` holds the linked units of the block before, by layer."""
        top, bottom, left, right = self.window
        hidden = image[..., top:bottom, left:right].flatten(1)
        layers = []
        for place, layer in enumerate(self.layers):
            if place and heard:
                hidden = torch.cat([hidden, heard[place - 1]], 1)
            hidden = torch.relu(layer(hidden))
            layers.append(hidden)
        return layers


class Modular(nn.Module):
    """Blocks with receptive fields of their own, sparse links from each to the next, and one readout of all.

    The image is cut into ``grid`` × ``grid`` windows that overlap by ``overlap`` pixels on inner sides; block k sees
    window k (rows first) and, from its second layer on, the first ``links`` units of block k − 1's layer below. Units
    of different blocks, and linked and unlinked ones, cannot be exchanged.

    Args:
        inputs: channels, height, width.
        classes: of the readout.
        width: hidden units of each layer of each block.
        depth: hidden layers of each block.
        grid: windows along each side.
        blocks: how many of the windows have a block; all by default. See :func:`grown`.
        links: units of each layer that the next block hears, at most ``width``.
        overlap: pixels.

    Raises:
        SettingError: a size out of its range.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: int = 32,
        depth: int = 2,
        grid: int = 2,
        blocks: int | None = None,
        links: int = 2,
        overlap: int = 1,
    ) -> None:
        super().__init__()
        if len(inputs) != 3:
            raise SettingError(f"a modular network must have inputs of (channels, height, width), got {tuple(inputs)}")
        count = grid**2 if blocks is None else blocks
        least = {"classes": 1, "width": 1, "depth": 1, "grid": 1, "blocks": 1, "links": 0, "overlap": 0}
        given = {"classes": classes, "width": width, "depth": depth, "grid": grid, "blocks": count, "links": links,
                 "overlap": overlap}  # fmt: skip
        for name, low in least.items():
            if given[name] < low:
                raise SettingError(f"{name} must be at least {low}, got {given[name]}")
        most = {"blocks": grid**2, "links": width, "grid": min(inputs[1:])}
        for name, high in most.items():
            if given[name] > high:
                raise SettingError(f"{name} must be at most {high}, got {given[name]}")
        self.links = links
        self.settings = {**given, "inputs": tuple(inputs), "blocks": count}
        self.blocks = nn.ModuleList(
            _Block(_window(place, inputs, grid, overlap), inputs[0], width, depth, links if place else 0)
            for place in range(count)
        )
        self.head = nn.Linear(count * width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to class scores."""
        heard: list[Tensor] = []
        tops = []
        for block in self.blocks:
            layers = block(inputs, heard)
            # Split, not sliced: then the units that nobody else hears are seen to be alike too.
            heard = (
                [layer.split([self.links, layer.shape[1] - self.links], 1)[0] for layer in layers] if self.links else []
            )
            tops.append(layers[-1])
        return self.head(torch.cat(tops, 1))


@torch.no_grad()
def grown(module: Modular, *, generator: torch.Generator) -> Modular:
    """A larger network with one more block, for the next window, that computes the same function.

    The new block is drawn as at the start (He's deviation, biases zero); the readout does not hear it yet, so that its
    weights there, zero now, are the first to learn.

    Args:
        module: left as it is; it must have a window without a block.
        generator: draws the new block.

    Raises:
        SettingError: every window has its block.
    """
    settings = dict(module.settings)
    if settings["blocks"] >= settings["grid"] ** 2:
        raise SettingError(
            f"a network that grows must have a window without a block; all {settings['blocks']} have one"
        )
    old = module.head.weight
    with torch.device("meta"):
        larger = Modular(**{**settings, "blocks": settings["blocks"] + 1})
    larger = larger.to_empty(device=old.device).to(old.dtype)
    width, last = settings["width"], larger.blocks[-1]
    for name, tensor in module.blocks.state_dict().items():
        larger.blocks.get_parameter(name).copy_(tensor)
    for layer in last.layers:  # type: ignore[union-attr]
        drawn = torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2 / layer.weight.shape[1])
        layer.weight.copy_(drawn)
        layer.bias.zero_()
    larger.head.weight[:, : -width or None].copy_(old)
    larger.head.weight[:, -width:].zero_()
    larger.head.bias.copy_(module.head.bias)
    return larger.train(module.training)


def _window(place: int, inputs: Sequence[int], grid: int, overlap: int) -> tuple[int, int, int, int]:
    """Rows from, to, columns from, to."""
    edges = []
    for index, size in ((place // grid, inputs[1]), (place % grid, inputs[2])):
        first, last = index * size // grid, (index + 1) * size // grid
        edges += [max(0, first - overlap), min(size, last + overlap)]
    return tuple(edges)  # type: ignore[return-value]
