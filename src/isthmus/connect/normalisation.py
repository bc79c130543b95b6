"""Statistics that fit the weights: what a network between two solutions needs before it may be judged.

Running means and variances belong to one point in weight space. Mixed ones describe no network at all, so BatchNorm
networks look broken half-way although their weights are fine (Garipov et al., arXiv 1802.10026; Jordan et al., arXiv
2211.08403). LayerNorm, GroupNorm and RMSNorm carry no such state.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from isthmus.connect.layers import Inputs, Watcher, Writer, batches, called, statistics_layers
from isthmus.core.network import Network
from isthmus.core.weights import Weights


class Moments:
    """Mean and population variance of each unit, pooled over batches in float64 (Chan, Golub and LeVeque's update)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.variance = torch.zeros(())

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each unit."""
        return self.variance.sqrt()

    def add(self, mean: Tensor, variance: Tensor, count: int, *, between: bool = True) -> None:
        """Take in the moments of ``count`` further values of each unit.

        Without ``between`` variances are averaged and the distance of the means does not count.
        """
        mean, variance = mean.double(), variance.double()
        if self.count == 0:
            self.count, self.mean, self.variance = count, mean, variance
            return
        total = self.count + count
        share, gap = count / total, mean - self.mean
        self.variance = (1 - share) * self.variance + share * variance
        if between:
            self.variance = self.variance + share * (1 - share) * gap.square()
        self.mean = self.mean + share * gap
        self.count = total


# The mean (None: leave it) and the deviation that a writer's units shall have.
Goal = tuple[Tensor | None, Tensor]


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
    return settle(network, weights, inputs, {}, batch_size=batch_size, sequential=sequential)


@torch.no_grad()
def settle(
    network: Network,
    weights: Weights,
    inputs: Inputs,
    goals: Mapping[Writer, Goal],
    *,
    batch_size: int = 1000,
    sequential: bool = False,
) -> dict[str, Tensor]:
    """Estimate running statistics anew and bring the writers' units to their goals, both folded into the weights.

    See :func:`reestimate` for the one pass and the sequential way.
    """
    writers = {writer.name: (writer, goal) for writer, goal in goals.items()}
    layers = (*statistics_layers(network), *writers)
    if not layers:
        return dict(weights)
    result = {name: tensor.clone() if _is_statistic(name, layers) else tensor for name, tensor in weights.items()}
    rounds = [[name] for name in called(network, result, inputs, layers)] if sequential else [list(layers)]
    following = _following(network, tuple(goals))
    for chosen in rounds:
        moments = {name: Moments() for name in chosen}
        for batch in batches(inputs, batch_size, result):
            # The hooks write each batch's statistics into these copies just before the layer reads them.
            scratch = {n: t.clone() if _is_statistic(n, layers) else t for n, t in result.items()}
            following(scratch, batch, moments, goals)
        for name, pooled in moments.items():
            if pooled.count == 0:  # A layer that is never called keeps what it had.
                continue
            if name in writers:
                result.update(_folded(result, *writers[name], pooled))
            else:
                result[f"{name}.running_mean"].copy_(pooled.mean)
                result[f"{name}.running_var"].copy_(pooled.variance)
    return result


@torch.no_grad()
def moments_of(
    network: Network, weights: Weights, inputs: Inputs, writers: Sequence[Writer], *, batch_size: int = 1000
) -> dict[str, Moments]:
    """Mean and variance of every unit's preactivation over ``inputs``, with the network as it is."""
    moments = {writer.name: Moments() for writer in writers}

    def hook(pooled: Moments, axis: int) -> Watcher:
        def after(layer: nn.Module, arguments: object, output: Tensor) -> None:
            pooled.add(*_unit_moments(output, axis))

        return after

    watched = network.hooked(after={writer.name: hook(moments[writer.name], writer.axis) for writer in writers})
    for batch in batches(inputs, batch_size, weights):
        watched(weights, *batch)
    return moments


class _Following:
    """A network whose layers are corrected by each batch's own statistics, while the moments are pooled.

    Watching a network takes a copy of its modules, which can take longer than running it; so it is watched once, and
    every call says what is pooled and what the goals are. Several threads may call.
    """

    def __init__(self, network: Network, writers: Sequence[Writer]) -> None:
        self._now = threading.local()
        self._network = network.hooked(
            before={name: self._statistics(name) for name in statistics_layers(network)},
            after={writer.name: self._repair(writer) for writer in writers},
        )

    def __call__(
        self,
        weights: Weights,
        batch: tuple[Tensor, ...],
        moments: Mapping[str, Moments],
        goals: Mapping[Writer, Goal],
    ) -> None:
        """Run one batch; layers that are not in ``moments`` evaluate as they are."""
        self._now.moments, self._now.goals = moments, goals
        try:
            self._network(weights, *batch)
        finally:
            del self._now.moments, self._now.goals

    def _statistics(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        now = self._now

        def before(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            pooled = now.moments.get(name)
            if pooled is None:
                return
            alone = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
            mean, variance, count = (_instance_moments if alone else lambda v: _unit_moments(v, 1))(arguments[0])
            pooled.add(mean, variance, count, between=not alone)
            layer.running_mean.copy_(mean)  # type: ignore[union-attr, operator]
            layer.running_var.copy_(variance)  # type: ignore[union-attr, operator]

        return before

    def _repair(self, writer: Writer) -> Watcher:
        now = self._now

        def after(layer: nn.Module, arguments: object, output: Tensor) -> Tensor:
            pooled = now.moments.get(writer.name)
            if pooled is None:
                return output
            batch = Moments()
            batch.add(*_unit_moments(output, writer.axis))
            pooled.add(batch.mean, batch.variance, batch.count)
            correction = _correction(writer, now.goals[writer], batch)
            factor, shift = (_along(part, output, writer.axis) for part in correction)
            return output * factor + shift

        return after


# By network, so that they go when it does; a watched network does not hold the one it was made of.
_WATCHED: weakref.WeakKeyDictionary[Network, dict[tuple[Writer, ...], _Following]] = weakref.WeakKeyDictionary()


def _following(network: Network, writers: tuple[Writer, ...]) -> _Following:
    known = _WATCHED.setdefault(network, {})
    if writers not in known:
        known[writers] = _Following(network, writers)
    return known[writers]


def _correction(writer: Writer, goal: Goal, moments: Moments) -> tuple[Tensor, Tensor]:
    """Factor and shift that bring units of these moments to their goal."""
    mean, deviation = goal
    present = moments.deviation
    # A unit that does not vary has no scale to correct: dividing by its rounding noise would invent one.
    alive = present > 1e-6 * deviation.to(present.device).clamp_min(torch.finfo(torch.float64).tiny)
    factor = torch.where(alive, deviation.to(present.device) / present.clamp_min(1e-300), 1.0)
    if mean is None or not writer.has_bias:
        return factor, torch.zeros_like(factor)
    return factor, mean.to(present.device) - factor * moments.mean


def _folded(weights: Weights, writer: Writer, goal: Goal, moments: Moments) -> dict[str, Tensor]:
    """The writer's weight and bias with its correction multiplied in."""
    factor, shift = _correction(writer, goal, moments)
    weight = weights[f"{writer.name}.weight"]
    folded = {
        f"{writer.name}.weight": (weight.double() * _along(factor, weight.double(), writer.rows)).to(weight.dtype)
    }
    if writer.has_bias:
        bias = weights[f"{writer.name}.bias"]
        folded[f"{writer.name}.bias"] = (bias.double() * factor + shift).to(bias.dtype)
    return folded


def _along(units: Tensor, like: Tensor, axis: int) -> Tensor:
    """A vector over units, shaped to multiply a tensor whose axis they are."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return units.to(like).view(shape)


def _unit_moments(values: Tensor, axis: int) -> tuple[Tensor, Tensor, int]:
    """Mean and population variance of each unit along ``axis``, and over how many values."""
    rest = [dim for dim in range(values.dim()) if dim != axis % values.dim()]
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    count = values.numel() // values.shape[axis]
    if wide.device.type == "cpu" and count > 1 and wide.is_floating_point():
        return *_normalised_moments(wide, axis), count
    variance, mean = torch.var_mean(wide, rest, correction=0)
    return mean, variance, count


def _normalised_moments(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and population variance as BatchNorm's own kernel finds them: on a CPU 3 to 15 times as fast as var_mean.

    Cost: memory for one more tensor of the values' size.
    """
    units = values.shape[axis]
    # Its axis of units is the second; of a linear layer's they are the last, so all others become one.
    shaped = values.reshape(-1, units) if axis % values.dim() == values.dim() - 1 else values.movedim(axis, 1)
    mean, variance = values.new_zeros(units), values.new_zeros(units)
    torch.batch_norm(shaped, None, None, mean, variance, True, 1.0, 1.0, False)  # a momentum of 1 keeps nothing older
    count = values.numel() // units
    return mean, variance * ((count - 1) / count)


def _instance_moments(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """What tracking InstanceNorm keeps: the averages over examples of each example's own mean and variance."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32)).flatten(2)
    return wide.mean(2).mean(0), wide.var(2).mean(0), len(values)


def _is_statistic(name: str, layers: Sequence[str]) -> bool:
    layer, _, entry = name.rpartition(".")
    return entry in ("running_mean", "running_var") and layer in layers
