"""How high barriers are between all pairs of some networks, and which pairs count as connected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks, over_pairs
from isthmus.core.weights import Weights

Height = Callable[[Weights, Weights], float]
"""How high the barrier between two solutions is, in the caller's convention."""
EPSILON = 0.02
"""A barrier up to this counts as none: 2 % error, as in Frankle et al., arXiv 1912.05671."""


@dataclasses.dataclass(frozen=True, eq=False)
class Heights(Record):
    """Barriers between all pairs of some networks, found in one way.

    Attributes:
        matrix: symmetric; NaN where nothing was measured, such as on the diagonal.
        interval: of the mean over pairs, over networks.
        connected: the share of pairs that are no higher than the threshold.
    """

    matrix: Float[Tensor, "networks networks"]
    interval: Interval
    connected: float


def heights_of(matrix: Float[Tensor, "networks networks"], threshold: float) -> Heights:
    """The summary of a matrix; networks that were never measured are left out of the interval."""
    measured = ~matrix.isnan().all(1)
    kept = matrix[measured][:, measured]
    rows, columns = torch.triu_indices(len(kept), len(kept), offset=1)
    values = kept[rows, columns]
    interval = over_pairs(kept) if len(kept) > 1 else over_networks(values)
    return Heights(matrix, interval, float((values <= threshold).double().mean()))
