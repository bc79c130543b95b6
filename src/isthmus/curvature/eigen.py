"""Eigenpairs at the ends of a spectrum, with the residuals that say how far they can be trusted."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.operator import Operator
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.status import Status

Which = Literal["largest", "smallest", "both"]
_ENDS = {"largest": "LA", "smallest": "SA"}


@dataclasses.dataclass(frozen=True)
class EigenPairs(Record):
    """Eigenvalues at an end of the spectrum and their vectors.

    Attributes:
        values: in descending order.
        vectors: unit columns, in the same order.
        residuals: ‖A·v − λ·v‖ of every pair: some eigenvalue lies within this distance of the value. The value's own
            error is far smaller, about the residual's square over the gap to the next one.
        which: the end that was asked for.
        products: how many products with the operator it took, those of the residuals included.
        status: whether the tolerance was reached; if not, only the pairs that reached it are here.
    """

    values: Float[Tensor, " pairs"]
    vectors: Float[Tensor, "size pairs"] = dataclasses.field(metadata={"record": False}, repr=False)
    residuals: Float[Tensor, " pairs"]
    which: Which
    products: int
    status: Status


def eigenpairs(
    operator: Operator,
    pairs: int,
    which: Which = "largest",
    *,
    tolerance: float = 1e-4,
    start: Float[Tensor, " size"] | None = None,
    restarts: int = 100,
) -> EigenPairs:
    """The algebraically largest or smallest eigenpairs, or as many at each end.

    The iteration is ARPACK's implicitly restarted Lanczos in float64, whatever the operator's precision; matrices that
    are hardly larger than the Krylov space are decomposed whole instead.

    Args:
        operator: a symmetric matrix.
        pairs: how many, at least 1.
        which: the end; ``both`` gives ``pairs`` of each.
        tolerance: largest residual, relative to the eigenvalue at the upper end and to about the norm at the lower
            (which may be zero). A Ritz value is quadratically better than its vector: 1e-4 leaves eigenvalues right to
            about 1e-8 over their relative gap. A float32 operator reaches no less than 1e-6.
        start: the first Krylov vector, such as an eigenvector at a nearby point; a fixed random one by default.
        restarts: of the iteration at most, at each end, about 20 products each.

    Raises:
        SettingError: ``pairs`` is not between 1 and the size.

    Cost: about 20 to 60 products for a few outliers, more for values inside a bulk; twice ``pairs`` (at least 20)
        vectors of memory.

    Reference: Lehoucq, Sorensen, Yang, "ARPACK users' guide" (SIAM, 1998), through ``scipy.sparse.linalg.eigsh``.

    Example:
        >>> matrix = torch.diag(torch.arange(50.0))
        >>> pairs = eigenpairs(Operator(50, lambda v: matrix @ v), 2)
        >>> [round(float(value), 3) for value in pairs.values]
        [49.0, 48.0]
    """
    if which not in (*_ENDS, "both"):
        raise SettingError(f"which must be one of largest, smallest, both, got {which}")
    if not 1 <= pairs <= operator.size:
        raise SettingError(f"pairs must be between 1 and the operator's size {operator.size}, got {pairs}")
    wanted = min(operator.size, 2 * pairs if which == "both" else pairs)
    if operator.size <= max(2 * wanted + 1, 20):
        values, vectors = torch.linalg.eigh(operator.dense().double().cpu())
        keep = _ends(operator.size, pairs, which)
        values, vectors, count, status = values[keep], vectors[:, keep], operator.size, Status.CONVERGED
    else:
        ends = ("largest", "smallest") if which == "both" else (which,)
        parts = [_arpack(operator, pairs, end, tolerance=tolerance, start=start, restarts=restarts) for end in ends]
        values = torch.cat([part[0] for part in parts])
        vectors = torch.cat([part[1] for part in parts], 1)
        count = sum(part[2] for part in parts)
        status = Status.CONVERGED if len(values) == wanted else Status.STOPPED
    order = values.argsort(descending=True)
    values, vectors = values[order], vectors[:, order].to(device=operator.device, dtype=operator.dtype)
    residuals = torch.zeros(0, dtype=torch.float64)
    if len(values):
        images = operator @ vectors
        residuals = (images.double() - vectors.double() * values.to(operator.device)).norm(dim=0).cpu()
    return EigenPairs(values, vectors, residuals, which, count + len(values), status)


def _arpack(
    operator: Operator, k: int, end: Which, *, tolerance: float, start: Tensor | None, restarts: int
) -> tuple[Tensor, Tensor, int]:
    """Values, vectors and the number of products; fewer than ``k`` pairs if the restarts ran out."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    first = torch.randn(operator.size, generator=child(0, "eigenpairs"), dtype=torch.float64).numpy()
    if start is not None:
        first = start.detach().double().cpu().numpy()
    count, shift = 0, 0.0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        column = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1)))
        image = operator @ column.to(device=operator.device, dtype=operator.dtype)
        if not bool(torch.isfinite(image).all()):
            raise SettingError("products with the operator must be finite; the weights or the data hold NaN or Inf")
        return image.detach().double().cpu().numpy() - shift * vector.reshape(-1)

    scale, probe = 0.0, torch.randn(operator.size, generator=child(1, "eigenpairs"), dtype=torch.float64).numpy()
    for _ in range(1 if end == "largest" else 4):
        probe = product(probe / np.linalg.norm(probe))
        scale = float(np.linalg.norm(probe))
        if scale == 0.0:  # a random vector with no image: the matrix is zero
            return torch.zeros(k, dtype=torch.float64), torch.eye(operator.size, k, dtype=torch.float64), count
    if end == "smallest":
        # ARPACK asks for a residual relative to the value itself, which a value near zero never reaches. Moved by about
        # the norm, the smallest values are the largest in size, and the residual is relative to the norm.
        shift = scale
    matrix = LinearOperator((operator.size,) * 2, matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    try:
        # SciPy's stubs call the tolerance an int.
        options = {"which": _ENDS[end], "tol": tolerance, "v0": first, "maxiter": restarts}
        values, vectors = eigsh(matrix, k=k, **options)  # pyright: ignore[reportArgumentType]
    except ArpackNoConvergence as problem:
        values, vectors = problem.eigenvalues, problem.eigenvectors
    return torch.from_numpy(values + shift), torch.from_numpy(vectors), count


def _ends(size: int, k: int, which: Which) -> list[int]:
    """Positions, in ascending order of eigenvalue, of the ends that were asked for."""
    low = range(min(k, size)) if which != "largest" else range(0)
    high = range(max(size - k, 0), size) if which != "smallest" else range(0)
    return sorted({*low, *high})
