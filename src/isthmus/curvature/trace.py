"""Trace and diagonal of a matrix known by its products."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.operator import Operator
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, student_quantile


@dataclasses.dataclass(frozen=True)
class Trace(Record):
    """A trace with its interval.

    Attributes:
        interval: the estimate and its ends; its independent units are the probes.
        captured: the part of the trace inside the sketched subspace, which is exact.
        products: how many products it took.
    """

    interval: Interval
    captured: float
    products: int

    @property
    def estimate(self) -> float:
        """The trace."""
        return self.interval.estimate


@dataclasses.dataclass(frozen=True)
class Diagonal(Record):
    """The diagonal of a matrix.

    Attributes:
        values: one for each row.
        errors: their standard errors; 0 where the diagonal is exact.
        products: how many products it took.
    """

    values: Float[Tensor, " size"]
    errors: Float[Tensor, " size"]
    products: int


def trace(operator: Operator, *, generator: torch.Generator, products: int = 60, level: float = 0.95) -> Trace:
    """Hutch++: exact on a sketched subspace that holds the outliers, random probes for the rest.

    Args:
        operator: a symmetric matrix.
        generator: draws the sketch and the probes.
        products: how many products may be spent, a third each on the sketch, its image and the probes; at least 6. With
            as many as the size or more, the trace is computed exactly.
        level: nominal coverage of the interval, Student's t over probes.

    Raises:
        SettingError: fewer than 6 products.

    Cost: ``products`` products; a third of them vectors of memory.

    Reference: Meyer, Musco, Musco, Woodruff, "Hutch++" (SOSA 2021), algorithm 1.
    """
    if products < 6:
        raise SettingError(f"products must be at least 6 (two each for sketch, image and probes), got {products}")
    if products >= operator.size:
        total = float(diagonal(operator).values.double().sum())
        exact = Interval(total, total, total, level, operator.size, "exact: one product for each row")
        return Trace(exact, total, operator.size)
    third = products // 3
    basis = torch.linalg.qr(operator @ signs(operator, third, generator)).Q
    captured = float((basis * (operator @ basis)).double().sum())
    probes = signs(operator, products - 2 * third, generator)
    probes = probes - basis @ (basis.T @ probes)
    sample = (probes * (operator @ probes)).double().sum(0)
    estimate = captured + float(sample.mean())
    reach = student_quantile(0.5 + level / 2, len(sample) - 1) * float(sample.std()) / math.sqrt(len(sample))
    interval = Interval(estimate, estimate - reach, estimate + reach, level, len(sample), "Student's t over probes")
    return Trace(interval, captured, products)


def diagonal(operator: Operator, *, probes: int | None = None, generator: torch.Generator | None = None) -> Diagonal:
    """The diagonal, exactly or from random probes.

    Args:
        operator: a symmetric matrix.
        probes: random sign vectors z; the estimate is the mean of z ∘ (A·z), without bias, with an error for every
            entry from the other entries of its row. ``None``: exact.
        generator: draws the probes.

    Raises:
        SettingError: one probe only, or probes without a generator.

    Cost: one product for each row if exact, else ``probes``.

    Reference: Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a matrix", Applied Numerical Mathematics 57
        (2007).
    """
    if probes is None:
        # 64 unit vectors at a time bound the memory at any size.
        parts = [_block(operator, first, min(64, operator.size - first)) for first in range(0, operator.size, 64)]
        values = torch.cat(parts)
        return Diagonal(values, torch.zeros_like(values), operator.size)
    if probes < 2 or generator is None:
        raise SettingError(f"a random diagonal needs at least 2 probes and a generator, got {probes} probes")
    mean = square = torch.zeros(operator.size, dtype=torch.float64, device=operator.device)
    for _ in range(probes):
        probe = signs(operator, 1, generator)
        sample = (probe * (operator @ probe)).squeeze(1).double()
        mean, square = mean + sample / probes, square + sample.square() / probes
    variance = (square - mean.square()).clamp(min=0) * probes / (probes - 1)
    return Diagonal(mean.to(operator.dtype), (variance / probes).sqrt().to(operator.dtype), probes)


def signs(operator: Operator, count: int, generator: torch.Generator) -> Float[Tensor, "size count"]:
    """Columns of independent random signs."""
    drawn = torch.randint(2, (operator.size, count), generator=generator, device=generator.device)
    return (2 * drawn - 1).to(device=operator.device, dtype=operator.dtype)


def _block(operator: Operator, first: int, count: int) -> Tensor:
    columns = torch.zeros(operator.size, count, dtype=operator.dtype, device=operator.device)
    rows = torch.arange(first, first + count, device=operator.device)
    columns[rows, rows - first] = 1
    return (operator @ columns)[rows, rows - first]
