"""What wrappers put before and into the names of tensors, and names without it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

_PREFIXES = ("module.", "model.", "_orig_mod.", "network.", "net.")
# What compiling, sharding and checkpointing of activations put into names, also around single layers.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def without_prefixes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names as they are, without wrappers' parts, and with each chain of prefixes that all of them share taken off."""
    candidates = [tuple(names)]
    unwrapped = tuple(functools.reduce(lambda name, part: name.replace(part, ""), _WRAPPERS, name) for name in names)
    if unwrapped != candidates[0] and len(set(unwrapped)) == len(names):
        candidates.append(unwrapped)
    for _ in range(3):
        last = candidates[-1]
        prefix = next((p for p in _PREFIXES if last and all(name.startswith(p) for name in last)), None)
        if prefix is None:
            break
        candidates.append(tuple(name.removeprefix(prefix) for name in last))
    return candidates
