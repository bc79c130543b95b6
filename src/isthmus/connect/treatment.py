"""What is done to the weights of an inner point of a path before it is judged: the normalisation policies by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import Tensor

from isthmus.connect.known import Known
from isthmus.connect.layers import Inputs, statistics_layers
from isthmus.connect.normalisation import reestimate
from isthmus.connect.repair import Repair
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights

Policy = Literal["reestimate", "interpolate", "repair", "rescale"]
Statistics = Literal["reestimate", "interpolate"]


@dataclasses.dataclass(frozen=True, eq=False)
class Treatment:
    """A policy made ready for one path.

    Attributes:
        policy: its name.
        layers: what it changes; empty if the network has nothing to treat.
        change: weights and their position on the path → the treated weights.
    """

    policy: str
    layers: tuple[str, ...]
    change: Callable[[Weights, float], dict[str, Tensor]]

    def __call__(self, weights: Weights, t: float) -> dict[str, Tensor]:
        """The treated weights of position ``t``; the given ones are not written to."""
        return self.change(weights, t) if self.layers else dict(weights)


def treatment(
    network: Network,
    ends: tuple[Weights, Weights],
    *,
    policy: Policy,
    inputs: Inputs | None,
    layers: Sequence[str] | None = None,
    batch_size: int = 1000,
    sequential: bool = False,
    known: Known | None = None,
) -> Treatment:
    """Make a policy ready for the path between two ends.

    Raises:
        SettingError: an unknown policy, or one that needs data and has none.
    """
    if policy not in get_args(Policy):
        raise SettingError(f"normalisation must be one of {', '.join(get_args(Policy))}, got {policy}")
    found = statistics_layers(network)
    if policy == "interpolate" or (policy == "reestimate" and not found):
        return Treatment(policy, (), lambda weights, _: dict(weights))
    inputs = _needed(inputs, policy)
    if policy == "reestimate":
        return Treatment(
            policy,
            found,
            lambda weights, _: reestimate(network, weights, inputs, batch_size=batch_size, sequential=sequential),
        )
    made = Repair.between(
        network,
        ends,
        inputs,
        layers=layers,
        rescale_only=policy == "rescale",
        batch_size=batch_size,
        sequential=sequential,
        known=known,
    )
    return Treatment(policy, made.layers, lambda weights, t: made(weights, (1 - t, t)))


def refreshing(objective: Objective, inputs: Inputs | None, *, policy: Statistics) -> Callable[[Weights], Weights]:
    """What weights mixed from any number of solutions need: running statistics from ``inputs``, or nothing.

    Raises:
        SettingError: an unknown policy, or statistics to estimate and no data.
    """
    if policy not in get_args(Statistics):
        raise SettingError(f"normalisation must be reestimate or interpolate, got {policy}")
    if policy == "interpolate" or not statistics_layers(objective.network):
        return lambda weights: weights
    inputs = _needed(inputs, policy)
    return lambda weights: reestimate(objective.network, weights, inputs, batch_size=objective.batch_size)


def _needed(inputs: Inputs | None, policy: str) -> Inputs:
    if inputs is None:
        raise SettingError(
            f"normalisation={policy} must have inputs: pass training inputs, or normalisation=interpolate to mix the "
            "ends' statistics"
        )
    return inputs
