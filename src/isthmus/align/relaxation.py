"""Climbing inside the polytope of doubly stochastic matrices, all groups (and all solutions) at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from isthmus.align import soft
from isthmus.align.assignment import assign
from isthmus.align.landscape import Landscape
from isthmus.core.progress import Progress, silent
from isthmus.core.symmetry import Permutation, Symmetry

Softs = list[dict[str, Tensor]]
"""Soft matrices, one mapping for each network that is permuted."""
_LINE = torch.linspace(0, 1, 21)[1:].tolist()
"""Step lengths that are tried: along a line the objective is a polynomial whose degree the architecture decides."""
_TOGETHER = 1_000_000
"""Entries of weights up to which a CPU tries all step lengths at once: up to nine times faster for small networks, and
slower beyond. A GPU, which waits for Python at each of them alone, always does."""


_TEMPERATURES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
"""Of the annealed steps, in units of the standard deviation of each group's similarities."""


def relaxed(
    landscape: Landscape, *, start: str, iterations: int, tolerance: float, progress: Progress = silent
) -> Permutation:
    """The permutation nearest to where Frank and Wolfe's climb on a landscape ends."""
    if not landscape.names:
        return landscape.symmetry.identity()
    begin = [beginning(landscape.symmetry, landscape.fixed[landscape.names[0]], start=start)]
    end = climb(
        lambda softs: similarity(landscape, softs[0]),
        begin,
        iterations=iterations,
        tolerance=tolerance,
        entries=sum(landscape.moving[name].numel() for name in landscape.names),
        progress=progress,
    )
    return soft.nearest(landscape.symmetry, end[0])


def annealed(landscape: Landscape, *, steps: int = 3) -> Permutation:
    """The permutation nearest to the end of mean-field annealing.

    Each group's matrix becomes the Sinkhorn normalisation of its similarities to where all groups softly stand, at
    falling temperatures: first everything is mixed, then the surest units settle, and what hangs on them follows.

    Reference: Gold and Rangarajan, "A graduated assignment algorithm for graph matching", IEEE PAMI 18 (1996).
    """
    if not landscape.names:
        return landscape.symmetry.identity()
    softs = beginning(landscape.symmetry, landscape.fixed[landscape.names[0]], start="barycentre")
    for temperature in _TEMPERATURES:
        for _ in range(steps):
            leaves = {name: matrix.detach().clone().requires_grad_() for name, matrix in softs.items()}
            slopes = torch.autograd.grad(similarity(landscape, leaves), list(leaves.values()), allow_unused=True)
            for (name, matrix), slope in zip(softs.items(), slopes, strict=True):
                if slope is None or len(matrix) < 2:
                    continue
                unit = float(slope.std()) * temperature
                softs[name] = soft.sinkhorn(slope / unit, iterations=10) if unit > 0 else matrix
    return soft.nearest(landscape.symmetry, softs)


def similarity(landscape: Landscape, softs: soft.Soft) -> Tensor:
    """The landscape's objective at soft permutations, with gradients."""
    mixed = soft.apply(landscape.symmetry, softs, dict(landscape.moving))
    return torch.stack([(mixed[n] * landscape.fixed[n]).sum() for n in landscape.names]).sum()


def beginning(symmetry: Symmetry, like: Tensor, *, start: str) -> dict[str, Tensor]:
    """Matrices to start from: the barycentre of all permutations, or the identity."""
    matrices = soft.hard(symmetry.identity(), like)
    if start == "identity":
        return matrices
    return {name: torch.full_like(matrix, 1 / len(matrix)) for name, matrix in matrices.items()}


def climb(
    value: Callable[[Softs], Tensor],
    softs: Softs,
    *,
    iterations: int,
    tolerance: float,
    entries: int,
    progress: Progress = silent,
) -> Softs:
    """Frank–Wolfe steps with the best length on a grid; the value never falls.

    Args:
        value: what is maximised, differentiable in the matrices.
        softs: where to start.
        iterations: the most steps.
        tolerance: relative gain of a step that ends the climb.
        entries: of all weights that the value mixes.
        progress: called after each step.
    """
    reached = float(value(softs))
    on_cpu = next(iter(softs[0].values()), torch.empty(0)).device.type == "cpu"
    together = not on_cpu or entries <= _TOGETHER
    for iteration in range(iterations):
        leaves = [{n: m.detach().clone().requires_grad_() for n, m in matrices.items()} for matrices in softs]
        flat = [leaf for matrices in leaves for leaf in matrices.values()]
        slopes = iter(torch.autograd.grad(value(leaves), flat, allow_unused=True))
        corners = [{name: _corner(matrix, next(slopes)) for name, matrix in matrices.items()} for matrices in leaves]
        best, step = max(zip(_along(value, softs, corners, together=together), _LINE, strict=True))
        if best <= reached + tolerance * abs(reached):
            break
        reached, softs = best, _between(softs, corners, step)
        progress(iteration + 1, iterations, "Frank–Wolfe")
    return softs


@torch.no_grad()
def _along(
    value: Callable[[Softs], Tensor], softs: Softs, corners: Sequence[dict[str, Tensor]], *, together: bool
) -> list[float]:
    """The value at every step length on the line to the corners.

    ``together``: all at once, at twenty times the memory; where that runs out, or an operation cannot be vectorised,
    one after the other.
    """
    if together:
        first = next(iter(softs[0].values()))
        steps = torch.tensor(_LINE, dtype=first.dtype, device=first.device)
        with contextlib.suppress(RuntimeError, NotImplementedError):  # out of memory is one of the first kind
            return torch.func.vmap(lambda step: value(_between(softs, corners, step)))(steps).tolist()
    return [float(value(_between(softs, corners, step))) for step in _LINE]


def _corner(matrix: Tensor, slope: Tensor | None) -> Tensor:
    """The permutation matrix that lies farthest uphill."""
    if slope is None:
        return matrix.detach()
    index = assign(slope)
    return torch.eye(len(index), dtype=matrix.dtype, device=matrix.device)[index.to(matrix.device)]


def _between(softs: Sequence[dict[str, Tensor]], corners: Sequence[dict[str, Tensor]], step: float | Tensor) -> Softs:
    return [
        {name: torch.lerp(matrix.detach(), corner[name], step) for name, matrix in matrices.items()}
        for matrices, corner in zip(softs, corners, strict=True)
    ]
