"""Does a measure rise or fall along an ordered factor? Tests that assume no form of the rise."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from isthmus.core.errors import SettingError
from isthmus.core.randomness import child_seed
from isthmus.core.record import Record
from isthmus.core.statistics import ranks as ranked

# All orders are tried up to this many; beyond it, as many are drawn, which resolves p to about 1e-4.
_ORDERS = 20_000
# Of more values than this the normal law is as good as drawn orders. Of six it is not: it calls 7 to 11 % of studies
# without a trend a trend at a level of 5 %.
_FEW = 60


@dataclasses.dataclass(frozen=True)
class Trend(Record):
    """A rise or fall along an ordered factor.

    Attributes:
        statistic: between −1 (always falls) and 1 (always rises): the mean rank correlation within replicates, or
            (concordant − discordant) over all pairs of values from different levels for Jonckheere–Terpstra.
        p: two-sided; the chance of a statistic at least this far from 0 if the levels' order meant nothing.
        method: the test by name.
        units: replicates, or values for Jonckheere–Terpstra.
    """

    statistic: float
    p: float
    method: str
    units: int


def jonckheere(samples: Sequence[Sequence[float]]) -> Trend:
    """Jonckheere–Terpstra's test for independent samples at ordered levels, two-sided.

    Args:
        samples: the values at each level, in the order of the levels.

    Raises:
        SettingError: fewer than two levels, or an empty one.

    Reference: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, section 6.2; up to 60 values with the
    exact or sampled permutation null, beyond by the normal approximation with the variance corrected for ties.
    """
    groups = [np.asarray(sample, dtype=float) for sample in samples]
    if len(groups) < 2 or any(len(group) == 0 for group in groups):
        raise SettingError(f"a trend needs values at two levels or more, got {[len(group) for group in groups]}")
    sizes, values = [len(group) for group in groups], np.concatenate(groups)
    labels = np.repeat(np.arange(len(groups)), sizes)
    comparisons = sum(first * second for first, second in itertools.combinations(sizes, 2))
    score = float(_concordance(labels[None], values)[0])
    if len(values) > _FEW:
        # Σ sign = 2J − comparisons, so its standard deviation is twice that of J.
        deviation = 2 * math.sqrt(_jonckheere_variance(sizes, values))
        p = math.erfc(abs(score) / deviation / math.sqrt(2)) if deviation > 0 else 1.0
        how = "normal approximation with ties"
    else:
        null, kind = _assigned(labels, sizes)
        p = _share(_concordance(null, values), score, kind)
        how = f"{kind} permutation null"
    return Trend(score / comparisons, p, f"Jonckheere–Terpstra, {how}", len(values))


def matched_trend(values: np.ndarray | torch.Tensor | Sequence[Sequence[float]]) -> Trend:
    """The mean rank correlation of value and level within replicates, tested by permuting levels within replicates.

    Replicates share their seeds over the levels, so they are blocks; comparing only within them takes out how the
    replicates differ. The statistic orders data as Page's L does (they are linear in each other where nothing is tied).

    Args:
        values: one row a replicate, one column a level, in the order of the levels.

    Raises:
        SettingError: not a table, or fewer than two levels.

    Reference: Page, "Ordered hypotheses for multiple treatments", JASA 58 (1963); exact or sampled permutation null.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[1] < 2 or table.shape[0] < 1:
        raise SettingError(f"matched values must be replicates × at least two levels, got shape {table.shape}")
    ranks = np.array([ranked(row) for row in table])
    ranks -= ranks.mean(1, keepdims=True)
    order = np.arange(table.shape[1]) - (table.shape[1] - 1) / 2
    lengths = np.linalg.norm(ranks, axis=1) * np.linalg.norm(order)
    # A replicate whose values are all equal says nothing either way.
    weight = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    statistic = float((ranks @ order * weight).mean())
    null, how = _permuted(ranks * weight[:, None], order)
    p = _share(null, statistic, how)
    return Trend(statistic, p, f"rank correlation within replicates, {how} permutation null (Page)", len(table))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: controls the chance of any false finding among all that are tested together.

    NaN stays NaN and does not count.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    counted = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(counted):
        highest = max(highest, min(1.0, p * (len(counted) - rank)))
        corrected[index] = highest
    return corrected


def _share(null: np.ndarray, statistic: float, how: str) -> float:
    """The two-sided p-value; where the null was sampled, what was observed counts as one draw more."""
    extreme = int((np.abs(null) >= abs(statistic) - 1e-12).sum())
    return extreme / len(null) if how == "exact" else (extreme + 1) / (len(null) + 1)


def _concordance(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Concordant minus discordant pairs for each row of labels."""
    first, second = np.triu_indices(len(values), 1)
    rises = np.sign(values[second] - values[first])
    parts = (labels[start : start + 1000] for start in range(0, len(labels), 1000))
    return np.concatenate([np.sign(part[:, second] - part[:, first]) @ rises for part in parts])


def _assigned(labels: np.ndarray, sizes: Sequence[int]) -> tuple[np.ndarray, str]:
    """All ways to deal values out to levels of these sizes, or many drawn ones."""
    ways = math.factorial(len(labels)) // math.prod(math.factorial(size) for size in sizes)
    if ways > _ORDERS:
        draw = np.random.default_rng(child_seed(0, "jonckheere", *sizes))
        return draw.permuted(np.tile(labels, (_ORDERS, 1)), axis=1), "sampled"
    rows = [np.full(len(labels), len(sizes) - 1)]
    free = len(labels)
    for level, size in enumerate(sizes[:-1]):
        chosen = list(itertools.combinations(range(free), size))
        rows = [_with(row, level, len(sizes) - 1, places) for row in rows for places in chosen]
        free -= size
    return np.stack(rows), "exact"


def _with(row: np.ndarray, level: int, unset: int, places: Sequence[int]) -> np.ndarray:
    made = row.copy()
    made[np.flatnonzero(row == unset)[list(places)]] = level
    return made


def _permuted(ranks: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, str]:
    """The statistic under all orders within each replicate, or under many drawn ones."""
    replicates, levels = ranks.shape
    if math.log(math.factorial(levels)) * replicates <= math.log(_ORDERS):
        orders = np.array(list(itertools.permutations(order)))
        totals = np.zeros(1)
        for row in ranks:
            totals = (totals[:, None] + (orders @ row)[None, :]).ravel()
        return totals / replicates, "exact"
    draw = np.random.default_rng(child_seed(0, "trend", replicates, levels))
    totals = np.zeros(_ORDERS)
    for row in ranks:
        totals += draw.permuted(np.tile(order, (_ORDERS, 1)), axis=1) @ row
    return totals / replicates, "sampled"


def _jonckheere_variance(sizes: Sequence[int], values: np.ndarray) -> float:
    ties = np.unique(values, return_counts=True)[1].tolist()
    n = sum(sizes)

    def fall(counts: Sequence[int], depth: int) -> float:
        return float(sum(math.prod(range(count - depth + 1, count + 1)) for count in counts if count >= depth))

    def spread(counts: Sequence[int]) -> float:
        return float(sum(count * (count - 1) * (2 * count + 5) for count in counts))

    variance = (spread([n]) - spread(sizes) - spread(ties)) / 72
    if n > 2:
        variance += fall(sizes, 3) * fall(ties, 3) / (36 * n * (n - 1) * (n - 2))
    return variance + fall(sizes, 2) * fall(ties, 2) / (8 * n * (n - 1))
