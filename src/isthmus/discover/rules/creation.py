"""Tensors made from nothing, or from the shape of another."""

from __future__ import annotations

from typing import Any

import torch

from isthmus.discover.labels import Labels, constant
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule


@rule(
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "empty",
    "empty_permuted",
    "new_empty_strided",
    "empty_strided",
)
def filled(ledger: Ledger, *_: Any, **__: Any) -> Labels:
    """One number everywhere (what ``empty`` holds is overwritten before it is read)."""
    return Labels(tuple(ledger.shape))


@rule("zero")
def zero(ledger: Ledger, value: Labels) -> Labels:
    """Zeros in place of a value."""
    return constant(torch.zeros(value.shape)) if len(value.shape) == 0 else Labels(value.shape)
