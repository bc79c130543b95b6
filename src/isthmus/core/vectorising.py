"""What ``torch.vmap`` has no rule for, written in products that it has rules for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LONGEST = 1024  # places; beyond, the scores of all pairs of places take more memory than everything else together


class Vectorising(TorchFunctionMode):
    """Within it attention is written as plain products, so that many networks' attention is one product.

    Fused attention has no rule under ``torch.vmap``: on a CPU it is done one network after the other, and on a GPU it
    refuses the layout that it is given.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every torch function that is called within the mode comes by here."""
        return self.rewritten(function, args, kwargs or {})

    def rewritten(self, function: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The result of one torch function."""
        if function is functional.scaled_dot_product_attention:
            return attention(*args, **named)
        return function(*args, **named)


def attention(  # noqa: PLR0917 - torch's own order
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as :func:`torch.nn.functional.scaled_dot_product_attention` has it, in plain products.

    Left to torch with dropout, shared keys, a mask of the caller's own, or more than 1,024 places.

    Cost: the scores of all pairs of places at once.
    """
    places, seen = query.shape[-2], key.shape[-2]
    if dropout_p or enable_gqa or attn_mask is not None or max(places, seen) > _LONGEST:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        later = torch.ones(places, seen, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1) @ value
