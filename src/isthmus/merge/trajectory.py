"""Running averages along one training: solutions are checkpoints in the order of time, also read one by one."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.weights import Weights
from isthmus.merge.average import Weighted
from isthmus.merge.merger import check_solutions, warn_of_batch_statistics, whole_numbers, working_precision


@dataclasses.dataclass(frozen=True)
class EMA:
    """The exponential moving average: mₜ = decay·mₜ₋₁ + (1 − decay)·wₜ.

    Attributes:
        decay: between 0 and 1; the average reaches back about 1/(1 − decay) checkpoints.
        debias: divide out the weight that the start has only for being first (Adam's correction); without it m₀ = w₀.

    Reference: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992), in its exponential
        form; the correction is that of Kingma and Ba (1412.6980), section 3.

    Cost: one copy of the weights in working precision, however long the trajectory.
    """

    decay: float = 0.99
    debias: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingError(f"decay must lie in [0, 1), got {self.decay}")

    def __call__(self, solutions: Iterable[Weights]) -> dict[str, Tensor]:
        """Average."""
        mean: dict[str, Tensor] = {}
        first: Weights | None = None
        latest: Weights = {}
        for step, latest in enumerate(solutions, start=1):
            first = latest if first is None else first
            check_solutions([first, latest])
            # The weight of the newest checkpoint makes the correction exact at every step.
            share = (1 - self.decay) / (1 - self.decay**step) if self.debias else 1 - self.decay
            for name, tensor in latest.items():
                if not tensor.is_floating_point():
                    whole_numbers(name, [first[name], tensor])
                    continue
                wide = tensor.detach().to(working_precision(tensor))
                if step == 1:
                    mean[name] = wide.clone()
                else:
                    mean[name].lerp_(wide.to(mean[name].device), share)
        if first is None:
            raise WeightsError("a running average needs at least one checkpoint, got none")
        warn_of_batch_statistics([first, latest])
        return {
            name: mean[name].to(tensor.dtype) if name in mean else tensor.clone() for name, tensor in latest.items()
        }


@dataclasses.dataclass(frozen=True)
class LAWA:
    """The mean of the latest checkpoints.

    Attributes:
        latest: how many; fewer are taken where the trajectory is shorter.

    Reference: Kaddour, "Stop wasting my time! Saving days of ImageNet and BERT training with latest weight averaging"
        (2209.14981).
    """

    latest: int = 6

    def __post_init__(self) -> None:
        if self.latest < 1:
            raise SettingError(f"latest must be at least 1, got {self.latest}")

    def __call__(self, solutions: Iterable[Weights]) -> dict[str, Tensor]:
        """Average."""
        return Weighted()(list(collections.deque(solutions, maxlen=self.latest)))


@dataclasses.dataclass(frozen=True)
class SWA:
    """The mean of the checkpoints from some point of the training on.

    Attributes:
        start: share of the trajectory that is left out first, in [0, 1).
        every: take only every so many-th checkpoint after that (the cycle length).

    Reference: Izmailov et al., "Averaging weights leads to wider optima and better generalization" (1803.05407),
        Algorithm 1; BatchNorm statistics must be estimated anew afterwards, as there.
    """

    start: float = 0.75
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1 or self.every < 1:
            raise SettingError(f"start must lie in [0, 1) and every be at least 1, got {self.start} and {self.every}")

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Average."""
        return Weighted()(list(solutions)[int(self.start * len(solutions)) :: self.every])
