"""The layers that write units: which they are, along which axis their units lie, in which order they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from isthmus.core.errors import DataError, SettingError, listed
from isthmus.core.network import Network
from isthmus.core.weights import Weights

Inputs = Tensor | tuple[Tensor, ...]
# What a hook after a layer is given.
Watcher = Callable[[nn.Module, tuple[Any, ...], Any], Any]


@dataclasses.dataclass(frozen=True)
class Writer:
    """A linear or convolutional layer: it writes one preactivation for each of its units.

    Attributes:
        name: the layer's name in the module.
        axis: the axis of its output along which the units lie.
        rows: the axis of its weight along which the units lie.
        has_bias: whether a unit's mean can be moved.
    """

    name: str
    axis: int
    rows: int
    has_bias: bool


def statistics_layers(network: Network) -> tuple[str, ...]:
    """The layers that evaluate with running statistics, in the module's order."""
    return tuple(
        name
        for name, layer in network.modules().items()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None
    )


def writer(network: Network, name: str) -> Writer | None:
    """The layer's account as a writer of units, or ``None`` if it is none or its weight serves elsewhere too."""
    layer, weight = network.modules()[name], f"{name}.weight"
    tied = weight in network.tied or weight in network.tied.values()
    if weight not in network.weights or tied:  # A parametrised or tied weight cannot be scaled for this layer alone.
        return None
    has_bias = f"{name}.bias" in network.weights
    if isinstance(layer, nn.Linear):
        return Writer(name, -1, 0, has_bias)
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return Writer(name, 1, 1, has_bias) if layer.groups == 1 else None
    if isinstance(layer, nn.modules.conv._ConvNd):
        return Writer(name, 1, 0, has_bias)
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):  # GPT-2's linear layer keeps its weight transposed.
        return Writer(name, -1, 1, has_bias)
    return None


def called(network: Network, weights: Weights, inputs: Inputs, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the layers that the network calls, in the order of their first call."""
    order: dict[str, None] = {}

    def hook(name: str) -> Callable[..., None]:
        def before(layer: nn.Module, arguments: object) -> None:
            order.setdefault(name)

        return before

    with torch.no_grad():
        network.hooked(before={name: hook(name) for name in names})(weights, *next(batches(inputs, 1, weights)))
    return tuple(order)


def hidden_writers(
    network: Network, weights: Weights, inputs: Inputs, names: Sequence[str] | None = None
) -> tuple[Writer, ...]:
    """The layers whose preactivations are hidden, in the order of their calls.

    Left out by default: what the network returns, what a layer with running statistics reads at once (those statistics
    already standardise it), tied weights, and layers that are never called (their weights are read by a fused
    operation).

    Args:
        network: any module.
        weights: of that network.
        inputs: one example of them goes through the network.
        names: the layers wanted instead.

    Raises:
        SettingError: a named layer writes no units or is not called.
    """
    if names is not None:
        order = called(network, weights, inputs, _known(network, names))
        found = {name: writer(network, name) for name in order}
        if wrong := [name for name in names if found.get(name) is None]:
            raise SettingError(
                f"layers to repair must be linear or convolutional, called, and not tied; not so: {listed(wrong)}"
            )
        return tuple(entry for entry in found.values() if entry is not None)
    kept, taken, out = _outputs(network, weights, inputs)
    ends = {tensor.untyped_storage().data_ptr() for tensor in out if isinstance(tensor, Tensor)}
    hidden = []
    for name, outputs in kept.items():
        places = {tensor.untyped_storage().data_ptr() for tensor in outputs}
        entry = writer(network, name)
        if entry is not None and not places & ends and not any(value is t for value in outputs for t in taken):
            hidden.append(entry)
    return tuple(hidden)


def batches(inputs: Inputs, batch_size: int, weights: Weights) -> Iterator[tuple[Tensor, ...]]:
    """The inputs in even shares of at most ``batch_size``, floating ones in the weights' precision, on their device.

    Raises:
        DataError: there are no inputs.
        SettingError: a batch size below 1.
    """
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if batch_size < 1:
        raise SettingError(f"batch_size must be at least 1, got {batch_size}")
    if not parts or len(parts[0]) == 0:
        raise DataError("statistics need at least one example, got none")
    like = next((tensor for tensor in weights.values() if tensor.is_floating_point()), torch.empty(0))
    # Shares differ by one at most: a last batch of a single example would have no variance of its own.
    count = -(-len(parts[0]) // batch_size)
    for shares in zip(*(part.tensor_split(count) for part in parts), strict=True):
        yield tuple(part.to(like) if part.is_floating_point() else part.to(like.device) for part in shares)


def _known(network: Network, names: Sequence[str]) -> Sequence[str]:
    if unknown := [name for name in names if name not in network.modules()]:
        raise SettingError(f"layers must be named as in the module; unknown: {listed(unknown)}")
    return names


@torch.no_grad()
def _outputs(
    network: Network, weights: Weights, inputs: Inputs
) -> tuple[dict[str, list[Tensor]], list[Tensor], list[Any]]:
    """For one example: what each writer wrote, what layers with running statistics read, what the network returned."""
    kept: dict[str, list[Tensor]] = {}
    taken: list[Tensor] = []

    def keep(name: str) -> Watcher:
        def after(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            kept.setdefault(name, []).append(output)

        return after

    def take(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        taken.append(arguments[0])

    writers = [name for name in network.modules() if name and writer(network, name) is not None]
    watched = network.hooked(
        before=dict.fromkeys(statistics_layers(network), take), after={name: keep(name) for name in writers}
    )
    output = watched(weights, *next(batches(inputs, 1, weights)))
    return kept, taken, tree_leaves(output)
