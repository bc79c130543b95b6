"""Is this a minimum, and where is the bottom nearby?"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.weights import Weights, flatten, unflatten

_NEGATIVE = 1e-3  # of the largest eigenvalue: below it a negative curvature is taken for rounding
_PAIRS = 50  # of steps and slopes that L-BFGS remembers
_STRETCH = 50  # iterations between two looks at the progress


@dataclasses.dataclass(frozen=True)
class Settled(Record):
    """The bottom that descent on all data reached.

    Attributes:
        weights: there.
        loss: mean loss there, weight decay included.
        gradient_norm: of the whole objective, weight decay included.
        before: that norm at the start.
        iterations: of L-BFGS.
        status: whether the norm fell below the tolerance.
    """

    weights: Weights = dataclasses.field(metadata={"record": False}, repr=False)
    loss: float
    gradient_norm: float
    before: float
    iterations: int
    status: Status


def settled(
    objective: Objective,
    weights: Weights,
    *,
    weight_decay: float = 0.0,
    iterations: int = 1000,
    tolerance: float = 1e-6,
    progress: Progress = silent,
) -> Settled:
    """Descend to the bottom nearby with all data at every step, in evaluation mode.

    Training that ends at a constant or falling rate stops beside its minimum; laws about minima need the place itself.

    Args:
        objective: what is minimised.
        weights: where to begin; not written to. Their precision limits what can be reached.
        weight_decay: ½·weight_decay·‖θ‖² is part of what is minimised, over the trainable tensors.
        iterations: at most.
        tolerance: gradient norm that counts as zero.
        progress: told of the iterations done.

    Raises:
        SettingError: fewer than one iteration, or the loss does not stay finite.

    Cost: one to two gradients of all data for each iteration.

    Reference: Liu & Nocedal, "On the limited memory BFGS method", Mathematical Programming 45 (1989), with a strong
        Wolfe line search, through ``torch.optim``.

    Example:
        >>> from isthmus.core.network import Network
        >>> from isthmus.core.losses import squared_error
        >>> network = Network.of(torch.nn.Linear(1, 1, bias=False).double())
        >>> data = torch.ones(4, 1, dtype=torch.float64)
        >>> objective = Objective(network, data, 3 * data, loss=squared_error, metrics={})
        >>> round(float(settled(objective, network.weights).weights["weight"]), 6)
        3.0
    """
    if iterations < 1:
        raise SettingError(f"settling needs at least 1 iteration, got {iterations}")
    names = objective.network.parameter_names
    place = flatten(weights, tensors=names).detach().clone().requires_grad_()

    def measured() -> Tensor:
        score, slopes = objective.gradient(unflatten(place.detach(), weights, tensors=names))
        place.grad = flatten(slopes, tensors=names).to(place) + weight_decay * place.detach()
        height = score.loss + weight_decay / 2 * float(place.detach().double().square().sum())
        return torch.tensor(height, dtype=torch.float64)  # of a line search that compares nearly equal heights

    optimiser = torch.optim.LBFGS(
        [place], max_iter=_STRETCH, history_size=_PAIRS, tolerance_grad=0.0, tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    loss, before, done = measured(), _length(place), 0
    norm = before
    while done < iterations and norm > tolerance:
        progress(done, iterations, "settling")
        optimiser.param_groups[0]["max_iter"] = min(_STRETCH, iterations - done)
        start = norm
        optimiser.step(measured)
        done = int(optimiser.state[place]["n_iter"])
        loss, norm = measured(), _length(place)
        if norm == start:  # the line search finds nothing lower: rounding
            break
    if not math.isfinite(norm):
        raise SettingError("settling must stay finite, but the loss or its gradient did not; start from better weights")
    status = Status.CONVERGED if norm <= tolerance else Status.STOPPED
    found = unflatten(place.detach(), weights, tensors=names)
    for copy, first in objective.network.tied.items():
        found[copy] = found[first]
    return Settled(found, float(loss), norm, before, done, status)


def check_minimum(
    values: Float[Tensor, " pairs"],
    predicted: Float[Tensor, " pairs"],
    columns: Float[Tensor, "size pairs"],
    slope: Float[Tensor, " size"] | None,
    *,
    lowest: float | None = None,
) -> None:
    """Refuse a start that is no minimum on the scale of the noise.

    The bottom must lie no more than one predicted standard deviation away along each given direction. Along all others
    the curvature is no larger than the smallest given one, which says how far the bottom lies at least: that must be no
    more than the walkers' whole predicted spread.

    Args:
        values: eigenvalues of the Hessian.
        predicted: the walkers' variance along their vectors.
        columns: those vectors.
        slope: the whole data's gradient; ``None`` if it is known to be zero.
        lowest: the smallest eigenvalue of all, where ``values`` are only the largest.

    Raises:
        WeightsError: says the gradient's norm and the most negative curvature.
    """
    curvature = values.double().cpu()
    norm = 0.0 if slope is None else float(slope.double().norm())
    largest = float(curvature.max())
    lowest = float(curvature.min()) if lowest is None else min(lowest, float(curvature.min()))
    found = f"the gradient's norm is {norm:.3g} and the lowest curvature {lowest:.3g}"
    if lowest < -_NEGATIVE * max(largest, 0.0) or largest <= 0:
        raise WeightsError(f"a stationary law needs a minimum, but {found}; settle, train longer, or force it")
    if slope is not None:
        along = columns.T @ slope.to(columns)
        rest = float((slope.to(columns) - columns @ along).double().norm())
        bounded = curvature.clamp(min=_NEGATIVE * largest)
        beyond = bool(((along.double().cpu() / bounded).square() > predicted).any())
        if beyond or (rest / float(bounded.min())) ** 2 > float(predicted.sum()):
            raise WeightsError(
                f"a stationary law needs a minimum, but the bottom lies beyond the walkers' own spread: {found}; "
                "settle, train longer at a falling rate, or force it"
            )


def _length(place: Tensor) -> float:
    assert place.grad is not None  # just measured
    return float(place.grad.double().norm())
