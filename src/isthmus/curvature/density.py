"""The spectral density by Lanczos quadrature: nodes, weights, the cumulative density and how sure it is."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.operator import Operator
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.statistics import student_quantile
from isthmus.curvature.eigen import EigenPairs

_BASIS_BYTES = 2**30  # Krylov bases of all probes that go together; one probe is always allowed


@dataclasses.dataclass(frozen=True)
class Density(Record):
    """The distribution of a matrix's eigenvalues, as a measure of total weight 1.

    Attributes:
        nodes: Ritz values of every probe, ascending; the eigenvalues themselves, in one row, where all were found.
        weights: their shares; each row adds up to 1 less the share of the outliers.
        outliers: eigenvalues that were taken out, each with the exact share 1/size.
        at: every place where the density has weight, ascending.
        cumulative: the share of eigenvalues at or below each place.
        low: lower end of its interval: Student's t from probe to probe, widened by what the quadrature leaves open
            inside each probe's measure (the share of the next node, unless that is an eigenvalue already found).
        high: upper end.
        level: nominal coverage, point by point.
        size: the number of eigenvalues.
        products: how many products it took.
    """

    nodes: Float[Tensor, "probes steps"]
    weights: Float[Tensor, "probes steps"]
    outliers: Float[Tensor, " outliers"]
    at: Float[Tensor, " places"]
    cumulative: Float[Tensor, " places"]
    low: Float[Tensor, " places"]
    high: Float[Tensor, " places"]
    level: float
    size: int
    products: int

    def share_below(self, value: float) -> float:
        """The share of eigenvalues at or below a value."""
        place = int(torch.searchsorted(self.at, torch.tensor(value, dtype=self.at.dtype), right=True))
        return float(self.cumulative[place - 1]) if place else 0.0

    def moment(self, power: int) -> float:
        """The mean of λ^power; size times the first is the trace."""
        nodes = float((self.weights * self.nodes**power).sum()) / len(self.nodes)
        return nodes + float((self.outliers**power).sum()) / self.size

    def distance(self, eigenvalues: Float[Tensor, " size"]) -> float:
        """The Wasserstein-1 distance to known eigenvalues, ∫ |F − G|, in units of the eigenvalues."""
        known = eigenvalues.double().sort().values
        places = torch.cat([self.at, known]).sort().values
        here = _steps(self.at, self.cumulative, places)
        there = torch.searchsorted(known, places, right=True).double() / len(known)
        return float(((here - there).abs()[:-1] * places.diff()).sum())

    def smoothed(self, at: Float[Tensor, " points"], *, width: float) -> Float[Tensor, " points"]:
        """Gaussian bumps of standard deviation ``width`` in place of the nodes; for drawing only, not a result."""
        places = torch.cat([self.nodes.flatten(), self.outliers])
        ones = torch.full_like(self.outliers, 1 / self.size)
        shares = torch.cat([self.weights.flatten() / len(self.nodes), ones])
        bumps = torch.exp(-0.5 * ((at.double()[:, None] - places) / width) ** 2)
        return (bumps * shares).sum(1) / (width * math.sqrt(2 * math.pi))


def density(
    operator: Operator,
    *,
    generator: torch.Generator,
    probes: int = 10,
    steps: int = 80,
    outliers: EigenPairs | None = None,
    level: float = 0.95,
    progress: Progress = silent,
) -> Density:
    """The distribution of all eigenvalues from Krylov spaces of random vectors, with full re-orthogonalisation.

    Without re-orthogonalisation the largest eigenvalues come back as ghosts and their shares are wrong.

    Args:
        operator: a symmetric matrix.
        generator: draws the probes.
        probes: independent random vectors, at least 2, for the interval.
        steps: Krylov steps for each: the first 2·steps moments of every probe are exact.
        outliers: known eigenpairs to take out first. They enter with their exact share, and the probes see only the
            rest, which is worth much where few large eigenvalues carry most of the trace. ``None``: those to which one
            more Krylov space converges.
        level: nominal coverage of the interval, Student's t over probes, point by point.
        progress: told of the probes done.

    Raises:
        SettingError: fewer than two probes or steps.

    Cost: (probes + 1) × steps products; steps vectors of memory for every probe that goes along (a gigabyte in all, at
        least one probe). A matrix no larger than that number is decomposed whole, and the result is exact.

    Reference: Ubaru, Chen, Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal.
        38 (2017), section 3; deflation as in Hutch++.

    Example:
        >>> matrix = torch.diag(torch.linspace(0, 1, 100))
        >>> result = density(Operator(100, lambda v: matrix @ v), generator=torch.Generator().manual_seed(0))
        >>> round(result.share_below(0.5), 1)
        0.5
    """
    if probes < 2 or steps < 2:
        raise SettingError(f"a density needs at least 2 probes and 2 steps, got {probes} and {steps}")
    if operator.size <= (probes + 1) * steps:
        values = torch.linalg.eigvalsh(operator.dense().double()).cpu()[None]
        weights, settled = torch.full_like(values, 1 / operator.size), torch.ones_like(values, dtype=torch.bool)
        return _measured(values, weights, settled, outliers=values[0, :0], size=operator.size, level=level)
    spent = 0
    if outliers is not None:
        known, values = torch.linalg.qr(outliers.vectors.to(operator.device, operator.dtype)).Q, outliers.values
    else:
        known, values = _scouted(operator, steps, generator)
        spent = steps
    rest = operator.size - len(values)
    entry = torch.empty(0, dtype=operator.dtype).element_size()
    together = max(1, min(probes, _BASIS_BYTES // (steps * operator.size * entry)))
    rows = []
    for first in range(0, probes, together):
        progress(first, probes, "density")
        starts = _gaussian(operator, min(together, probes - first), generator)
        rows.append(quadrature(operator, starts, steps, orthogonal_to=known))
    progress(probes, probes, "density")
    nodes, weights, settled = (torch.cat(parts) for parts in zip(*rows, strict=True))
    weights = weights * (rest / operator.size)
    result = _measured(nodes, weights, settled, outliers=values.double().cpu(), size=operator.size, level=level)
    return dataclasses.replace(result, products=result.products + spent)


def _scouted(operator: Operator, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The eigenpairs to which one Krylov space has converged: the outliers, for the price of one probe."""
    krylov = _lanczos(operator, _gaussian(operator, 1, generator), steps, None)
    values, vectors = torch.linalg.eigh(krylov.tridiagonal[0])
    # More than half the space is never settled to use.
    settled = _settled(values, vectors, krylov.last[0]) & (values.abs() > 0)
    chosen = sorted(settled.nonzero().flatten().tolist(), key=lambda place: -abs(float(values[place])))[: steps // 2]
    ritz = krylov.basis[0].T @ vectors[:, chosen].to(operator.device, operator.dtype)
    return torch.linalg.qr(ritz).Q, values[chosen]


def quadrature(
    operator: Operator, starts: Float[Tensor, "size probes"], steps: int, *, orthogonal_to: Float[Tensor, "size known"]
) -> tuple[Float[Tensor, "probes steps"], Float[Tensor, "probes steps"], Bool[Tensor, "probes steps"]]:
    """Gauss quadrature of every start's spectral measure.

    Returns:
        Nodes; weights, each row adding up to 1; which nodes are eigenvalues already.
    """
    krylov = _lanczos(operator, starts, steps, orthogonal_to)
    nodes, vectors = torch.linalg.eigh(krylov.tridiagonal)
    return nodes, vectors[:, 0, :].square(), _settled(nodes, vectors, krylov.last[:, None])


def _settled(values: Tensor, vectors: Tensor, last: Tensor) -> Tensor:
    """Ritz values whose residual is below a thousandth: they are right to about a millionth."""
    return (last * vectors[..., -1, :]).abs() <= 1e-3 * values.abs().clamp(min=1e-9 * float(values.abs().max()))


@dataclasses.dataclass(frozen=True, eq=False)
class _Krylov:
    """Orthonormal bases, the operator's image in them, and the length of what leads out of them."""

    basis: Float[Tensor, "probes steps size"]
    tridiagonal: Float[Tensor, "probes steps steps"]
    last: Float[Tensor, " probes"]


def _lanczos(operator: Operator, starts: Tensor, steps: int, known: Tensor | None) -> _Krylov:
    """The three-term recurrence; every new vector is orthogonalised twice against all before it."""
    probes = starts.shape[1]
    basis = torch.zeros(probes, steps, operator.size, dtype=operator.dtype, device=operator.device)
    alpha, beta = (torch.zeros(probes, steps, dtype=torch.float64) for _ in range(2))
    current = starts if known is None else starts - known @ (known.T @ starts)
    current = current / current.norm(dim=0)
    scale = torch.zeros(probes, dtype=torch.float64)
    exhausted = 10 * operator.size**0.5 * torch.finfo(operator.dtype).eps
    for step in range(steps):
        basis[:, step] = current.T
        image = operator @ current
        alpha[:, step] = (image * current).double().sum(0).cpu()
        scale = torch.maximum(scale, image.norm(dim=0).double().cpu())
        image = _orthogonal(image, basis[:, : step + 1], known)
        length = image.norm(dim=0)
        # An exhausted Krylov space ends its recurrence: zeros from here on get no weight in the quadrature.
        alive = length.double().cpu() > exhausted * scale
        beta[:, step] = torch.where(alive, length.double().cpu(), 0.0)
        current = torch.where(alive.to(length.device), image / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)
    between = beta[:, :-1]
    tridiagonal = torch.diag_embed(alpha) + torch.diag_embed(between, 1) + torch.diag_embed(between, -1)
    return _Krylov(basis, tridiagonal, beta[:, -1])


def _orthogonal(image: Tensor, basis: Tensor, known: Tensor | None) -> Tensor:
    """What of the images lies outside the bases and the known vectors; twice, because once is not enough."""
    for _ in range(2):
        if known is not None:
            image = image - known @ (known.T @ image)
        along = torch.einsum("psn,np->ps", basis, image)
        image = image - torch.einsum("psn,ps->np", basis, along)
    return image


def _gaussian(operator: Operator, count: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(operator.size, count, generator=generator, device=generator.device)
    return drawn.to(device=operator.device, dtype=operator.dtype)


def _measured(nodes: Tensor, weights: Tensor, settled: Tensor, *, outliers: Tensor, size: int, level: float) -> Density:
    """Put the cumulative density and its interval beside the nodes.

    Inside one probe's measure the true cumulative density at a place lies between the steps on either side of it
    (Chebyshev, Markov, Stieltjes); a node that is an eigenvalue is a true step and leaves nothing open.
    """
    at = torch.cat([nodes.flatten(), outliers]).sort().values
    fixed = torch.searchsorted(outliers.sort().values, at, right=True).double() / size
    each, below, above = [], [], []
    for row, share, found in zip(nodes, weights, settled, strict=True):
        index = torch.searchsorted(row, at, right=True)
        loose = torch.cat([share.new_zeros(1), share.masked_fill(found, 0.0), share.new_zeros(1)])
        each.append(_steps(row, share.cumsum(0), at) + fixed)
        below.append(loose[index])
        above.append(loose[index + 1])
    sample, probes = torch.stack(each), len(nodes)
    mean, reach = sample.mean(0), torch.zeros_like(at)
    if probes > 1:
        reach = student_quantile(0.5 + level / 2, probes - 1) * sample.std(0) / math.sqrt(probes)
    low = (mean - reach - torch.stack(below).mean(0)).clamp(0, 1)
    high = (mean + reach + torch.stack(above).mean(0)).clamp(0, 1)
    return Density(nodes, weights, outliers, at, mean, low, high, level, size, nodes.numel())


def _steps(places: Tensor, cumulative: Tensor, at: Tensor) -> Tensor:
    """A right-continuous step function at some points."""
    index = torch.searchsorted(places, at, right=True)
    return torch.cat([cumulative.new_zeros(1), cumulative])[index]
