"""Batch statistics that fit the weights: what a network between two solutions needs before it may be judged.

Running means and variances belong to one point in weight space. Mixed ones describe no network at all, so BatchNorm
networks look broken half-way although their weights are fine (Garipov et al., arXiv 1802.10026, section 5; Jordan et
al., arXiv 2211.08403). LayerNorm, GroupNorm and RMSNorm carry no such state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from isthmus.core.errors import DataError, SettingError
from isthmus.core.network import Network
from isthmus.core.weights import Weights

Inputs = Tensor | tuple[Tensor, ...]


def statistics_layers(network: Network) -> tuple[str, ...]:
    """The layers that evaluate with running statistics, in the module's order."""
    return tuple(
        name
        for name, layer in network.modules().items()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None
    )


@torch.no_grad()
def reestimate(
    network: Network, weights: Weights, inputs: Inputs, *, batch_size: int = 1000, sequential: bool = False
) -> dict[str, Tensor]:
    """Weights whose running statistics are the mean and the population variance over ``inputs``.

    Everything else evaluates as it does in use (no dropout). Moments are pooled over all examples, never averaged over
    batches, so an uneven last batch has just its share. Nothing is written to.

    In one pass each layer sees its batch normalised by that batch's own statistics, as in training; with all inputs in
    one batch this is exact. ``sequential`` is exact for any batch size: layer after layer, each over inputs that the
    finished statistics before it have normalised.

    Args:
        network: any module; without statistics layers the weights come back as they are.
        weights: of that network.
        inputs: training inputs, examples first; a tuple for modules of several inputs.
        batch_size: examples at once.
        sequential: one pass over the data for each layer instead of one for all.

    Raises:
        DataError: there are no inputs.

    Cost: one network call for each batch; ``sequential``: that times the number of layers.
    """
    layers = statistics_layers(network)
    if not layers:
        return dict(weights)
    result = {name: tensor.clone() if _is_statistic(name, layers) else tensor for name, tensor in weights.items()}
    rounds = [[layer] for layer in _in_order(network, result, inputs, layers)] if sequential else [list(layers)]
    for chosen in rounds:
        moments: dict[str, Moments] = {name: Moments() for name in chosen}
        following = _following_batches(network, moments)
        for batch in batches(inputs, batch_size, result):
            # The hooks write each batch's statistics into these copies just before the layer reads them.
            scratch = {n: t.clone() if _is_statistic(n, layers) else t for n, t in result.items()}
            following(scratch, *batch)
        for name, pooled in moments.items():
            if pooled.count:  # A layer that is never called keeps what it had.
                result[f"{name}.running_mean"].copy_(pooled.mean)
                result[f"{name}.running_var"].copy_(pooled.variance)
    return result


class Moments:
    """Mean and population variance of each unit, pooled over batches in float64 (Chan, Golub and LeVeque's update)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.variance = torch.zeros(())

    def add(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Take in the moments of ``count`` further values of each unit."""
        mean, variance = mean.double(), variance.double()
        if self.count == 0:
            self.count, self.mean, self.variance = count, mean, variance
            return
        total = self.count + count
        share, gap = count / total, mean - self.mean
        self.variance = (1 - share) * self.variance + share * variance + share * (1 - share) * gap.square()
        self.mean = self.mean + share * gap
        self.count = total


def batches(inputs: Inputs, batch_size: int, weights: Weights) -> Iterator[tuple[Tensor, ...]]:
    """The inputs ``batch_size`` at a time, floating ones in the precision and on the device of the weights."""
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if batch_size < 1:
        raise SettingError(f"batch_size must be at least 1, got {batch_size}")
    if not parts or len(parts[0]) == 0:
        raise DataError("statistics need at least one example, got none")
    like = next((tensor for tensor in weights.values() if tensor.is_floating_point()), torch.empty(0))
    for first in range(0, len(parts[0]), batch_size):
        cut = (part[first : first + batch_size] for part in parts)
        yield tuple(part.to(like) if part.is_floating_point() else part.to(like.device) for part in cut)


def unit_moments(values: Tensor, axis: int) -> tuple[Tensor, Tensor, int]:
    """Mean and population variance of each unit along ``axis``, and over how many values."""
    rest = [dim for dim in range(values.dim()) if dim != axis % values.dim()]
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, rest, correction=0)
    return mean, variance, values.numel() // values.shape[axis]


def _following_batches(network: Network, moments: Mapping[str, Moments]) -> Network:
    """The network with the named layers evaluating by each batch's own statistics; the moments are pooled."""

    def hook(pooled: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def before(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
                mean, variance, count = _instance_moments(arguments[0])
            else:
                mean, variance, count = unit_moments(arguments[0], 1)
            pooled.add(mean, variance, count)
            layer.running_mean.copy_(mean)  # type: ignore[union-attr, operator]
            layer.running_var.copy_(variance)  # type: ignore[union-attr, operator]

        return before

    return network.hooked(before={name: hook(pooled) for name, pooled in moments.items()})


def _instance_moments(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """What tracking InstanceNorm keeps: the averages over examples of each example's own mean and variance."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32)).flatten(2)
    return wide.mean(2).mean(0), wide.var(2).mean(0), len(values)


def _in_order(network: Network, weights: Weights, inputs: Inputs, layers: tuple[str, ...]) -> list[str]:
    """The layers in the order in which the network first calls them; those that it does not call are left out."""
    called: dict[str, None] = {}

    def hook(name: str) -> Callable[..., None]:
        def before(layer: nn.Module, arguments: object) -> None:
            called.setdefault(name)

        return before

    network.hooked(before={name: hook(name) for name in layers})(weights, *next(batches(inputs, 1, weights)))
    return list(called)


def _is_statistic(name: str, layers: tuple[str, ...]) -> bool:
    layer, _, entry = name.rpartition(".")
    return entry in ("running_mean", "running_var") and layer in layers
