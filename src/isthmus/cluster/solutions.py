"""Sets of solutions as they come: named, of one architecture, without those that diverged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from isthmus.core.errors import SettingError, WeightsError, listed
from isthmus.core.record import Record
from isthmus.core.weights import Weights, check_alike


@dataclasses.dataclass(frozen=True)
class LeftOut(Record):
    """A solution that was not used, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Sifted:
    """The solutions that can be compared.

    Attributes:
        names: of the solutions that are left.
        solutions: their weights.
        tensors: the names of the tensors that are compared.
        left_out: what was left out, and why.
    """

    names: tuple[str, ...]
    solutions: tuple[Weights, ...]
    tensors: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def sift(
    solutions: Sequence[Weights], *, names: Sequence[str] | None = None, tensors: Sequence[str] | None = None
) -> Sifted:
    """Name the solutions, check that they are of one architecture and leave out those that have no direction.

    Args:
        solutions: weights of one architecture.
        names: what they are called; by default their numbers from 0.
        tensors: those to compare; by default all floating ones except running statistics.

    Raises:
        WeightsError: solutions of other shapes, or a tensor that is not there.
        SettingError: names that do not fit, or fewer than two solutions left.
    """
    named = tuple(names) if names is not None else tuple(str(index) for index in range(len(solutions)))
    if len(named) != len(solutions) or len(set(named)) != len(named):
        raise SettingError(f"names must be different, one for each of {len(solutions)} solutions, got {listed(named)}")
    if not solutions:
        raise SettingError("at least two solutions are needed to compare, got none")
    for name, solution in zip(named[1:], solutions[1:], strict=True):
        check_alike(solutions[0], solution, what=f"solutions {named[0]} and {name}")
    chosen = tuple(tensors) if tensors is not None else compared(solutions[0])
    if unknown := [name for name in chosen if name not in solutions[0]]:
        raise WeightsError(f"tensors must be names of tensors of the solutions; unknown: {listed(unknown)}")
    if not chosen:
        raise WeightsError("solutions must hold floating tensors to compare, got none")
    kept, left_out = [], []
    for name, solution in zip(named, solutions, strict=True):
        reason = _flaw(solution, chosen)
        if reason is None:
            kept.append((name, solution))
        else:
            left_out.append(LeftOut(name, reason))
    if len(kept) < 2:
        flaws = "; ".join(f"{each.name}: {each.reason}" for each in left_out[:5])
        raise SettingError(
            f"at least two solutions must be left to compare, got {len(kept)} ({flaws or 'none left out'})"
        )
    return Sifted(tuple(name for name, _ in kept), tuple(s for _, s in kept), chosen, tuple(left_out))


def compared(weights: Weights) -> tuple[str, ...]:
    """The tensors that count in an overlap: floating ones, without the running statistics of normalisation layers."""
    return tuple(
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var"))
    )


def _flaw(solution: Weights, tensors: Sequence[str]) -> str | None:
    """Why a solution cannot be compared."""
    if bad := [name for name in tensors if not bool(torch.isfinite(solution[name]).all())]:
        return f"diverged: NaN or Inf in {listed(bad)}"
    if not any(bool(solution[name].any()) for name in tensors):
        return "all zero: it has no direction"
    return None
