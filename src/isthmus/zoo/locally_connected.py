"""One architecture in six connectivities, to tell weight sharing from locality at a matched number of parameters.

Every layer has ``width`` channels at each position of a grid half as fine as the one before. A unit's inputs are

========================  ==============================  ==========================================
kind                      reads                           weights
========================  ==============================  ==========================================
``convolutional``         a 3×3 patch                     shared by all positions
``locally_connected``     a 3×3 patch                     its own
``tied_dense``            everything, in an order drawn   shared by all positions
                          for its position
``sparse_dense``          as many entries as a patch,     its own
                          at random places
``tied_sparse``           as many entries as a patch,     shared by all positions
                          at random places
``dense``                 everything                      its own
========================  ==============================  ==========================================

Random places and orders belong to the architecture: they follow the setting ``connectivity``, not the seed of the
weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import SettingError, listed
from isthmus.core.randomness import child

KINDS = ("convolutional", "locally_connected", "tied_dense", "sparse_dense", "tied_sparse", "dense")
_SHARED = ("convolutional", "tied_dense", "tied_sparse")
_DRAWN = ("tied_dense", "sparse_dense", "tied_sparse")


class Field(nn.Module):
    """One layer: images ``(channels, height, width)`` to a grid half as fine.

    Attributes:
        weight: ``(width, fan_in)`` where positions share it, else ``(positions, width, fan_in)``.
        bias: for each channel, and for each position where weights are not shared.
        places: which inputs each position reads, ``(positions, fan_in)``, where that is drawn.
    """

    places: Tensor

    def __init__(
        self, kind: str, *, inputs: Sequence[int], width: int, kernel: int, connectivity: tuple[int, int]
    ) -> None:
        super().__init__()
        self.kind, self.inputs, self.kernel, self.connectivity = kind, tuple(inputs), kernel, connectivity
        self.grid = tuple((size + 1) // 2 for size in inputs[1:])
        positions, everything = math.prod(self.grid), math.prod(inputs)
        patch = inputs[0] * kernel * kernel
        fan_in = everything if kind in ("dense", "tied_dense") else min(patch, everything)
        shared = kind in _SHARED
        shape = (width,) if shared else (positions, width)
        self.weight = nn.Parameter(torch.empty(*shape, patch if kind == "convolutional" else fan_in))
        if kind == "locally_connected":
            self.weight = nn.Parameter(torch.empty(positions, width, patch))
        self.bias = nn.Parameter(torch.empty(width, *(() if shared else (positions,))))
        if kind in _DRAWN:
            self.register_buffer("places", torch.empty(positions, fan_in, dtype=torch.int64))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights from the generator and the places from the architecture's own seed."""
        self.weight.normal_(0.0, math.sqrt(2 / self.weight.shape[-1]), generator=generator)
        self.bias.zero_()
        if self.kind in _DRAWN:
            order = child(self.connectivity[0], "connectivity", self.connectivity[1])
            everything = math.prod(self.inputs)
            rows = [torch.randperm(everything, generator=order) for _ in range(len(self.places))]
            self.places.copy_(torch.stack(rows)[:, : self.places.shape[1]])

    def forward(self, inputs: Tensor) -> Tensor:
        """Images in, ``(examples, width, height/2, width/2)`` out."""
        examples = len(inputs)
        if self.kind == "dense":
            outputs = torch.einsum("pwf,nf->nwp", self.weight, inputs.flatten(1)) + self.bias
        elif self.kind in _DRAWN:
            read = inputs.flatten(1)[:, self.places]
            rule = "wf,npf->nwp" if self.kind in _SHARED else "pwf,npf->nwp"
            bias = self.bias[:, None] if self.kind in _SHARED else self.bias
            outputs = torch.einsum(rule, self.weight, read) + bias
        else:
            patches = functional.unfold(inputs, self.kernel, padding=self.kernel // 2, stride=2)
            rule = "wf,nfp->nwp" if self.kind == "convolutional" else "pwf,nfp->nwp"
            bias = self.bias[:, None] if self.kind == "convolutional" else self.bias
            outputs = torch.einsum(rule, self.weight, patches) + bias
        return outputs.reshape(examples, -1, *self.grid)


class Fields(nn.Module):
    """Layers of one connectivity, a rectifier after each, then all positions to the classes.

    Args:
        kind: one of the six.
        inputs: channels, height and width of the images.
        classes: how many.
        width: channels of every layer.
        depth: how many layers.
        kernel: side of a patch, odd.
        parameters: choose the width that comes nearest to so many parameters instead.
        connectivity: the seed of random places and orders.
    """

    def __init__(
        self,
        kind: str,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: int = 16,
        depth: int = 2,
        kernel: int = 3,
        parameters: int | None = None,
        connectivity: int = 0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise SettingError(f"kind must be one of {listed(KINDS)}, got {kind}")
        if len(inputs) != 3:
            raise SettingError(f"an image network needs inputs of (channels, height, width), got {tuple(inputs)}")
        if kernel % 2 == 0 or min(kernel, depth, classes, width) < 1:
            given = f"{kernel}, {depth}, {classes}, {width}"
            raise SettingError(f"kernel must be odd, and kernel, depth, classes and width at least 1, got {given}")
        if parameters is not None:
            settings = {"inputs": inputs, "classes": classes, "depth": depth, "kernel": kernel}
            width = matched_width(kind, parameters, **settings)
        layers: list[nn.Module] = []
        shape = tuple(inputs)
        for index in range(depth):
            layer = Field(kind, inputs=shape, width=width, kernel=kernel, connectivity=(connectivity, index))
            layers += [layer, nn.ReLU()]
            shape = (width, *layer.grid)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(math.prod(shape), classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to class scores."""
        return self.head(self.layers(inputs).flatten(1))


def matched_width(kind: str, parameters: int, **settings: Any) -> int:
    """The width whose network comes nearest to a number of parameters.

    Raises:
        SettingError: even one channel has more than twice as many.
    """

    def count(width: int) -> int:
        with torch.device("meta"):
            return sum(part.numel() for part in Fields(kind, width=width, **settings).parameters())

    if count(1) > 2 * parameters:
        raise SettingError(f"{kind} has at least {count(1)} parameters for these inputs, got a budget of {parameters}")
    low, high = 1, 2
    while count(high) <= parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return min((low, high), key=lambda width: abs(count(width) - parameters))


CONNECTIVITIES: Mapping[str, Callable[..., nn.Module]] = {kind: functools.partial(Fields, kind) for kind in KINDS}
