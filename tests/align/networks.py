"""Small networks: symmetries written by hand, and weights for them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from isthmus.core.randomness import child
from isthmus.core.symmetry import Site, Symmetry, UnitGroup


def column(size: int) -> Tensor:
    return torch.arange(size).unsqueeze(1)


def mlp(*sizes: int) -> Symmetry:
    """The symmetry of a plain network, written by hand."""
    tensors: dict[str, tuple[int, ...]] = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        tensors |= {f"{layer}.weight": (fan_out, fan_in), f"{layer}.bias": (fan_out,)}
    groups = [
        UnitGroup(
            f"layer {layer}",
            size,
            (
                Site(f"{layer}.weight", 0, column(size)),
                Site(f"{layer}.bias", 0, column(size)),
                Site(f"{layer + 1}.weight", 1, column(size)),
            ),
        )
        for layer, size in enumerate(sizes[1:-1])
    ]
    return Symmetry(tuple(groups), tensors)


def residual(width: int, hidden: int, blocks: int) -> Symmetry:
    """Embedding 8 → width, blocks width → hidden → width around a stream, head width → 5."""
    stream = [Site("embed.weight", 0, column(width)), Site("embed.bias", 0, column(width))]
    tensors: dict[str, tuple[int, ...]] = {"embed.weight": (width, 8), "embed.bias": (width,)}
    groups = []
    for block in range(blocks):
        up, down = f"{block}.up", f"{block}.down"
        tensors |= {f"{up}.weight": (hidden, width), f"{up}.bias": (hidden,)}
        tensors |= {f"{down}.weight": (width, hidden), f"{down}.bias": (width,)}
        stream += [Site(f"{up}.weight", 1, column(width)), Site(f"{down}.weight", 0, column(width))]
        stream += [Site(f"{down}.bias", 0, column(width))]
        inner = [(f"{up}.weight", 0), (f"{up}.bias", 0), (f"{down}.weight", 1)]
        groups.append(UnitGroup(f"block {block}", hidden, tuple(Site(n, d, column(hidden)) for n, d in inner)))
    stream.append(Site("head.weight", 1, column(width)))
    tensors |= {"head.weight": (5, width), "head.bias": (5,)}
    return Symmetry((UnitGroup("stream", width, tuple(stream)), *groups), tensors)


def weights_of(symmetry: Symmetry, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """PyTorch's default initialisation of linear layers: uniform within 1/√fan-in, biases too."""
    generator = child(seed, "weights")
    result = {}
    for name, shape in symmetry.tensors.items():
        fan_in = symmetry.tensors[name.replace("bias", "weight")][-1]
        result[name] = ((2 * torch.rand(shape, generator=generator, dtype=dtype) - 1) / fan_in**0.5).to(dtype)
    return result


def noisy(weights: dict[str, Tensor], noise: float, seed: int) -> dict[str, Tensor]:
    generator = child(seed, "noise")
    return {n: t + noise * t.std() * torch.randn(t.shape, generator=generator) for n, t in weights.items()}
