"""Independent random streams from one seed and the names of what they are for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def child_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed derived by hashing, so that different names or seeds never share a stream.

    Adding offsets to seeds makes streams collide (seed 0, worker 1 equals seed 1, worker 0); hashing does not.
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def child(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator for one purpose.

    Args:
        seed: the experiment's seed.
        names: what the stream is for, from general to particular, such as ``"order", 3``.
        device: where the numbers are drawn.

    Example:
        >>> import torch
        >>> a, b = child(0, "order"), child(0, "initialisation")
        >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
        False
    """
    # Seeds are also needed where torch is not: merging files must not wait seconds for its import.
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(child_seed(seed, *names))
    return generator
