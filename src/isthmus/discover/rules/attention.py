"""Fused attention, spelled out in contractions."""

from __future__ import annotations

from typing import Any

from isthmus.discover.labels import Labels, aligned, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.movement import repeated
from isthmus.discover.rules.registry import rule


@rule(
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_attention_math",
)
def attention(
    ledger: Ledger,
    query: Labels,
    key: Labels,
    value: Labels,
    mask: Any = None,
    *_: Any,
    enable_gqa: bool = False,
    attn_mask: Any = None,
    **__: Any,
) -> Any:
    """softmax(q kᵀ + mask) v; with grouped queries each key-value head serves neighbouring query heads."""
    ledger.word = "heads"
    mask = mask if isinstance(mask, Labels) else attn_mask
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        times = query.shape[-3] // key.shape[-3]
        key, value = repeated(ledger, key, times, -3), repeated(ledger, value, times, -3)
    rank = max(query.rank, key.rank, value.rank)
    query, key, value = (aligned(v, (1,) * (rank - v.rank) + v.shape) for v in (query, key, value))
    batch = "abcdefgh"[: rank - 2]
    scores = ledger.contract(f"{batch}qd,{batch}kd->{batch}qk", query, key)
    if isinstance(mask, Labels):
        scores = ledger.meet(scores, mask)
    scores = ledger.normalise(scores, [-1])
    result = ledger.contract(f"{batch}qk,{batch}kv->{batch}qv", scores, value)
    return ledger.first_of(reshaped(result, result.shape))
