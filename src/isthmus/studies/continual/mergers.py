"""What is done after every task: the library's mergers as functions of the ends so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from isthmus.core.errors import SettingError, listed
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights
from isthmus.merge import DARE, EMA, TIES, Fisher, MagnitudeMax, Mean, OrthogonalProjection, TaskArithmetic

# Ends in their order, the base, the objective of each end's own training data → merged weights.
Merge = Callable[[Sequence[Weights], Weights, Sequence[Objective]], Mapping[str, Tensor]]

MERGERS: Mapping[str, Merge] = {
    "last": lambda ends, _, __: ends[-1],
    "mean": lambda ends, _, __: Mean()(ends),
    "ema": lambda ends, _, __: EMA(decay=0.5)(ends),
    "fisher": lambda ends, _, objectives: Fisher(objectives, examples=256)(ends),
    # The base is the first end: its own task vector is zero and must not take part in an election or a mean.
    # Ilharco et al. tune the factor and find .3 to .5 best; 1 / ends would be the mean.
    "task_arithmetic": lambda ends, base, _: TaskArithmetic(scale=0.4)(ends[1:], base=base),
    "ties": lambda ends, base, _: TIES()(ends[1:], base=base),
    "dare": lambda ends, base, _: DARE(scale=0.4)(ends[1:], base=base),
    "magnitude_max": lambda ends, base, _: MagnitudeMax()(ends[1:], base=base),
    "orthogonal_projection": lambda ends, base, _: OrthogonalProjection()(ends[1:], base=base),
}


def mergers_of(wanted: Mapping[str, Merge] | Sequence[str]) -> dict[str, Merge]:
    """Names, or functions by name, as functions by name.

    Raises:
        SettingError: an unknown name.
    """
    if isinstance(wanted, Mapping):
        return dict(wanted)
    if unknown := [name for name in wanted if name not in MERGERS]:
        raise SettingError(f"mergers must be some of {listed(MERGERS, 20)}, got {unknown[0]}")
    return {name: MERGERS[name] for name in wanted}
