"""The small networks of the zoo: perceptrons, convolutions in stages, residual networks, transformers.

All take images ``(examples, channels, height, width)`` or, for ``mlp``, anything that can be flattened, and give class
scores; ``gpt`` takes token numbers and gives scores of the next token. Names, initialisation:
:mod:`isthmus.zoo.networks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import SettingError, listed

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an image, at each position by itself; no statistics of the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images in, images of the same shape out."""
        return self.norm(inputs.movedim(1, -1)).movedim(-1, 1)


class Mlp(nn.Sequential):
    """Flatten, then ``depth`` hidden layers of one width, then the classes."""

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: int = 128,
        depth: int = 2,
        widths: Sequence[int] | None = None,
        norm: str = "none",
        activation: str = "relu",
    ) -> None:
        hidden = list(widths) if widths is not None else [width] * depth
        _positive(classes=classes, **{f"widths[{index}]": size for index, size in enumerate(hidden)})
        sizes = [math.prod(inputs), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers.append(nn.Linear(fan_in, fan_out))
            if norm != "none":
                layers.append(_vector_norm(norm, fan_out))
            layers.append(_activation(activation))
        super().__init__(*layers, nn.Linear(sizes[-1], classes))


class Vgg(nn.Module):
    """Stages of 3×3 convolutions, halved by max-pooling while the image allows, then the mean over positions.

    ``convolutions`` is their number in each stage, one for all or one each. ``channels=(64, 128, 256, 512, 512)`` and
    ``convolutions=(2, 2, 3, 3, 3)`` are the convolutions of VGG-16 (Simonyan and Zisserman, arXiv 1409.1556, column D).
    """

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        channels: Sequence[int] = (32, 64, 128),
        convolutions: int | Sequence[int] = 1,
        norm: str = "batch",
        head: int = 0,
    ) -> None:
        super().__init__()
        depths = [convolutions] * len(channels) if isinstance(convolutions, int) else list(convolutions)
        if len(depths) != len(channels):
            raise SettingError(
                f"convolutions must be one number or one for each of {len(channels)} stages, got {depths}"
            )
        _positive(
            classes=classes,
            **{f"convolutions[{i}]": depth for i, depth in enumerate(depths)},
            **{f"channels[{i}]": c for i, c in enumerate(channels)},
        )
        _image(inputs)
        layers: list[nn.Module] = []
        previous, size = inputs[0], min(inputs[1:])
        for index, (width, depth) in enumerate(zip(channels, depths, strict=True)):
            if index and size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            for _ in range(depth):
                layers += [nn.Conv2d(previous, width, 3, padding=1, bias=norm == "none"), _image_norm(norm, width)]
                layers.append(nn.ReLU())
                previous = width
        self.features = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        hidden: list[nn.Module] = [nn.Linear(previous, head), nn.ReLU()] if head else []
        self.classifier = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(head or previous, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to class scores."""
        return self.classifier(self.pool(self.features(inputs)))


class _Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, previous: int, width: int, stride: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(previous, width, 3, stride=stride, padding=1, bias=bias)
        self.norm1 = _image_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.norm2 = _image_norm(norm, width)
        self.shortcut = nn.Sequential()
        if stride != 1 or previous != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(previous, width, 1, stride=stride, bias=bias), _image_norm(norm, width)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class ResNet(nn.Module):
    """The residual network of He et al. 2016 (arXiv 1512.03385, section 4.2) for small images: 6·blocks + 2 layers.

    ``blocks=3`` is ResNet-20. The first stage has 16·``width`` channels, the next two twice and four times that. Where
    the shape changes the shortcut is a projection (their option B).
    """

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: float = 1.0,
        blocks: int = 3,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        _image(inputs)
        base = round(16 * width)
        _positive(classes=classes, blocks=blocks, channels=base)
        self.conv = nn.Conv2d(inputs[0], base, 3, padding=1, bias=norm == "none")
        self.norm = _image_norm(norm, base)
        stages: list[nn.Module] = []
        previous = base
        for stage, channels in enumerate((base, 2 * base, 4 * base)):
            for block in range(blocks):
                stages.append(_Block(previous, channels, 2 if stage and not block else 1, norm))
                previous = channels
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(previous, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to class scores."""
        hidden = self.blocks(functional.relu(self.norm(self.conv(inputs))))
        return self.head(hidden.mean((2, 3)))


class _Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    ``causal``: no token sees what comes after it.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        examples, length, width = tokens.shape
        parts = self.qkv(tokens).reshape(examples, length, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(examples, length, width))


class _Encoder(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads, causal=causal)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Vit(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), pre-norm, reading the tokens' mean."""

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        patch: int | None = None,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        _image(inputs)
        size = patch if patch is not None else max(1, min(inputs[1:]) // 8)
        _positive(classes=classes, width=width, depth=depth, heads=heads, patch=size, expansion=expansion)
        _divisible(width, heads)
        if inputs[1] % size or inputs[2] % size:
            raise SettingError(f"patch must divide the image's {inputs[1]}×{inputs[2]} pixels, got {size}")
        self.embed = nn.Conv2d(inputs[0], width, size, stride=size)
        self.positions = nn.Parameter(torch.zeros(1, (inputs[1] // size) * (inputs[2] // size), width))
        self.blocks = nn.Sequential(*(_Encoder(width, heads, expansion * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to class scores."""
        tokens = self.embed(inputs).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class Gpt(nn.Module):
    """A small language model (Radford et al. 2019): pre-norm, causal, the next token's scores at every place.

    Args:
        inputs: (the longest text in tokens,); shorter ones are taken, too.
        classes: how many tokens there are.
        width: of the residual stream.
        depth: blocks.
        heads: of each block's attention.
        expansion: hidden units of a block for each one of the stream.

    No dropout; the scores have weights of their own, not those of the embedding.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (64,),
        classes: int = 256,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        if len(inputs) != 1:
            raise SettingError(f"a language model needs inputs of (tokens,), got {tuple(inputs)}")
        _positive(tokens=inputs[0], classes=classes, width=width, depth=depth, heads=heads, expansion=expansion)
        _divisible(width, heads)
        # Empty, as it is drawn later: drawing it here, without a device, would load torch's compiler.
        self.embed = nn.Embedding.from_pretrained(torch.empty(classes, width), freeze=False)
        self.positions = nn.Parameter(torch.zeros(1, inputs[0], width))
        self.blocks = nn.Sequential(*(_Encoder(width, heads, expansion * width, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers ``(examples, places)`` to scores ``(examples, places, tokens)``."""
        hidden = self.embed(tokens) + self.positions[:, : tokens.shape[1]]
        return self.head(self.norm(self.blocks(hidden)))


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise SettingError(f"activation must be one of {listed(_ACTIVATIONS)}, got {name}")
    return _ACTIVATIONS[name]()


def _vector_norm(name: str, width: int) -> nn.Module:
    kinds: Mapping[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    if name not in kinds:
        raise SettingError(f"norm must be one of none, batch, layer, got {name}")
    return kinds[name](width)


def _image_norm(name: str, channels: int) -> nn.Module:
    kinds: Mapping[str, Callable[[int], nn.Module]] = {
        "none": lambda _: nn.Identity(),
        "batch": nn.BatchNorm2d,
        "layer": ChannelNorm,
    }
    if name not in kinds:
        raise SettingError(f"norm must be one of {listed(kinds)}, got {name}")
    return kinds[name](channels)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SettingError(f"{name} must be at least 1, got {size}")


def _divisible(width: int, heads: int) -> None:
    if width % heads:
        raise SettingError(f"width must be a multiple of heads, got {width} and {heads}")


def _image(inputs: Sequence[int]) -> None:
    if len(inputs) != 3:
        raise SettingError(f"an image network needs inputs of (channels, height, width), got {tuple(inputs)}")
