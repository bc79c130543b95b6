"""Small networks of the kinds that the questions are about, initialised from one seed and nothing else.

All take images ``(examples, channels, height, width)`` or, for ``mlp``, anything that can be flattened, and give class
scores; ``gpt`` takes token numbers and gives scores of the next token. Weights come from a generator of their own (He
et al. 2015, arXiv 1502.01852: normal, variance 2/fan-in before a rectifier, 1/fan-in at the output; biases zero), so
building a network never touches the global random state.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from isthmus.core.errors import SettingError, listed, near
from isthmus.core.randomness import child
from isthmus.zoo.architectures import Mlp, ResNet, Vgg
from isthmus.zoo.locally_connected import CONNECTIVITIES
from isthmus.zoo.modular import Modular
from isthmus.zoo.ortho_polynomial import OrthoMlp
from isthmus.zoo.transformers import Gpt, Vit

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "mlp": Mlp,
    "vgg": Vgg,
    "resnet20": ResNet,
    "vit": Vit,
    "gpt": Gpt,
    **CONNECTIVITIES,
    "modular": Modular,
    "ortho": OrthoMlp,
}


INITIALISATIONS = ("he", "torch")


def network(
    name: str,
    *,
    seed: int | torch.Generator = 0,
    initialisation: str = "he",
    initial_scale: float = 1.0,
    **settings: Any,
) -> nn.Module:
    """Build a network of the zoo with weights drawn from ``seed`` alone.

    Args:
        name: ``mlp``, ``vgg``, ``resnet20``, ``vit``, ``gpt``, one of the connectivities of
            :mod:`isthmus.zoo.locally_connected`, or a short form that holds settings: ``mlp-128x2`` (width ×
            depth), ``mlp-64-32`` (widths), ``vgg-8-16`` (channels), ``resnet20-x2`` or ``resnet20-layer-x0.5`` (width
            multiplier, norm), ``vit-64x4`` and ``gpt-64x4`` (width × depth).
        seed: the initialisation's seed, or a generator to draw from.
        initialisation: ``he``, as this module says, or ``torch``: as torch's own layers start, weights and biases of
            linear and convolutional layers uniform within ±1/√fan-in, a sixth of He's variance before a rectifier.
        initial_scale: what the drawn weights of linear and convolutional layers are multiplied by (biases are not).
        settings: what the network's class takes, such as ``inputs=(1, 28, 28)`` and ``classes=10``.

    Raises:
        SettingError: an unknown name or setting, or one out of its range.

    Example:
        >>> module = network("mlp-32x2", inputs=(1, 8, 8))
        >>> module(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    kind, short = parse(name)
    given = {**short, **settings}
    if initialisation not in INITIALISATIONS:
        raise SettingError(f"initialisation must be one of {listed(INITIALISATIONS)}, got {initialisation}")
    if not (isinstance(initial_scale, int | float) and 0 <= initial_scale < math.inf):
        raise SettingError(f"initial_scale must be a finite number of at least 0, got {initial_scale}")
    try:
        with torch.device("meta"):  # nothing is drawn here, so the global generator stays where it is
            module = NETWORKS[kind](**given)
    except TypeError as problem:
        raise SettingError(f"{name} cannot take these settings: {_complaint(problem, NETWORKS[kind])}") from None
    generator = child(seed, "initialisation") if isinstance(seed, int) else seed
    # What module.to_empty() does, but for its empty_like, which imports sympy for a tensor of no numbers: .4 CPU s.
    module = module._apply(lambda held: torch.empty(held.shape, dtype=held.dtype, device=generator.device))
    shape = given.get("inputs") or inspect.signature(NETWORKS[kind]).parameters["inputs"].default
    module.input_shape = tuple(shape)  # type: ignore[assignment]  # what an example of its inputs looks like
    return initialise(module, generator=generator, kind=initialisation, scale=initial_scale)


def is_network(name: str) -> bool:
    """Whether a name, also in its short form, is one of the zoo's."""
    try:
        parse(name)
    except SettingError:
        return False
    return True


def parse(name: str) -> tuple[str, dict[str, Any]]:
    """Split a network's name into its kind and the settings that its short form holds.

    Raises:
        SettingError: the name or its short form is unknown.
    """
    kind, _, short = name.partition("-")
    if kind not in NETWORKS:
        raise SettingError(f"network must be one of {listed(NETWORKS, most=20)}, got {name}{near(kind, NETWORKS)}")
    if not short:
        return kind, {}
    if match := re.fullmatch(r"(\d+)x(\d+)", short):
        if kind in ("mlp", "modular", "ortho", "vit", "gpt"):
            return kind, {"width": int(match[1]), "depth": int(match[2])}
    elif re.fullmatch(r"\d+(-\d+)*", short) and kind in ("mlp", "vgg"):
        return kind, {"widths" if kind == "mlp" else "channels": tuple(int(part) for part in short.split("-"))}
    elif (match := re.fullmatch(r"(?:(batch|layer|none))?-?(?:x(\d+(?:\.\d+)?))?", short)) and kind == "resnet20":
        parts = {"norm": match[1], "width": float(match[2]) if match[2] else None}
        return kind, {key: value for key, value in parts.items() if value is not None}
    raise SettingError(f"the short form of {kind} is not understood: {name}; give settings by name instead")


@torch.no_grad()
def initialise(module: nn.Module, *, generator: torch.Generator, kind: str = "he", scale: float = 1.0) -> nn.Module:
    """Draw every parameter of a zoo network anew, in the module's order, and reset its buffers; changes the module.

    ``kind`` and ``scale`` are :func:`network`'s ``initialisation`` and ``initial_scale``.

    Raises:
        SettingError: another start is asked for, and a layer draws weights of its own.
    """
    heads = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    drawn: set[int] = set()
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _draw(layer, kind=kind, gain=1.0 if layer in heads else 2.0, generator=generator)
            layer.weight.mul_(scale)
        elif isinstance(layer, nn.LayerNorm | nn.modules.batchnorm._BatchNorm):
            layer.reset_parameters()
        elif callable(draw := getattr(layer, "draw", None)):
            if hasattr(layer, "weight") and (kind, scale) != ("he", 1.0):
                raise SettingError(f"{type(layer).__name__} starts as He says only; leave initialisation as it is")
            draw(generator)
        else:
            continue
        drawn.update(id(parameter) for parameter in layer.parameters(recurse=False))
    for parameter in module.parameters():
        if id(parameter) not in drawn:  # position tables
            parameter.normal_(0.0, 0.02, generator=generator)
    return module


def _draw(layer: nn.Linear | nn.Conv2d, *, kind: str, gain: float, generator: torch.Generator) -> None:
    """Draw the weight and the bias of one layer; ``gain`` is He's variance times the fan-in."""
    fan_in = layer.weight[0].numel()
    if kind == "torch":
        bound = 1 / math.sqrt(fan_in)
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            layer.bias.uniform_(-bound, bound, generator=generator)
        return
    layer.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
    if layer.bias is not None:
        layer.bias.zero_()


def _complaint(problem: TypeError, kind: Callable[..., nn.Module]) -> str:
    """The part of a TypeError that a user can act on."""
    if match := re.search(r"unexpected keyword argument '(\w+)'", str(problem)):
        known = [name for name, part in inspect.signature(kind).parameters.items() if part.kind is part.KEYWORD_ONLY]
        return f"{match[1]} is unknown" + (near(match[1], known) or f"; known: {listed(known, 20)}")
    return str(problem)
