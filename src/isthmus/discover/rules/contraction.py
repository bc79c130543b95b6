"""Contractions: products of entries, summed over shared axes."""

from __future__ import annotations

from typing import Any

from isthmus.discover.labels import Labels, aligned, dropped, moved, permuted, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule


@rule("linear")
def linear(ledger: Ledger, value: Labels, weight: Labels, bias: Labels | None = None) -> Labels:
    """Y = x Wᵀ + b over the last axis."""
    batch = "abcdefghijklmn"[: value.rank - 1]
    equation = f"{batch}z,yz->{batch}y" if weight.rank == 2 else f"{batch}z,z->{batch}"
    result = ledger.contract(equation, value, weight)
    return result if bias is None else ledger.meet(result, bias)


@rule("mm")
def mm(ledger: Ledger, one: Labels, other: Labels) -> Labels:
    """Matrix times matrix."""
    return ledger.contract("az,zb->ab", one, other)


@rule("mv")
def mv(ledger: Ledger, one: Labels, other: Labels) -> Labels:
    """Matrix times vector."""
    return ledger.contract("az,z->a", one, other)


@rule("dot", "vdot")
def dot(ledger: Ledger, one: Labels, other: Labels) -> Labels:
    """Vector times vector."""
    return ledger.contract("z,z->", one, other)


@rule("bmm")
def bmm(ledger: Ledger, one: Labels, other: Labels) -> Labels:
    """A batch of matrices times a batch of matrices."""
    ledger.word = "heads"
    return ledger.contract("naz,nzb->nab", one, other)


@rule("addmm", "baddbmm", "addmv", "addbmm", "_addmm_activation")
def added_product(ledger: Ledger, added: Labels, one: Labels, other: Labels, **_: Any) -> Labels:
    """A sum with a matrix product."""
    return ledger.meet(added, matmul(ledger, one, other))


@rule("matmul")
def matmul(ledger: Ledger, one: Labels, other: Labels) -> Labels:
    """The product over the last axis of one and the last but one of the other, batches broadcast."""
    if one.rank == 1 or other.rank == 1:
        left = one if one.rank > 1 else aligned(one, (1, *one.shape))
        right = other if other.rank > 1 else reshaped(other, (*other.shape, 1))
        result = matmul(ledger, left, right)
        gone = [
            axis for axis, vector in ((result.rank - 2, one.rank == 1), (result.rank - 1, other.rank == 1)) if vector
        ]
        return dropped(result, gone)
    rank = max(one.rank, other.rank)
    left = aligned(one, (1,) * (rank - one.rank) + one.shape)
    right = aligned(other, (1,) * (rank - other.rank) + other.shape)
    batch = "abcdefghijklmn"[: rank - 2]
    ledger.word = "heads"
    return ledger.contract(f"{batch}yz,{batch}zx->{batch}yx", left, right)


@rule("einsum")
def einsum(ledger: Ledger, equation: str, values: list[Labels], **_: Any) -> Labels:
    """Any product and sum that an equation names."""
    ledger.word = "heads"
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "..." in equation:
        widest = max(
            (
                value.rank - len(term.replace("...", ""))
                for term, value in zip(terms, values, strict=True)
                if "..." in term
            ),
            default=0,
        )
        free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation][:widest]
        terms = [
            term.replace("...", "".join(free[len(free) - (value.rank - len(term.replace("...", ""))) :]))
            if "..." in term
            else term
            for term, value in zip(terms, values, strict=True)
        ]
        output = output.replace("...", "".join(free))
    else:
        free = []
    if not arrow:
        joined = "".join(terms)
        output = "".join(free) + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in free))
    pairs = [_on_diagonals(ledger, value, term) for value, term in zip(values, terms, strict=True)]
    values, terms = [value for value, _ in pairs], [term for _, term in pairs]
    return ledger.contract(f"{','.join(terms)}->{output}", *values)


def _on_diagonals(ledger: Ledger, value: Labels, term: str) -> tuple[Labels, str]:
    """A value and the names of its axes, each once: of axes of one name only the entries at equal places count."""
    while len(set(term)) < len(term):
        name = next(c for c in term if term.count(c) > 1)
        one, other = [axis for axis, c in enumerate(term) if c == name][:2]
        shape = (*(size for axis, size in enumerate(value.shape) if axis not in (one, other)), value.shape[one])
        line = moved(value, lambda ids, one=one, other=other: ids.diagonal(0, one, other))
        value = ledger.chosen(value, line) if value.layers else Labels(shape)
        term = "".join(c for axis, c in enumerate(term) if axis not in (one, other)) + name
    return value, term


@rule("bilinear")
def bilinear(ledger: Ledger, one: Labels, other: Labels, weight: Labels, bias: Labels | None = None) -> Labels:
    """Y = x₁ᵀ A x₂ + b over the last axes."""
    batch = "abcdefghijklmn"[: one.rank - 1]
    result = ledger.contract(f"{batch}y,{batch}z,xyz->{batch}x", one, other, weight)
    return result if bias is None else ledger.meet(result, bias)


@rule("_trilinear")
def trilinear(ledger: Ledger, *arguments: Any) -> Labels:
    """The kernel behind ``bilinear``."""
    return ledger.opaque([a for a in arguments if isinstance(a, Labels)], ledger.shape, "has no rule")


@rule("outer", "ger")
def outer(ledger: Ledger, one: Labels, other: Labels) -> Labels:
    """All products of two vectors."""
    return ledger.contract("a,b->ab", one, other)


@rule("t", "numpy_T", "mT", "adjoint")
def transposed(ledger: Ledger, value: Labels) -> Labels:
    """The last two axes exchanged."""
    return value if value.rank < 2 else permuted(value, [*range(value.rank - 2), value.rank - 1, value.rank - 2])


@rule("cdist", "_cdist_forward")
def distances(ledger: Ledger, one: Labels, other: Labels, *_: Any, **__: Any) -> Labels:
    """Distances between rows: a symmetric function of the coordinates."""
    return matmul(ledger, one, transposed(ledger, other))


@rule("cosine_similarity")
def cosine(ledger: Ledger, one: Labels, other: Labels, dim: int = 1, eps: float = 0.0) -> Labels:
    """The angle between vectors along an axis."""
    return ledger.reduce(ledger.meet(one, other), [dim])
