"""The transformers of the zoo: a vision transformer and a language model, both pre-norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import SettingError
from isthmus.zoo.architectures import check_image, check_positive


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
        check_image(inputs)
        size = patch if patch is not None else max(1, min(inputs[1:]) // 8)
        check_positive(classes=classes, width=width, depth=depth, heads=heads, patch=size, expansion=expansion)
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
        check_positive(tokens=inputs[0], classes=classes, width=width, depth=depth, heads=heads, expansion=expansion)
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


def _divisible(width: int, heads: int) -> None:
    if width % heads:
        raise SettingError(f"width must be a multiple of heads, got {width} and {heads}")
