"""Paired comparisons over seeds: an interval, and a sign test that assumes nothing about the differences' form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks

Alternative = Literal["greater", "two-sided"]
SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class Contrast(Record):
    """One paired comparison; every seed gives one difference.

    Attributes:
        name: which comparison.
        capability: of what.
        probe: on which images.
        differences: one for each seed, first minus second.
        interval: of the mean difference, over seeds.
        alternative: ``greater`` where the claim has a direction, fixed beforehand, else ``two-sided``.
        above: how many differences are above zero.
        below: how many are below.
        p: of the exact sign test; ties are left out.
        holds: whether p is at most .05; for ``two-sided``: whether there is a difference.
    """

    name: str
    capability: str
    probe: str
    differences: tuple[float, ...]
    interval: Interval
    alternative: Alternative
    above: int
    below: int
    p: float
    holds: bool


def contrast(
    first: Tensor | Sequence[float],
    second: Tensor | Sequence[float],
    *,
    name: str,
    capability: str,
    probe: str,
    alternative: Alternative,
) -> Contrast:
    """Compare two paired sets of numbers, one of each for every seed.

    Raises:
        SettingError: not equally many.
    """
    one, other = (torch.as_tensor(part, dtype=torch.float64).flatten() for part in (first, second))
    if len(one) != len(other) or len(one) == 0:
        raise SettingError(f"a paired contrast needs equally many numbers, got {len(one)} and {len(other)}")
    # Accuracies are multiples of 1/n; what differs by rounding alone is a tie.
    difference = torch.where((one - other).abs() < 1e-9, 0.0, one - other)
    above, below = int((difference > 0).sum()), int((difference < 0).sum())
    p = sign_test(above, below, alternative=alternative)
    return Contrast(
        name, capability, probe, tuple(difference.tolist()), over_networks(difference), alternative, above, below, p,
        p <= SIGNIFICANT,
    )  # fmt: skip


def sign_test(above: int, below: int, *, alternative: Alternative) -> float:
    """The exact p-value of so many differences above and below zero, if either were equally likely.

    Reference: Dixon and Mood, "The statistical sign test", JASA 41 (1946); ties are left out.
    """
    count = above + below
    tail = sum(math.comb(count, k) for k in range(above, count + 1)) / 2**count
    if alternative == "greater":
        return tail
    lower = sum(math.comb(count, k) for k in range(above + 1)) / 2**count
    return min(1.0, 2 * min(tail, lower))
