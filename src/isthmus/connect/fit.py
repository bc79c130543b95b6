"""Curves of low loss between two solutions, found by descent on their bends (mode connectivity)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.paths import Bezier, Polygon
from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.weights import Weights

Bent = TypeVar("Bent", Polygon, Bezier)
# Parameters of the bends → optimiser over them.
MakeOptimiser = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclasses.dataclass(frozen=True, eq=False)
class Fit(Record, Generic[Bent]):
    """A learned curve.

    Attributes:
        path: the curve; its first and last points are the given ends.
        losses: the loss of each step, at that step's random position.
        status: STOPPED after the steps asked for, or DIVERGED where the loss left the finite range.
    """

    path: Bent = dataclasses.field(metadata={"record": False})
    losses: Float[Tensor, " steps"]
    status: Status


def bend(start: Weights, end: Weights, *, bends: int = 1, kind: type[Bent] = Bezier) -> Bent:
    """A curve between two solutions whose inner points lie evenly on the straight line: where a fit begins.

    Raises:
        SettingError: fewer than one bend.
    """
    if bends < 1:
        raise SettingError(f"a curve to be learned must have at least 1 bend, got {bends}")
    inner = [algebra.lerp(start, end, (index + 1) / (bends + 1)) for index in range(bends)]
    return kind((start, *inner, end))


def fit(
    path: Bent,
    objective: Objective,
    *,
    steps: int,
    generator: torch.Generator,
    optimiser: MakeOptimiser | None = None,
    batch_size: int = 128,
    transform: Callable[[tuple[Tensor, ...], torch.Generator], tuple[Tensor, ...]] | None = None,
    progress: Progress = silent,
) -> Fit[Bent]:
    """Descend the mean loss over the curve, t uniform on [0, 1], by moving all points but the ends.

    Each step draws one position and one batch. The network runs in training mode with the statistics of the batch, and
    buffers are not learned: estimate them anew along the learned curve (``barrier`` does).

    Args:
        path: where to begin: see :func:`bend`. It is not changed.
        objective: network, loss and training examples.
        steps: number of updates; the examples are shuffled anew whenever they are used up.
        generator: draws positions and batches.
        optimiser: makes one from the list of tensors to learn; SGD with rate .03 and momentum .9 by default.
        batch_size: examples in a step.
        transform: augmentation of a batch of inputs, drawing from the generator.
        progress: told after every step.

    Raises:
        SettingError: no steps, or a curve without inner points.

    Cost: one forward and backward pass on a batch for each step; memory for one gradient and one optimiser state for
    each bend.

    Reference: Garipov, Izmailov, Podoprikhin, Vetrov and Wilson, arXiv 1802.10026, equation 2 and algorithm 1.
    Different
    here: works through the weights of any module, without layers of its own, and for any number of bends.

    Example:
        >>> from isthmus.core.network import Network
        >>> network, other = Network.of(torch.nn.Linear(2, 3)), Network.of(torch.nn.Linear(2, 3))
        >>> objective = Objective(network, torch.randn(20, 2), torch.randint(3, (20,)))
        >>> start = bend(network.weights, other.weights)
        >>> fit(start, objective, steps=5, generator=torch.Generator().manual_seed(0)).losses.shape
        torch.Size([5])
    """
    if steps < 1:
        raise SettingError(f"steps must be at least 1, got {steps}")
    if len(path.points) < 3:
        raise SettingError(f"a curve to be learned must have at least 3 points, got {len(path.points)}")
    network = objective.network
    # Parameters only: buffers follow from the data, and tied copies from what they are tied to.
    names = [n for n in network.parameter_names if path.points[0][n].is_floating_point()]
    leaves = [{n: point[n].detach().clone().requires_grad_() for n in names} for point in path.points[1:-1]]
    ends = [{n: point[n].detach() for n in names} for point in (path.points[0], path.points[-1])]
    learner = (optimiser or _sgd)([leaf for point in leaves for leaf in point.values()])
    buffers = {n: t.detach() for n, t in path.points[0].items() if n not in names and n not in network.tied}
    losses: list[float] = []
    status = Status.STOPPED
    for step, (inputs, targets) in zip(range(steps), _shuffled(objective, batch_size, generator), strict=False):
        t = float(torch.rand((), generator=generator, device=generator.device))
        point = _at(path.coefficients(t), [ends[0], *leaves, ends[1]])
        seen = inputs if transform is None else transform(inputs, generator)
        outputs, _ = network.training({**buffers, **point}, *_like(seen, point))
        loss = objective.mean_loss(outputs, targets)
        losses.append(float(loss.detach()))
        if not torch.isfinite(loss.detach()):
            status = Status.DIVERGED
            break
        learner.zero_grad()
        loss.backward()
        learner.step()
        progress(step + 1, steps, "fit")
    inner = [{**old, **_detached(new, old, network.tied)} for old, new in zip(path.points[1:-1], leaves, strict=True)]
    learned = dataclasses.replace(path, points=(path.points[0], *inner, path.points[-1]))
    return Fit(learned, torch.tensor(losses, dtype=torch.float64), status)


def _sgd(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.03, momentum=0.9)


def _at(shares: list[float], points: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Σ share·point with gradients."""
    mixed = {}
    for name in points[0]:
        terms = [share * point[name] for share, point in zip(shares, points, strict=True) if share != 0.0]
        mixed[name] = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
    return mixed


def _shuffled(
    objective: Objective, batch_size: int, generator: torch.Generator
) -> Iterable[tuple[tuple[Tensor, ...], Tensor]]:
    """Batches without end: the examples in a fresh random order each time they are used up."""
    examples = len(objective.targets)
    while True:
        order = torch.randperm(examples, generator=generator, device=generator.device)
        # Training mode cannot standardise a single example, so the last one joins the batch before it.
        for first in range(0, max(examples - 1, 1), batch_size):
            last = first + batch_size
            chosen = order[first : last if examples - last > 1 else examples]
            yield (
                tuple(part[chosen.to(part.device)] for part in objective.parts),
                objective.targets[chosen.to(objective.targets.device)],
            )
            if examples - last <= 1:
                break


def _like(inputs: tuple[Tensor, ...], weights: Weights) -> tuple[Tensor, ...]:
    """Inputs in the precision and on the device of the weights."""
    like = next(iter(weights.values()))
    return tuple(part.to(like) if part.is_floating_point() else part.to(like.device) for part in inputs)


def _detached(point: Weights, old: Weights, tied: Mapping[str, str]) -> dict[str, Any]:
    """The learned tensors, also under the names that are tied to them."""
    found = {name: tensor.detach() for name, tensor in point.items()}
    return found | {name: found[first] for name, first in tied.items() if first in found and name in old}
