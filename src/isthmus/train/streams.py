"""Random numbers that are the same on every device and for every engine: integer hashing of (seed, position).

A generator's numbers depend on the device and on how many were drawn before. Here number i of a stream is a function of
the stream's seed and i (splitmix64: Steele, Lea, Flood 2014, doi 10.1145/2714064.2660195), computed with 64-bit integer
tensors, whose arithmetic wraps around alike on CPUs and GPUs. So the order of the data and every crop can be drawn for
all replicas at once, where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_STEP = _signed(0x9E3779B97F4A7C15)  # the odd integer nearest to 2^64 / golden ratio
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def draw(seeds: Sequence[int], count: int, *, device: str | torch.device = "cpu") -> Int64[Tensor, "streams count"]:
    """``count`` numbers, uniform over 0 … 2^63 − 1, from each stream."""
    start = torch.tensor([_signed(seed & (1 << 64) - 1) for seed in seeds], dtype=torch.int64, device=device)
    position = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    mixed = start[:, None] + position * _STEP
    mixed = (mixed ^ _shift(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shift(mixed, 27)) * _SECOND
    return _shift(mixed ^ _shift(mixed, 31), 1)


def orders(seeds: Sequence[int], count: int, *, device: str | torch.device = "cpu") -> Int64[Tensor, "streams count"]:
    """A uniformly random order of 0 … count − 1 from each stream."""
    numbers = draw(seeds, count, device=device)
    if numbers.device.type == "cpu":
        # NumPy was measured to sort five times as fast, but may exchange equal numbers; there are hardly ever any.
        found = torch.from_numpy(np.argsort(numbers.numpy(), axis=1))
        ordered = numbers.gather(1, found)
        if not (ordered[:, 1:] == ordered[:, :-1]).any():
            return found
    return numbers.argsort(dim=1, stable=True)


def _shift(value: Tensor, bits: int) -> Tensor:
    """A right shift that brings in zeros; torch's own brings in the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
