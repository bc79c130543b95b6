"""What is known of the order in which a training sees its data, and of its start; as plain values for a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from isthmus.core.errors import IsthmusError
from isthmus.core.record import plain
from isthmus.studies.store.stacked import digest


def order_of(loader: Any) -> dict[str, Any]:
    """What a data loader says of the order: sampler, seed of its generator, sizes, fingerprint of the data set.

    What a loader does not say is ``None``; loaders other than torch's may say little.
    """
    loader = loader[0] if isinstance(loader, list | tuple) and loader else loader
    batches = _batches(loader)
    # A loader that is given whole batches has a sampler too, one that it never asks.
    sampler: Any = getattr(batches, "sampler", None) or getattr(loader, "sampler", None)
    generator: Any = getattr(sampler, "generator", None) or getattr(loader, "generator", None)
    data: Any = getattr(loader, "dataset", None)
    return {
        "sampler": type(sampler).__name__ if sampler is not None else None,
        "generator_seed": generator.initial_seed() if hasattr(generator, "initial_seed") else None,
        "batch_size": getattr(batches, "batch_size", None) or getattr(loader, "batch_size", None),
        "drop_last": getattr(batches, "drop_last", getattr(loader, "drop_last", None)),
        "workers": getattr(loader, "num_workers", None),
        "examples": len(data) if hasattr(data, "__len__") else None,
        "data": getattr(data, "_fingerprint", None),
    }


def _batches(loader: Any) -> Any:
    """The sampler of batches at the bottom: libraries that share batches among processes wrap it."""
    batches: Any = getattr(loader, "batch_sampler", None)
    while getattr(batches, "batch_sampler", None) is not None:
        batches = batches.batch_sampler
    return batches


def start_of(module: nn.Module) -> str:
    """A digest of the weights that a training starts from: equal for two trainings exactly if they share their start.

    Cost: one pass over the weights.
    """
    return digest({name: tensor for name, tensor in module.state_dict().items() if hasattr(tensor, "dtype")})


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Other people's settings as plain values; what JSON does not know is named by its type."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        try:
            found[str(name)] = readable(value) if isinstance(value, Mapping) else plain(value)
        except (TypeError, IsthmusError):
            found[str(name)] = getattr(value, "__name__", type(value).__name__)
    return found
