"""Functions of whole matrices: inverses, powers, determinants, diagonals.

With P and Q permutations, the inverse of P A Qᵀ is Q A⁻¹ Pᵀ, and what a power series makes of P A Pᵀ is P f(A) Pᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.discover.identities import identity
from isthmus.discover.labels import Labels, dropped, moved, permuted, positional, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.contraction import matmul, transposed
from isthmus.discover.rules.registry import rule

_MIXED = "is a matrix whose rows and columns do not move on their own"
_BATCH = "abcdefghijklmn"


def _by_rows_and_columns(ledger: Ledger, value: Labels) -> Labels:
    """A matrix whose units lie along its rows or along its columns; those that lie along both stand still."""
    both = {value.rank - 2, value.rank - 1}
    for layer in value.movable:
        if layer.axes >= both:
            ledger.pin(Labels(value.shape, (layer,)), _MIXED)
    return Labels(value.shape, tuple(layer for layer in value.layers if layer.pinned or not layer.axes >= both))


@rule("linalg_inv", "inverse", "linalg_inv_ex", "linalg_pinv", "pinverse")
def inverted(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Any:
    """Rows of the inverse are the matrix's columns."""
    return ledger.first_of(transposed(ledger, _by_rows_and_columns(ledger, value)))


@rule("linalg_solve", "_linalg_solve_ex", "linalg_solve_ex")
def solution(ledger: Ledger, matrix: Labels, given: Labels, *, left: bool = True, **_: Any) -> Any:
    """X of A X = B, or of X A = B: A's inverse times B."""
    matrix = _by_rows_and_columns(ledger, matrix)
    inverse = transposed(ledger, matrix)
    vector = given.rank == 1 or (given.rank == matrix.rank - 1 and given.shape == matrix.shape[:-1])
    column = reshaped(given, (*given.shape, 1)) if vector else given
    made = matmul(ledger, inverse, column) if left else matmul(ledger, column, inverse)
    return ledger.first_of(dropped(made, [made.rank - 1]) if vector else made)


@rule("matrix_exp", "linalg_matrix_exp", "matrix_power", "linalg_matrix_power")
def power_series(ledger: Ledger, value: Labels, *_: Any) -> Labels:
    """Rows and columns move alike, as they do in the matrix's square."""
    value = _by_rows_and_columns(ledger, value)
    both = [value, matmul(ledger, value, value), transposed(ledger, value)]
    return ledger.meet(*both, identity(ledger, value.shape[-1], value.rank))


@rule("linalg_det", "det", "logdet", "_linalg_det", "linalg_slogdet", "slogdet", "_linalg_slogdet")
def determinant(ledger: Ledger, value: Labels, *_: Any) -> Any:
    """Its sign is that of both permutations, so rows and columns move alike; its size lets each move on its own."""
    value = _by_rows_and_columns(ledger, value)
    batch = _BATCH[: value.rank - 2]
    size_alone = "slogdet" in ledger.operation and not ledger.used(0) and all(not ledger.used(k) for k in (2, 3))
    if size_alone:
        made = ledger.reduce(value, [value.rank - 2, value.rank - 1])
    else:
        made = ledger.contract(f"{batch}yz,{batch}zy->{batch}", value, value)
    if "logdet" in ledger.operation and ledger.outputs > 1:
        return (made, made, *(Labels(shape, (positional(shape),)) for shape in ledger.shapes[2:]))
    return ledger.first_of(made)


@rule("linalg_svdvals", "linalg_matrix_norm")
def singular_values(ledger: Ledger, value: Labels, *arguments: Any, dim: Sequence[int] = (-2, -1), **_: Any) -> Labels:
    """Singular values in order of size, and norms of a matrix: neither knows the order of rows or columns."""
    dims = next((a for a in arguments if isinstance(a, (list, tuple))), dim)
    value = permuted(value, [*(axis for axis in range(value.rank) if axis not in _positive(dims, value.rank)),
                             *_positive(dims, value.rank)])  # fmt: skip
    rest = ledger.reduce(_by_rows_and_columns(ledger, value), [value.rank - 2, value.rank - 1])
    shape = tuple(ledger.shape)
    if not ledger.operation.endswith("svdvals"):
        return reshaped(rest, shape)
    values = Labels(shape, (positional(shape, [len(shape) - 1]),))
    return ledger.meet(reshaped(rest, (*rest.shape, 1)), values)


def _positive(axes: Sequence[int], rank: int) -> list[int]:
    return [axis % rank for axis in axes]


@rule("diagonal", "diagonal_copy")
def diagonal(ledger: Ledger, value: Labels, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Labels:
    """Entries whose places along two axes are the same."""
    result = moved(value, lambda ids: ids.diagonal(offset, dim1, dim2))
    return ledger.chosen(value, result) if value.layers else Labels(tuple(ledger.shape))


@rule("diag_embed", "diag_embed_copy")
def diagonal_matrix(ledger: Ledger, value: Labels, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Labels:
    """A vector on a diagonal: row and column of an entry are its place in the vector."""
    if offset:
        return ledger.opaque([value], ledger.shape, "spreads units over another than the main diagonal")
    rank = value.rank + 1
    row, column = dim1 % rank, dim2 % rank
    made = ledger.meet(reshaped(value, (*value.shape, 1)), identity(ledger, value.shape[-1], rank))
    order: list[int] = []
    rest = iter(range(rank - 2))
    for axis in range(rank):
        order.append(rank - 2 if axis == row else rank - 1 if axis == column else next(rest))
    return permuted(made, order)


@rule("diag")
def diag(ledger: Ledger, value: Labels, offset: int = 0) -> Labels:
    """A vector's matrix, or a matrix's vector."""
    return diagonal_matrix(ledger, value, offset) if value.rank == 1 else diagonal(ledger, value, offset)
