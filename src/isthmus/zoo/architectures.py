"""The small networks of the zoo: perceptrons, convolutions in stages, residual networks.

All take images ``(examples, channels, height, width)`` or, for ``mlp``, anything that can be flattened, and give class
scores. Transformers: :mod:`isthmus.zoo.transformers`; names, initialisation: :mod:`isthmus.zoo.networks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

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
        check_positive(classes=classes, **{f"widths[{index}]": size for index, size in enumerate(hidden)})
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
        check_positive(
            classes=classes,
            **{f"convolutions[{i}]": depth for i, depth in enumerate(depths)},
            **{f"channels[{i}]": c for i, c in enumerate(channels)},
        )
        check_image(inputs)
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
        check_image(inputs)
        base = round(16 * width)
        check_positive(classes=classes, blocks=blocks, channels=base)
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


def check_positive(**sizes: int) -> None:
    """Refuse sizes below 1, by their names."""
    for name, size in sizes.items():
        if size < 1:
            raise SettingError(f"{name} must be at least 1, got {size}")


def check_image(inputs: Sequence[int]) -> None:
    """Refuse inputs that are no images."""
    if len(inputs) != 3:
        raise SettingError(f"an image network needs inputs of (channels, height, width), got {tuple(inputs)}")
