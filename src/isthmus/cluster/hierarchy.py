"""Are solutions arranged as a hierarchy, or only as a cloud?"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.cluster.overlap import Overlaps
from isthmus.cluster.tree import Batch, cophenetic_correlations
from isthmus.cluster.ultrametric import gaps, triangles
from isthmus.core.errors import DataError, SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, student_quantile

_LEAST = 4


@dataclasses.dataclass(frozen=True)
class NullTest(Record):
    """One measure against one kind of surrogate.

    Attributes:
        measure: ``gap`` (small on a tree) or ``cophenetic`` (large on a tree).
        null: ``cloud``: Gaussian points with the mean and covariance of the solutions' shared parts; ``shuffled``: the
            same distances, dealt out anew.
        observed: the solutions' value.
        expected: the surrogates' mean.
        low: 2.5 % quantile of the surrogates.
        high: 97.5 % quantile of the surrogates.
        p: share of surrogates at least as tree-like, counting the solutions themselves as one.
    """

    measure: str
    null: str
    observed: float
    expected: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True)
class Verdict(Record):
    """Whether solutions form a hierarchy, with the evidence.

    Attributes:
        hierarchical: all four tests are at or below ``level``.
        sentence: the verdict in words.
        gap: K_KH with an interval over networks; 0 on a tree.
        cophenetic: cophenetic correlation of average linkage with an interval over networks; 1 on a tree.
        tests: each measure against each null.
        p: the largest p-value of the four: the verdict's own.
        level: the rate of false alarms that is allowed.
        networks: how many were judged.
        left_out: names of solutions that were not judged (diverged, or copies of another).
    """

    hierarchical: bool
    sentence: str
    gap: Interval
    cophenetic: Interval
    tests: tuple[NullTest, ...]
    p: float
    level: float
    networks: int
    left_out: tuple[str, ...]


def hierarchy(overlaps: Overlaps, *, generator: torch.Generator, level: float = 0.05, draws: int = 199) -> Verdict:
    """Judge whether solutions are arranged as a hierarchy.

    Two measures (K_KH and the cophenetic correlation) are each held against two nulls, and all four must say so.
    Families of one level count as the simplest hierarchy. Exact copies of a solution are judged once: a copy is a tree
    by itself.

    The test is not exact: the cloud's law is estimated from the same solutions, and the distances of a cloud cannot be
    exchanged for each other, which is why neither null is trusted alone. Measured at a level of .05 with 12 networks
    and 600 surrogates of each kind, it calls 0 in 600 iid Gaussian clouds of any dimension and common part a hierarchy,
    1.5 % of arcs, 3.3 % of clouds that share differing parts of one direction and, the worst kind found, 6.8 % of
    clouds whose variances fall as 1/k², where few dimensions are left to estimate.

    Do not feed it minimax barriers or single-linkage distances: those are ultrametric whatever the landscape.

    Args:
        overlaps: of at least four different solutions.
        generator: draws the surrogates.
        level: rate of false alarms.
        draws: surrogates of each null; the smallest p-value is 1/(draws + 1).

    Raises:
        SettingError: fewer than four different solutions, or a level that so few draws cannot reach.
        DataError: all distances are equal.

    Cost: draws × networks³ operations, no evaluation of a network.

    Example:
        >>> from isthmus.cluster.overlap import overlaps
        >>> from isthmus.cluster.surrogates import planted_tree
        >>> draw = torch.Generator().manual_seed(0)
        >>> hierarchy(overlaps(planted_tree(generator=draw).solutions), generator=draw).hierarchical
        True
    """
    if not 1 / (draws + 1) <= level < 1:
        raise SettingError(f"level must lie between 1/(draws + 1) = {1 / (draws + 1):.3g} and 1, got {level}")
    copies = [second for _, second in overlaps.identical]
    overlaps = overlaps.without(sorted(set(copies)), reason="a copy of another solution") if copies else overlaps
    left_out = tuple(each.name for each in overlaps.left_out)
    networks = len(overlaps.names)
    if networks < _LEAST:
        without = f" ({len(left_out)} left out: diverged or copies)" if left_out else ""
        raise SettingError(f"a hierarchy needs at least {_LEAST} different solutions, got {networks}{without}")
    given = overlaps.distances.numpy()[None]
    triples = triangles(networks, generator=generator)
    observed = _measures(given, triples)
    if not np.isfinite(observed).all():
        raise DataError("a hierarchy needs distances that differ, got all equal")
    nulls = {
        "cloud": clouds(overlaps.q, draws, generator=generator),
        "shuffled": shuffled(overlaps.distances, draws, generator=generator),
    }
    tests = tuple(
        _test(measure, null, float(observed[row, 0]), values[row])
        for null, values in ((null, _measures(batch, triples)) for null, batch in nulls.items())
        for row, measure in enumerate(("gap", "cophenetic"))
    )
    p = max(test.p for test in tests)
    gap, cophenetic = _intervals(given[0])
    found = p <= level
    return Verdict(
        found, _sentence(found, gap, cophenetic, tests, p), gap, cophenetic, tests, p, level, networks, left_out
    )


def clouds(q: Float[Tensor, "networks networks"], draws: int, *, generator: torch.Generator) -> Batch:
    """Distances of structureless Gaussian points whose overlaps have the solutions' moments.

    Every solution is taken as a shared part, which makes all overlaps, and a part of its own, which adds length but no
    overlap (independent numbers in very many dimensions). Surrogates draw the shared parts from one Gaussian with the
    mean and covariance of the solutions' shared parts. So a tree of few families is held against a cloud in few
    dimensions, and networks that vary along one direction against a cloud that does so too. A null that only matched
    the variance of the overlaps called four in ten clouds with a falling spectrum hierarchical; one with the covariance
    of whole solutions did so with nearly all clouds whose points share differing parts of one direction.
    """
    shared = shared_parts(torch.as_tensor(q, dtype=torch.float64))
    networks = len(shared)
    centre = shared.mean(0)
    apart = (shared - centre) / math.sqrt(networks - 1)
    # The mean of n points is longer than their law's mean by the variance over n.
    length = float(centre.square().sum())
    excess = float(apart.square().sum()) / networks
    centre = centre * math.sqrt(max(0.0, 1 - excess / length) if length > 0 else 0.0)
    normal = torch.randn(draws, networks, networks, generator=generator, dtype=torch.float64)
    points = centre + normal @ apart
    points = points / points.norm(dim=2, keepdim=True).clamp_min(1)
    distances = (2 - 2 * points @ points.transpose(1, 2)).clamp_min(0).sqrt()
    distances.diagonal(dim1=1, dim2=2).zero_()
    return distances.numpy()


def shared_parts(q: Float[Tensor, "networks networks"], *, sweeps: int = 60) -> Float[Tensor, "networks dimensions"]:
    """Points whose inner products are the overlaps off the diagonal, as nearly as a positive matrix can be.

    Reference: principal-axis factor analysis (Harman, "Modern factor analysis", chapter 8), with all positive factors.
    """
    inside = (q - 2 * torch.eye(len(q), dtype=q.dtype)).max(1).values.clamp_min(0)
    matrix = q.clone()
    points = torch.zeros_like(q)
    for _ in range(sweeps):
        matrix.diagonal().copy_(inside)
        values, vectors = torch.linalg.eigh(matrix)
        points = vectors * values.clamp_min(0).sqrt()
        before, inside = inside, points.square().sum(1).clamp_max(1)
        if float((inside - before).abs().max()) < 1e-4:
            break
    return points


def shuffled(distances: Float[Tensor, "networks networks"], draws: int, *, generator: torch.Generator) -> Batch:
    """The same distances dealt out to the pairs at random."""
    networks = len(distances)
    rows, columns = torch.triu_indices(networks, networks, offset=1)
    values = distances[rows, columns]
    order = torch.rand(draws, len(values), generator=generator).argsort(1)
    result = torch.zeros(draws, networks, networks, dtype=torch.float64)
    result[:, rows, columns] = values[order]
    return (result + result.transpose(1, 2)).numpy()


def _measures(distances: Batch, triples: np.ndarray) -> Float[np.ndarray, "2 draws"]:
    return np.stack([gaps(distances, triples), cophenetic_correlations(distances)])


def _test(measure: str, null: str, observed: float, values: np.ndarray) -> NullTest:
    values = values[np.isfinite(values)]
    # Equal up to rounding counts as equal: shuffling the distances of a tree can give the same tree.
    extreme = values <= observed + 1e-9 if measure == "gap" else values >= observed - 1e-9
    p = (1 + int(extreme.sum())) / (1 + len(values))
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (math.nan, math.nan)
    mean = float(values.mean()) if len(values) else math.nan
    return NullTest(measure, null, observed, mean, float(low), float(high), p)


def _intervals(distances: Float[np.ndarray, "networks networks"], level: float = 0.95) -> tuple[Interval, Interval]:
    """Both measures with delete-one-network jackknife intervals."""
    n = len(distances)
    whole = _measures(distances[None], triangles(n))[:, 0]
    if n - 1 < _LEAST:
        missing = "none: an interval over networks needs at least 5"
        first, second = (Interval(float(value), math.nan, math.nan, level, n, missing) for value in whole)
        return first, second
    stay = np.array([[index for index in range(n) if index != gone] for gone in range(n)])
    parts = _measures(distances[stay[:, :, None], stay[:, None, :]], triangles(n - 1))
    intervals = []
    for value, left_out, (floor, ceiling) in zip(whole, parts, ((0.0, math.inf), (-1.0, 1.0)), strict=True):
        rest = left_out[np.isfinite(left_out)]
        error = math.sqrt((len(rest) - 1) / max(len(rest), 1) * float(((rest - rest.mean()) ** 2).sum()))
        reach = student_quantile(0.5 + level / 2, n - 1) * error
        low, high = max(float(value) - reach, floor), min(float(value) + reach, ceiling)
        intervals.append(Interval(float(value), low, high, level, n, "jackknife over networks, Student's t"))
    return intervals[0], intervals[1]


def _sentence(found: bool, gap: Interval, cophenetic: Interval, tests: tuple[NullTest, ...], p: float) -> str:
    cloud = {test.measure: test for test in tests if test.null == "cloud"}
    numbers = (
        f"K_KH {gap.estimate:.2f} against {cloud['gap'].expected:.2f} for a structureless cloud, "
        f"cophenetic correlation {cophenetic.estimate:.2f} against {cloud['cophenetic'].expected:.2f}, p = {p:.3g}"
    )
    if found:
        return f"Hierarchical: {numbers}."
    failed = ", ".join(sorted({f"{test.measure} against {test.null}" for test in tests if test.p == p}))
    return f"Not hierarchical: {numbers} ({failed})."
