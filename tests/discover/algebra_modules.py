"""Small modules that compute with whole matrices: inverses, powers, diagonals, masks that leave a diagonal out.

The sizes of their groups were worked out by hand; automorphisms of Hessians at points that all permutations of
entries within a tensor keep gave the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.discover.case import Calls, Case, linears, normal
from torch import Tensor, nn


def between(function: Callable[[Any, Tensor], Tensor], **parts: Any) -> nn.Module:
    """Four units, something that is done to them, and a layer that reads them."""
    return Calls(lambda m, x: m.o(torch.tanh(function(m, torch.tanh(m.i(x))))), **linears(i=(3, 4), o=(4, 2)), **parts)


def rotation(m: Any, h: Tensor) -> Tensor:
    """Cayley's map: an orthogonal matrix of a skew one."""
    skew, one = m.w - m.w.T, torch.eye(4, dtype=h.dtype)
    return h @ torch.linalg.solve(one + skew, one - skew)


def residual_of_all_but_itself(m: Any, h: Tensor) -> Tensor:
    return h + h @ (m.w * (1 - torch.eye(4, dtype=h.dtype)))


def decorrelated(m: Any, h: Tensor) -> Tensor:
    return h @ torch.linalg.inv(m.w @ m.w.T + torch.diag(m.d.exp()))


def flow(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A step of a flow that is one matrix, and how much it stretches space."""
    return m.o(torch.tanh(torch.tanh(m.i(x)) @ m.w)), torch.linalg.slogdet(m.w)[1]


ALGEBRA: dict[str, Case] = {
    "rotation": Case(lambda: between(rotation, w=normal(4, 4)), ((2, 3),), (4,)),
    "rotation by an exponential": Case(
        lambda: between(lambda m, h: h @ torch.matrix_exp(m.w - m.w.T), w=normal(4, 4)), ((2, 3),), (4,)
    ),
    "residual of all but itself": Case(lambda: between(residual_of_all_but_itself, w=normal(4, 4)), ((2, 3),), (4,)),
    "decorrelated": Case(lambda: between(decorrelated, w=normal(4, 3), d=normal(4)), ((2, 3),), (3, 4)),
    # An inverse's rows are the matrix's columns: both sides are free.
    "inverse": Case(lambda: between(lambda m, h: h @ torch.linalg.inv(m.w), w=normal(4, 4)), ((2, 3),), (4, 4)),
    "solved for": Case(
        lambda: between(lambda m, h: torch.linalg.solve(m.w, h.mT).mT, w=normal(4, 4)), ((2, 3),), (4, 4)
    ),
    # The determinant's size does not see an exchange of rows; its sign does.
    "flow": Case(lambda: Calls(flow, w=normal(4, 4), **linears(i=(3, 4), o=(4, 2))), ((2, 3),), (4, 4)),
    "determinant": Case(
        lambda: between(lambda m, h: (h @ m.w) * torch.linalg.det(m.w), w=normal(4, 4)), ((2, 3),), (4,)
    ),
    "powers": Case(lambda: between(lambda m, h: h @ torch.matrix_power(m.w, 3), w=normal(4, 4)), ((2, 3),), (4,)),
    "diagonal of a matrix": Case(
        lambda: between(lambda m, h: h * torch.einsum("ii->i", m.w), w=normal(4, 4)), ((2, 3),), (4,)
    ),
    "vector as a diagonal": Case(lambda: between(lambda m, h: h @ torch.diag(m.d), d=normal(4)), ((2, 3),), (4,)),
    "divided by the largest singular value": Case(
        lambda: between(lambda m, h: h @ (m.w / torch.linalg.matrix_norm(m.w, 2)), w=normal(4, 4)), ((2, 3),), (4, 4)
    ),
}
